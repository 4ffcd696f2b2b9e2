//! `stellar-score paper`: tables and figures of the results of a paper.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use uuid::Uuid;

use super::{
    local::with_service,
    output::{lines, print},
    register::{name_of, register_folder},
    server::ServerArgs,
    submit::{EvaluationArgs, PolicyArg, evaluate},
};
use crate::{
    client::{Client, shown_word},
    config::Config,
    content::ContentHash,
    dataset::Dataset,
    pack_id::PackId,
    paper::{self, Options, Written},
    upload::{contents, read_folder},
};

#[derive(Debug, Args)]
pub(super) struct PaperArgs {
    /// Output folder; files of the same names are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Score the images in this folder first, without a server: a folder for each method, in the
    /// toolkit's layout
    #[arg(long, value_name = "DIR", requires = "dataset")]
    images: Option<PathBuf>,
    /// The folder of the dataset, with --images
    #[arg(long, value_name = "DIR", requires = "images")]
    dataset: Option<PathBuf>,
    /// Folder that keeps the scores between calls, with --images [default: none is kept]
    #[arg(long, value_name = "DIR", requires = "images")]
    store: Option<PathBuf>,
    /// Declare that the photos of the dataset may be shown to others, with --images: without it,
    /// images are placeholders
    #[arg(long, requires = "images")]
    redistributable: bool,
    /// Only these methods, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    methods: Vec<String>,
    /// Only runs over the dataset of this name [default with --images: the folder's name]
    #[arg(long, value_name = "NAME")]
    dataset_name: Option<String>,
    /// Only runs over this split of the dataset
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Digest of the pack of the scores [default: that of the server]
    #[arg(long, value_name = "DIGEST")]
    pack: Option<String>,
    /// Penalty policy for images that do not follow their prompt
    #[arg(long, value_enum, default_value_t = PolicyArg::Stellar)]
    policy: PolicyArg,
    /// Kinds of prompts, each a benchmark with a table of its own
    #[arg(long, value_name = "KINDS", value_delimiter = ',', default_value = "T,H")]
    kinds: Vec<String>,
    /// Metrics whose means are compared by category
    #[arg(long, value_name = "CODES", value_delimiter = ',', default_value = "ips,clip_t,goa")]
    by_category: Vec<String>,
    /// Questions to people
    #[arg(
        long,
        value_name = "QUESTIONS",
        value_delimiter = ',',
        default_value = "object,relation,identity,overall"
    )]
    questions: Vec<String>,
    /// Rows of the gallery, 0 to 20
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=20))]
    gallery: u32,
    #[command(flatten)]
    server: ServerArgs,
}

/// Photos of the dataset in flight.
const PHOTOS: usize = 4;

/// Longest side of the images of the gallery, in pixels.
const THUMBNAIL: u32 = 384;

pub(super) async fn run(config: Config, args: PaperArgs) -> anyhow::Result<ExitCode> {
    paper::check_kinds(&args.kinds)?;
    let out = &args.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let written = if let (Some(images), Some(dataset)) = (&args.images, &args.dataset) {
        of_folders(config, &args, images, dataset).await?
    } else {
        let client = args.server.client()?;
        let server = args.server.shown();
        let options = options(&args, args.dataset_name.clone(), BTreeSet::new(), server);
        paper::write(&client, &options, out).await?
    };
    let files = lines(written.files.iter().map(|path| out.join(path).display().to_string()));
    let missing = lines(written.missing.iter().map(|missing| format!("left out: {missing}")));
    print(&(files + &missing))
}

/// Returns a command as a shell takes it, without what may be an API key. The path of the program
/// is no part of it.
fn command(words: impl Iterator<Item = OsString>) -> String {
    let words = words.skip(1).map(|word| {
        let word = shown_word(&word.to_string_lossy());
        let is_plain = |char: char| char.is_ascii_alphanumeric() || "_./:=,@%+-".contains(char);
        if !word.is_empty() && word.chars().all(is_plain) {
            word
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    ["stellar-score".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

fn options(
    args: &PaperArgs,
    dataset: Option<String>,
    runs: BTreeSet<Uuid>,
    server: String,
) -> Options {
    Options {
        methods: args.methods.clone(),
        runs,
        dataset,
        split: args.split.clone(),
        pack: args.pack.clone(),
        policy: args.policy.policy(),
        kinds: args.kinds.clone(),
        by_category: args.by_category.clone(),
        questions: args.questions.clone(),
        gallery: args.gallery,
        command: command(std::env::args_os()),
        server,
    }
}

/// Scores the images of all methods in this process, and reads the results as from any service.
async fn of_folders(
    mut config: Config,
    args: &PaperArgs,
    images: &Path,
    dataset: &Path,
) -> anyhow::Result<Written> {
    let methods = folders(images, &args.methods, &args.out)?;
    // Scores and photos are no part of a paper, so its folder does not have them.
    let passing = tempfile::tempdir().context("cannot create a temporary folder")?;
    let store = args.store.as_deref().unwrap_or(passing.path());
    std::fs::create_dir_all(store).with_context(|| format!("cannot create {}", store.display()))?;
    config.store.thumbnails = THUMBNAIL;
    with_service(config, store, async |client| {
        let name = name_of(dataset, args.dataset_name.as_ref())?;
        // A store may have another declaration from an earlier call.
        let redistributable = Some(args.redistributable);
        register_folder(client, dataset, &name, redistributable, Some(PHOTOS)).await?;
        let pack = loaded_pack(client).await?;
        let mut runs = BTreeSet::new();
        for (method, folder) in &methods {
            let mut evaluation = EvaluationArgs::of_folder(
                method.clone(),
                folder.clone(),
                dataset.to_owned(),
                name.clone(),
                args.split.clone(),
            );
            let evaluated = async {
                evaluation.run = Some(run_name(&evaluation, &name, &pack)?);
                evaluate(client, &evaluation).await
            };
            let run = evaluated.await.with_context(|| format!("cannot evaluate {method}"))?;
            runs.insert(run.run_id);
        }
        let server = "folders of images, scored in this process".to_owned();
        paper::write(client, &options(args, Some(name), runs, server), &args.out).await
    })
    .await
}

/// Returns the digest of the pack of the service.
async fn loaded_pack(client: &Client) -> anyhow::Result<String> {
    #[derive(serde::Deserialize)]
    struct Metrics {
        pack: PackId,
    }
    let metrics: Metrics = client.get(&["v1", "metrics"], &[]).await?;
    Ok(metrics.pack.digest)
}

/// Returns the name of the run of a folder: a hash of everything that its scores depend on. A
/// finished run accepts no samples, so a folder that has changed needs another one.
fn run_name(args: &EvaluationArgs, dataset: &str, pack: &str) -> anyhow::Result<String> {
    let (photos, _) = Dataset::open(&args.dataset)?;
    let images = args.images.as_deref().context("there is a folder")?;
    let folder = read_folder(images, &photos)
        .with_context(|| format!("cannot read {}", images.display()))?;
    let contents = contents(&folder.items)?;
    let split = args.split.as_deref().unwrap_or_default();
    let parts = [dataset, split, pack].map(str::as_bytes);
    let hash = ContentHash::of_parts(parts.into_iter().chain([&contents.as_bytes()[..]]));
    Ok(format!("folder-{}", &hash.to_hex()[..16]))
}

/// Returns the folders of the methods, by name. `out` may be among them, and is none.
fn folders(images: &Path, wanted: &[String], out: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let context = || format!("cannot read {}", images.display());
    let out = out.canonicalize().ok();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(images).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if !path.is_dir() || path.canonicalize().ok() == out {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_str().map(str::to_owned);
        let name = name
            .with_context(|| format!("the name of {} is not UTF-8: rename it", path.display()))?;
        if wanted.is_empty() || wanted.contains(&name) {
            found.push((name, path));
        }
    }
    found.sort();
    anyhow::ensure!(
        !found.is_empty(),
        "{} has no folder of a method: it needs one for each, with NAME.png and NAME.json",
        images.display()
    );
    for name in wanted {
        anyhow::ensure!(
            found.iter().any(|(found, _)| found == name),
            "{} has no folder {name}",
            images.display()
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_repeated_and_has_no_key() {
        let words = [
            "/opt/bin/stellar-score",
            "paper",
            "--server",
            "http://stellar_key@host:8080",
            "--server=http://me:stellar_key@host/at@home",
            "--server=ftp//://stellar_key@host",
            "--out=a@b",
            "--methods",
            "it's,<b>中;x\n",
            "",
        ];
        let shown = command(words.into_iter().map(OsString::from));
        assert!(!shown.contains("stellar_key"), "{shown}");
        assert_eq!(
            shown,
            "stellar-score paper --server http://host:8080/ --server=http://host/at@home \
             '--server=…@host' --out=a@b --methods 'it'\\''s,<b>中;x\n' ''"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_word_that_is_not_utf_8_is_no_error() {
        use std::os::unix::ffi::OsStringExt as _;

        let words = [OsString::from("program"), OsString::from_vec(vec![b'a', 0xff])];
        assert_eq!(command(words.into_iter()), "stellar-score 'a\u{fffd}'");
    }
}
