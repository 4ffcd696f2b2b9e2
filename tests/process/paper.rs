//! `stellar-score paper`: four made-up methods, from folders of images and from a server.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use crate::harness::{Server, demo_pack, folder, program, read, run};
use crate::support::client;

/// Names that LaTeX, CSV and Markdown would misread.
const METHODS: [&str; 4] = ["[a]_b & 50%", "=#1~{x}^\\", "<b>中<i>", "mine"];

/// Images of methods, their dataset, and the folders of a paper and its scores.
struct Made {
    images: PathBuf,
    dataset: PathBuf,
    out: PathBuf,
    store: PathBuf,
}

impl Made {
    /// The command that scores the images and writes the paper.
    fn paper(&self) -> std::process::Command {
        let [images, dataset, out, store] = [&self.images, &self.dataset, &self.out, &self.store]
            .map(|of| of.display().to_string());
        let mut command = program(&["paper", "--images", &images, "--dataset", &dataset]);
        command.args(["--out", &out, "--store", &store]).env("STELLAR_PACK", demo_pack());
        command
    }
}

/// Makes up images of these methods for prompts of two people, all of one category. A kind of
/// prompts is a benchmark from five images on, a category from twenty.
fn make(at: &Path, methods: &[&str], prompts: &str) -> Made {
    let text = |path: &Path| path.display().to_string();
    let (sample, dataset) = (at.join("sample"), at.join("mine"));
    let size = ["--identities", "2", "--prompts", prompts];
    run(program(&["dataset", "synthesize", "--out", &text(&sample)]).args(size)).printed();
    let download = text(&sample.join("download"));
    let prompts = text(&sample.join("prompts"));
    let prepare = ["dataset", "prepare", "--download", &download, "--prompts", &prompts];
    run(program(&prepare).args(["--out", &text(&dataset)])).printed();

    // Each method has the images of the made-up run, given to other prompts.
    let generations = sample.join("generations");
    let mut names: Vec<String> = fs::read_dir(&generations)
        .expect("a folder")
        .filter_map(|entry| {
            let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
            name.strip_suffix(".png").map(str::to_owned)
        })
        .collect();
    names.sort();
    let images = at.join("images");
    for (shift, method) in methods.iter().enumerate() {
        let folder = images.join(method);
        fs::create_dir_all(&folder).expect("a folder");
        for (place, name) in names.iter().enumerate() {
            let from = &names[(place + shift) % names.len()];
            fs::copy(generations.join(format!("{from}.png")), folder.join(format!("{name}.png")))
                .expect("a copy");
            let file = format!("{name}.json");
            let about = read(&generations.join(&file));
            let mut about: serde_json::Value = serde_json::from_str(&about).expect("JSON");
            about["categories"] = serde_json::json!(["a & b"]);
            fs::write(folder.join(&file), about.to_string()).expect("a file");
        }
    }
    Made { images, dataset, out: at.join("paper"), store: at.join("store") }
}

/// Typesets the document, if there is a LaTeX.
fn typeset(out: &Path) {
    let is_there = std::process::Command::new("pdflatex").arg("--version").output();
    if is_there.is_err() {
        return;
    }
    let copy = folder();
    for file in files(out) {
        let path = copy.path().join(&file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::copy(out.join(&file), path).expect("a copy");
    }
    let mut command = std::process::Command::new("pdflatex");
    command.args(["-interaction=nonstopmode", "-halt-on-error", "paper"]).current_dir(copy.path());
    let printed = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.status.success(), "{text}");
}

fn files(at: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![at.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let below = path.strip_prefix(at).expect("a path below");
                found.insert(below.display().to_string());
            }
        }
    }
    found
}

/// Returns a file's text without comments, and checks that its environments and braces are
/// balanced and that no character stands where LaTeX would misread it.
#[track_caller]
fn well_formed(path: &Path) -> String {
    let mut text = String::new();
    for line in read(path).lines() {
        let mut escaped = false;
        let comment = line.char_indices().find(|&(_, char)| {
            let is_comment = char == '%' && !escaped;
            escaped = char == '\\' && !escaped;
            is_comment
        });
        text.push_str(comment.map_or(line, |(at, _)| &line[..at]));
        text.push('\n');
    }
    let name = path.display();
    let (mut depth, mut is_math, mut open) = (0_i32, false, Vec::new());
    let mut rest = text.as_str();
    while let Some(char) = rest.chars().next() {
        let mut length = char.len_utf8();
        match char {
            '\\' => {
                let word = rest[1..].find(|char: char| !char.is_ascii_alphabetic());
                let word = &rest[1..][..word.unwrap_or(rest.len() - 1)];
                length = 1 + word.len().max(rest[1..].chars().next().map_or(0, char::len_utf8));
                let argument = || {
                    let after = &rest[1 + word.len()..];
                    after.strip_prefix('{').and_then(|after| after.split('}').next())
                };
                match word {
                    "begin" => open.push(argument().expect("a name").to_owned()),
                    "end" => assert_eq!(open.pop().as_deref(), argument(), "{name}"),
                    _ => {}
                }
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            '$' => is_math = !is_math,
            '_' | '^' | '~' => assert!(is_math, "{name}: {char} in …{}", clip(rest)),
            '&' => assert!(
                open.last().is_some_and(|of| of == "tabular"),
                "{name}: & in …{}",
                clip(rest)
            ),
            // Parameters of macros are in the preamble only.
            '#' => {
                let is_preamble = open.is_empty() && path.ends_with("paper.tex");
                assert!(is_preamble, "{name}: {}", clip(rest));
            }
            _ => {}
        }
        assert!(depth >= 0, "{name}: a brace is closed twice before …{}", clip(rest));
        rest = &rest[length..];
    }
    assert!(depth == 0 && !is_math && open.is_empty(), "{name}: {depth} braces, {open:?}");
    text
}

fn clip(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Rows of a CSV file by the names of its columns.
fn rows(path: &Path) -> Vec<std::collections::HashMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).expect("a CSV file");
    reader.deserialize().collect::<Result<_, _>>().expect("rows")
}

/// Compares a CSV file of methods with the leaderboard.
fn check_numbers(out: &Path, server: &Server, kind: &str) {
    let path = format!("/v1/leaderboard?dataset=mine&prompt_kind={kind}");
    let board = server.get(&path).json();
    let board = board["rows"].as_array().expect("rows");
    assert_eq!(board.len(), METHODS.len());
    let lines = rows(&out.join(format!("tables/methods-{kind}.csv")));
    let mut compared = 0;
    for row in board {
        let method = row["method"].as_str().expect("a name");
        for (code, of) in row["metrics"].as_object().expect("metrics") {
            let line = lines.iter().find(|line| {
                // A cell that a spreadsheet would run has an apostrophe.
                line["method"].trim_start_matches('\'') == method
                    && line["metric"] == *code
                    && line["source"] == "measured"
            });
            let line = line.unwrap_or_else(|| panic!("{method} has no {code}"));
            for part in ["mean", "std", "low", "high", "n", "rank", "last_rank", "penalty_rate"] {
                let found = line[part].trim_start_matches('\'').parse::<f64>().ok();
                assert_eq!(found, of[part].as_f64(), "{method} {code} {part}");
                compared += 1;
            }
        }
    }
    assert!(compared > 4 * 10 * 8, "{compared}");
}

fn vote(server: &Server) {
    let board = server.get("/v1/leaderboard?by=run").json();
    let run = |method: &str| {
        let rows = board["rows"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["method"] == method).expect("a row");
        row["runs"][0].as_str().expect("an id").to_owned()
    };
    let (a, b) = (run(METHODS[0]), run("mine"));
    let names = server.get(&format!("/v1/runs/{a}/samples")).json();
    let names = names["items"].as_array().expect("samples").iter().map(|of| of["name"].clone());
    let mut csv = String::from("question,annotator,name,run_a,run_b,preferred\n");
    for (place, name) in names.enumerate() {
        let preferred = if place % 3 == 0 { "b" } else { "a" };
        let name = name.as_str().expect("a name");
        writeln!(csv, "overall,ann,{name},{a},{b},{preferred}").expect("a string");
    }
    let headers = [("content-type", "text/csv")];
    let answer = client::send(server.address, "POST /v1/preferences", &headers, csv.as_bytes())
        .expect("one");
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
}

#[test]
fn one_command_writes_all_tables_and_figures_of_a_paper() {
    let at = folder();
    let made = make(at.path(), &METHODS, "10");
    let printed = run(&mut made.paper()).printed();
    let Made { out, store, dataset, .. } = made;

    let found = files(&out);
    let mut wanted: BTreeSet<String> =
        ["paper.tex", "README.md", "references.bib"].map(str::to_owned).into();
    for part in [
        "dataset",
        "methods-T",
        "methods-H",
        "methods-all",
        "first-places-T",
        "first-places-H",
        "first-places-all",
        "category-ips",
        "category-clip-t",
        "category-goa",
        "correlations",
        "gallery",
    ] {
        wanted.extend([format!("tables/{part}.tex"), format!("tables/{part}.csv")]);
    }
    wanted.extend(["correlations", "gallery"].map(|name| format!("figures/{name}.svg")));
    assert_eq!(found, wanted, "no photo leaves the house, and nothing else is there");
    assert!(printed.contains("left out: studies"), "{printed}");
    assert_eq!(rows(&out.join("tables/category-clip-t.csv")).len(), METHODS.len());
    let gallery = rows(&out.join("tables/gallery.csv"));
    assert!(gallery.iter().all(|row| !row.contains_key("identity")), "people are not named");
    typeset(&out);

    let main = well_formed(&out.join("paper.tex"));
    for part in found.iter().filter_map(|path| path.strip_suffix(".tex")) {
        well_formed(&out.join(format!("{part}.tex")));
        assert!(part == "paper" || main.contains(&format!("\\input{{{part}}}")), "{part}");
    }
    let table = well_formed(&out.join("tables/methods-T.tex"));
    for name in ["[a]\\_b \\& 50\\%", "\\textasciitilde{}\\{x\\}", "\\letter{4E2D}{中}"] {
        assert!(table.contains(name), "{name} is missing in {table}");
    }
    assert!(table.contains("\\textbf{") && table.contains("$\\uparrow$"), "{table}");
    let svg = read(&out.join("figures/gallery.svg"));
    assert!(svg.contains("image withheld") && !svg.contains("data:image"), "photos are withheld");

    let readme = read(&out.join("README.md"));
    for words in
        ["demo pack", "`stellar`", "stellar-score paper", "redistributable", "nobody has voted"]
    {
        assert!(readme.contains(words), "{words} is missing in {readme}");
    }
    let references = read(&out.join("references.bib"));
    assert!(references.contains("arxiv_2312_06116") && !references.contains("CelebAMask"));

    // The same scores from a server, with votes and with images that may be shown.
    let server = Server::start(&store, &[("STELLAR_STORE__THUMBNAILS", "384")]);
    for kind in ["T", "H"] {
        check_numbers(&out, &server, kind);
    }
    vote(&server);
    let address = format!("http://{}", server.address);
    let folder = dataset.display().to_string();
    let register = ["dataset", "register", &folder, "--no-photos", "--redistributable"];
    run(program(&register).args(["--server", &address])).printed();
    let again = at.path().join("again");
    let methods = format!("{},mnie", METHODS[2..].join(","));
    let with_key = format!("http://nobody:secret@{}", server.address);
    let mut command = program(&["paper", "--server", &with_key, "--dataset-name", "mine"]);
    command.args(["--methods", &methods, "--out", &again.display().to_string()]);
    let printed = run(&mut command).printed();
    assert!(printed.contains("left out: method mnie"), "{printed}");
    let readme = read(&again.join("README.md"));
    assert!(readme.contains(&format!("--server http://{}/ ", server.address)), "{readme}");
    assert!(!readme.contains("secret"), "{readme}");
    let caption = read(&again.join("paper.tex"));
    assert!(caption.contains("question \\texttt{overall}; the newest run of each"), "{caption}");
    let found = files(&again);
    for part in ["agreement.tex", "agreement.csv", "preferences.tex", "preferences.csv"] {
        assert!(found.contains(&format!("tables/{part}")), "{found:?}");
    }
    assert!(found.contains("figures/agreement-overall.svg"), "{found:?}");
    assert!(found.iter().any(|path| path.starts_with("figures/gallery/")), "images may be shown");
    assert!(read(&again.join("figures/gallery.svg")).contains("data:image/png"));
    for part in found.iter().filter(|path| Path::new(path).extension() == Some("tex".as_ref())) {
        well_formed(&again.join(part));
    }
    let chosen: BTreeSet<String> = rows(&again.join("tables/methods-T.csv"))
        .into_iter()
        .map(|line| line["method"].clone())
        .collect();
    assert_eq!(chosen.len(), 2, "{chosen:?}");
    assert!(rows(&again.join("tables/gallery.csv")).iter().all(|row| row.contains_key("identity")));
    typeset(&again);
}

/// The id of the run of `mine` in a paper.
fn run_of_mine(out: &Path) -> String {
    let readme = read(&out.join("README.md"));
    let line = readme.lines().find_map(|line| line.strip_prefix("- mine: "));
    line.expect("a method").to_owned()
}

#[test]
fn a_folder_is_scored_once_and_images_are_shown_only_if_each_call_says_so() {
    let at = folder();
    let made = make(at.path(), &["mine", "other"], "2");
    let first = run(made.paper().arg("--redistributable"));
    assert_eq!(first.stderr.matches("4 images, 4 sent now").count(), 2, "{}", first.stderr);
    let shown = |out: &Path| files(out).iter().any(|path| path.starts_with("figures/gallery/"));
    assert!(shown(&made.out), "{}", first.stderr);
    let run_before = run_of_mine(&made.out);

    let again = run(&mut made.paper());
    assert_eq!(again.stderr.matches("4 images, 0 sent now").count(), 2, "{}", again.stderr);
    assert!(!shown(&made.out), "images of the earlier call are deleted");
    assert!(!read(&made.out.join("figures/gallery.svg")).contains("data:image"));
    assert_eq!(run_of_mine(&made.out), run_before);

    // A folder with another image is another run, which alone stands for the method.
    let folder = made.images.join("mine");
    let names = files(&folder);
    let mut names = names.iter().filter(|name| Path::new(name).extension() == Some("png".as_ref()));
    let (a, b) = (names.next().expect("an image"), names.next().expect("an image"));
    fs::copy(folder.join(a), folder.join(b)).expect("a copy");
    let changed = run(&mut made.paper());
    for sent in [0, 4] {
        let words = format!("4 images, {sent} sent now");
        assert_eq!(changed.stderr.matches(&words).count(), 1, "{}", changed.stderr);
    }
    changed.printed();
    assert_ne!(run_of_mine(&made.out), run_before);
    let lines = rows(&made.out.join("tables/methods-all.csv"));
    let n = |method: &str| -> Vec<&str> {
        let of = |line: &&std::collections::HashMap<String, String>| {
            line["method"] == method && line["metric"] == "clip_t"
        };
        lines.iter().filter(of).map(|line| line["n"].as_str()).collect()
    };
    assert_eq!((n("mine"), n("other")), (vec!["4"], vec!["4"]), "the earlier run is left out");
}

#[test]
fn a_folder_without_methods_and_a_server_without_runs_are_refused() {
    let at = folder();
    let text = at.path().display().to_string();
    let out = at.path().join("out").display().to_string();
    run(&mut program(&["paper", "--images", &text, "--dataset", &text, "--out", &out]))
        .failed(&["no folder of a method"]);
    let server = ["paper", "--server", "http://127.0.0.1:1", "--out", &out, "--kinds", "T,All"];
    run(&mut program(&server)).failed(&["--kinds All"]);
}
