//! `stellar-score paper`: tables and figures of the results of a paper.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;

use super::{
    output::{lines, print},
    progress,
    register::{name_of, register_folder},
    serve::Service,
    server::ServerArgs,
    submit::{EvaluationArgs, PolicyArg, evaluate},
};
use crate::{
    client::Client,
    config::Config,
    paper::{self, Options, Written},
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

/// The service runs in this process: a request that fails for this long will not succeed later.
const PATIENCE: Duration = Duration::from_secs(10);

/// Retry time on backpressure: pending samples must be scored first.
const PATIENCE_WHEN_FULL: Duration = Duration::from_mins(10);

/// Photos of the dataset in flight.
const PHOTOS: usize = 4;

/// Longest side of the images of the gallery, in pixels.
const THUMBNAIL: u32 = 384;

pub(super) async fn run(config: Config, args: PaperArgs) -> anyhow::Result<ExitCode> {
    let out = &args.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let written = if let (Some(images), Some(dataset)) = (&args.images, &args.dataset) {
        of_folders(config, &args, images, dataset).await?
    } else {
        let client = args.server.client()?;
        let server = args.server.shown();
        let options = options(&args, args.dataset_name.clone(), server);
        paper::write(&client, &options, out).await?
    };
    let files = lines(written.files.iter().map(|path| out.join(path).display().to_string()));
    let missing = lines(written.missing.iter().map(|missing| format!("left out: {missing}")));
    print(&(files + &missing))
}

fn options(args: &PaperArgs, dataset: Option<String>, server: String) -> Options {
    let words = std::env::args().map(|word| {
        if word.contains([' ', '\'', '"', '*', '$']) {
            format!("'{}'", word.replace('\'', "'\\''"))
        } else {
            word
        }
    });
    // The path of the program is no part of the command.
    let command = ["stellar-score".to_owned()].into_iter().chain(words.skip(1));
    Options {
        methods: args.methods.clone(),
        dataset,
        split: args.split.clone(),
        pack: args.pack.clone(),
        policy: args.policy.policy(),
        kinds: args.kinds.clone(),
        by_category: args.by_category.clone(),
        questions: args.questions.clone(),
        gallery: args.gallery,
        command: command.collect::<Vec<_>>().join(" "),
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
    config.store.url = format!("sqlite:{}", store.join("stellar.db").display());
    config.store.spool = store.join("files");
    config.store.thumbnails = THUMBNAIL;
    config.server.listen = (Ipv4Addr::LOCALHOST, 0).into();
    let service = Service::start(&config).await?;
    let made = async {
        let client = Client::new(&format!("http://{}", service.address), PATIENCE)?
            .patient_when_full(PATIENCE_WHEN_FULL)
            .telling(progress::note_waiting);
        let name = name_of(dataset, args.dataset_name.as_ref())?;
        register_folder(&client, dataset, &name, args.redistributable, Some(PHOTOS)).await?;
        for (method, folder) in &methods {
            let evaluation = EvaluationArgs::of_folder(
                method.clone(),
                folder.clone(),
                dataset.to_owned(),
                name.clone(),
                args.split.clone(),
            );
            evaluate(&client, &evaluation)
                .await
                .with_context(|| format!("cannot evaluate {method}"))?;
        }
        let server = "folders of images, scored in this process".to_owned();
        paper::write(&client, &options(args, Some(name), server), &args.out).await
    };
    let made = made.await;
    service.stop(Duration::ZERO).await;
    made
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
