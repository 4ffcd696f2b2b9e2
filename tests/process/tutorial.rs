//! Runs the commands of `docs/TUTORIAL.md` in order.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use stellar_score::toolkit::{self, Columns, Table};

use crate::harness::{Ran, Server, demo_pack, folder, program, read, run};

/// The size in the tutorial takes minutes on two cores; the test's size takes seconds through the
/// same code.
const PAGE_SIZE: &str = "--identities 20 --prompts 100";
const TEST_SIZE: &str = "--identities 2 --prompts 4";
const SAMPLES: usize = 8;

/// The commands of the page in order, one per line, except `serve`.
fn commands() -> Vec<String> {
    let page = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/TUTORIAL.md"));
    assert!(page.contains(PAGE_SIZE));
    let lines = page.lines().filter_map(|line| line.strip_prefix("stellar-score "));
    lines.filter(|line| *line != "serve").map(str::to_owned).collect()
}

/// Runs a command of the page in `at`, against the server at `address`.
fn follow(command: &str, at: &Path, address: &str) -> Ran {
    let trial = format!("{}/trial", at.display());
    let command = command.replace(PAGE_SIZE, TEST_SIZE).replace("trial/", &format!("{trial}/"));
    let mut arguments: Vec<&str> = command.split(' ').collect();
    let local = ["dataset synthesize", "dataset prepare", "dataset check", "evaluate "];
    if !local.iter().any(|local| command.starts_with(local)) {
        arguments.extend(["--server", address]);
    }
    run(program(&arguments).env("STELLAR_PACK", demo_pack()))
}

/// Runs all commands of the page; returns each command with its output.
fn session(at: &Path, server: &Server) -> Vec<(String, String)> {
    let address = format!("http://{}", server.address);
    let follow = |command: String| {
        let printed = follow(&command, at, &address).printed();
        (command, printed)
    };
    commands().into_iter().map(follow).collect()
}

fn printed<'a>(session: &'a [(String, String)], command: &str) -> &'a str {
    let found = session.iter().find(|(given, _)| given.starts_with(command));
    &found.unwrap_or_else(|| panic!("the page has no command {command}")).1
}

/// The toolkit's files in a folder, by name.
fn tables(folder: &Path) -> Vec<(String, Table)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path: PathBuf = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.strip_suffix(".csv").is_some_and(|stem| stem != "report") {
            let table =
                toolkit::parse(&read(&path), Some(&name), 10_000).expect("a file of the toolkit");
            found.push((name, table));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Batches differ between two evaluations, so scores are equal only up to the rounding of a batch.
#[track_caller]
fn assert_same_scores(one: &[(String, Table)], other: &[(String, Table)]) {
    assert_eq!(one.len(), other.len());
    for ((name, a), (other_name, b)) in one.iter().zip(other) {
        assert_eq!((name, &a.names), (other_name, &b.names));
        let (Columns::Scores(a), Columns::Scores(b)) = (&a.columns, &b.columns) else {
            assert_eq!(a.columns, b.columns, "{name}");
            continue;
        };
        for ((code, a), (_, b)) in a.iter().zip(b) {
            for (a, b) in a.iter().zip(b) {
                match (a, b) {
                    (Some(a), Some(b)) => assert!((a - b).abs() < 1e-4, "{code}: {a} and {b}"),
                    (a, b) => assert_eq!(a, b, "{code}"),
                }
            }
        }
    }
}

/// Checks what the page promises.
fn check(at: &Path, server: &Server) {
    let session = session(at, server);
    let prepared = printed(&session, "dataset prepare");
    assert!(prepared.contains("2 test and 0 validation identities, 4 photos"), "{prepared}");
    assert!(printed(&session, "dataset check").ends_with("\nno problems\n"));
    let registered = printed(&session, "dataset register");
    assert!(
        registered.contains("8 prompts registered") && registered.contains("4 photos enrolled"),
        "{registered}"
    );

    let table = printed(&session, "submit");
    for metric in ["clip_t", "aesthetic", "ips", "sis", "aps", "goa", "dreamsim"] {
        assert!(table.contains(&format!("| {metric} |")), "{metric} is missing in {table}");
    }
    assert!(table.contains("demo weights"), "{table}");
    assert_eq!(printed(&session, "report made-up"), table);
    assert!(printed(&session, "report made-up --policy toolkit").contains("\\toprule"));

    let (csv, results) = (tables(&at.join("trial/csv")), tables(&at.join("trial/results")));
    assert!(csv.len() >= 11, "{:?}", csv.iter().map(|(name, _)| name).collect::<Vec<_>>());
    assert!(
        csv.iter()
            .all(|(name, table)| table.names.len() == SAMPLES || name.starts_with("attribute"))
    );
    assert_same_scores(&csv, &results);

    // Exported and imported scores give the table of the original.
    let address = format!("http://{}", server.address);
    let rows = |method: &str| -> Vec<String> {
        let command = format!("report {method} --policy toolkit --format csv");
        let text = follow(&command, at, &address).printed();
        // The toolkit has no files for further metrics.
        let known: Vec<&str> =
            toolkit::FILES.iter().flat_map(|file| file.scores).map(|(_, code)| *code).collect();
        let is_known = |line: &&str| known.iter().any(|code| line.starts_with(&format!("{code},")));
        text.lines().filter(is_known).map(str::to_owned).collect()
    };
    let original = rows("made-up");
    assert!(original.len() >= 11, "{original:?}");
    let mean_of = |line: &String| line.split(',').take(3).map(str::to_owned).collect::<Vec<_>>();
    for (original, imported) in original.iter().zip(&rows("imported")) {
        assert_eq!(mean_of(original), mean_of(imported));
    }
    a_finished_run_accepts_only_repeats(at, &address);
}

fn a_finished_run_accepts_only_repeats(at: &Path, address: &str) {
    let commands = commands();
    let submit =
        commands.iter().find(|command| command.starts_with("submit")).expect("the page submits");
    let again = follow(submit, at, address);
    assert!(again.stderr.contains("8 images, 0 sent now, 8 already there"), "{}", again.stderr);
    again.printed();

    let generations = at.join("trial/sample/generations");
    let about = read(&generations.join("000-0-00.json")).replace("000-0-00", "000-0-09");
    fs::copy(generations.join("000-0-00.png"), generations.join("000-0-09.png")).expect("a copy");
    fs::write(generations.join("000-0-09.json"), about).expect("a file");
    follow(submit, at, address).failed(&["run_finished", "takes no more samples"]);

    fs::remove_file(generations.join("000-0-09.png")).expect("a file");
    let ran = follow(submit, at, address);
    assert!(ran.stderr.contains("problem: 000-0-09.json: has no 000-0-09.png"), "{}", ran.stderr);
    ran.failed(&["nothing was sent"]);
}

#[test]
fn the_tutorial_works_on_sqlite() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    check(folder.path(), &server);
}

#[test]
fn the_tutorial_works_on_postgres() {
    let Ok(database) = std::env::var("TEST_DATABASE_URL") else {
        use std::io::Write as _;
        let notice = b"SKIPPED the tutorial on PostgreSQL: TEST_DATABASE_URL is not set\n";
        std::io::stderr().write_all(notice).unwrap();
        return;
    };
    let folder = folder();
    let schema = format!("tutorial_{}", std::process::id());
    execute(&database, &format!("CREATE SCHEMA {schema}"));
    let separator = if database.contains('?') { '&' } else { '?' };
    let url = format!("{database}{separator}options=-c%20search_path%3D{schema}");
    let server = Server::start(folder.path(), &[("STELLAR_STORE__URL", &url)]);
    let checked =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(folder.path(), &server)));
    drop(server);
    execute(&database, &format!("DROP SCHEMA {schema} CASCADE"));
    if let Err(failure) = checked {
        std::panic::resume_unwind(failure);
    }
}

fn execute(database: &str, statement: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = PgConnection::connect(database).await.expect("a reachable server");
        connection.execute(AssertSqlSafe(statement.to_owned())).await.expect("a valid statement");
    });
}
