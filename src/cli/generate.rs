//! `stellar-score generate`: one image, or the images of a dataset.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::{ArgGroup, Args, ValueEnum};

use super::{
    output::{counted, print},
    progress::{self, note},
    start::start_generator,
    submit::problems_first,
};
use crate::{
    config::Config,
    dataset::Dataset,
    generation::{
        Generator, Request, Settings, Subject,
        folder::{self, FolderSettings, FolderState, Photos, Progress, Selection, Split},
    },
    pack_id::Weights,
    telemetry::Telemetry,
};

pub(super) const EXAMPLES: &str = "\
Examples:
  stellar-score generate --pack packs/generator --prompt '{} as a clown' --photo face.jpg \\
    --mask face-mask.png --out clown.png
  stellar-score generate --pack packs/generator --dataset data/stellar --split test --kind T \\
    --out generations-t/

Images of a dataset are named identity-photo-prompt, as in the paper. An interrupted command goes on \
where it was when it is called again.";

/// Most images in flight. Further ones only wait in the denoiser's queue.
const MOST_CONCURRENCY: u64 = 64;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["dataset", "prompt"]).required(true))]
pub(super) struct GenerateArgs {
    /// The folder of the generator pack
    #[arg(long, value_name = "DIR")]
    pack: PathBuf,
    /// The image file (PNG), or the folder for the images of a dataset
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// The prompt of one image; `{}` stands for the person in the photo
    #[arg(long)]
    prompt: Option<String>,
    /// The photo of the person
    #[arg(long, value_name = "FILE", conflicts_with = "dataset")]
    photo: Option<PathBuf>,
    /// The photo's mask: every pixel that is not black is the person [default: the whole photo]
    #[arg(long, value_name = "FILE", requires = "photo")]
    mask: Option<PathBuf>,
    /// Generate the images of the dataset in this folder
    #[arg(long, value_name = "DIR")]
    dataset: Option<PathBuf>,
    /// The split of the dataset
    #[arg(long, value_enum, default_value_t = SplitArg::All, conflicts_with = "prompt")]
    split: SplitArg,
    /// The kind of the prompts, T or H; each kind needs a folder of its own
    #[arg(long, value_name = "KIND", conflicts_with = "prompt")]
    kind: Option<String>,
    /// The photos of each identity
    #[arg(long, value_enum, default_value_t = PhotosArg::All, conflicts_with = "prompt")]
    photos: PhotosArg,
    /// Only the first images
    #[arg(long, value_name = "N", conflicts_with = "prompt")]
    limit: Option<usize>,
    /// Name of the method in the descriptions [default: the pack's system]
    #[arg(long, value_name = "NAME", conflicts_with = "prompt")]
    method: Option<String>,
    /// Images in flight, whose steps share batches
    #[arg(long, value_name = "N", default_value_t = 4, conflicts_with = "prompt",
        value_parser = clap::value_parser!(u64).range(1..=MOST_CONCURRENCY))]
    concurrency: u64,
    /// What the image must not show
    #[arg(long, value_name = "PROMPT")]
    negative_prompt: Option<String>,
    /// Denoising steps
    #[arg(long, default_value_t = 100)]
    steps: usize,
    /// Guidance scale; 1 is no guidance
    #[arg(long, default_value_t = 5.0)]
    guidance: f32,
    /// Seed of the noise; every image of a dataset has it, as in the paper. Only 32 bits count, as
    /// in PyTorch
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Give every image of a dataset a seed of its own, from the seed and its name
    #[arg(long, conflicts_with = "prompt")]
    seed_by_name: bool,
    /// Width and height in pixels [default: the pack's]
    #[arg(long, value_name = "PIXELS", conflicts_with_all = ["width", "height"])]
    size: Option<usize>,
    /// Width in pixels
    #[arg(long, value_name = "PIXELS")]
    width: Option<usize>,
    /// Height in pixels
    #[arg(long, value_name = "PIXELS")]
    height: Option<usize>,
}

/// The part of a dataset.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum SplitArg {
    /// The first 200 identities of Stellar
    Test,
    /// The identities after them
    Val,
    /// All identities
    All,
}

/// The photos of an identity.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum PhotosArg {
    /// An image for every photo and prompt
    All,
    /// Only the first photo
    First,
}

pub(super) async fn run(config: Config, args: GenerateArgs) -> anyhow::Result<ExitCode> {
    match (&args.dataset, &args.prompt) {
        (Some(dataset), _) => images(&config, &args, dataset).await,
        (None, Some(prompt)) => image(&config, &args, prompt).await,
        (None, None) => anyhow::bail!("--prompt or --dataset is missing"),
    }
}

impl GenerateArgs {
    fn settings(&self, generator: &Generator) -> Settings {
        let side = self.size.unwrap_or(generator.spec().default_side);
        Settings {
            seed: self.seed,
            steps: self.steps,
            guidance: self.guidance,
            width: self.width.unwrap_or(side),
            height: self.height.unwrap_or(side),
        }
    }
}

async fn image(config: &Config, args: &GenerateArgs, prompt: &str) -> anyhow::Result<ExitCode> {
    let file = |path: &PathBuf| {
        let bytes = crate::read::bytes(path);
        bytes.map(Bytes::from).with_context(|| format!("cannot read {}", path.display()))
    };
    let subject = match &args.photo {
        None => None,
        Some(photo) => {
            Some(Subject { photo: file(photo)?, mask: args.mask.as_ref().map(file).transpose()? })
        }
    };
    let generator = start_generator(config, &args.pack, None, Telemetry::new().engine).await?;
    let request = Request {
        prompt: prompt.to_owned(),
        negative_prompt: args.negative_prompt.clone(),
        subject,
        settings: args.settings(&generator),
    };
    let bar = progress::bar("steps");
    bar.set_length(args.steps as u64);
    let picture = generator.generate(&request, |step| bar.set_position(step as u64)).await;
    bar.finish_and_clear();
    let picture = picture?;
    let png = picture.png(&generator.provenance(request.settings))?;
    folder::write_file(&args.out, &png)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    let flags: Vec<_> = picture.flags.iter().map(|flag| flag.code()).collect();
    if !flags.is_empty() {
        note(&format!("note: {}\n", flags.join(", ")));
    }
    warn_about_weights(&generator);
    generator.engine().drain().await;
    print(&format!("wrote {}\n", args.out.display()))
}

async fn images(config: &Config, args: &GenerateArgs, root: &Path) -> anyhow::Result<ExitCode> {
    let (dataset, findings) = Dataset::open(root)?;
    note(&problems_first(&findings.list));
    anyhow::ensure!(
        findings.fatal() == 0,
        "{} has problems: no images were generated",
        root.display()
    );
    let selection = Selection {
        split: match args.split {
            SplitArg::Test => Split::Test,
            SplitArg::Val => Split::Val,
            SplitArg::All => Split::All,
        },
        kind: args.kind.clone(),
        photos: match args.photos {
            PhotosArg::All => Photos::All,
            PhotosArg::First => Photos::First,
        },
    };
    let mut jobs = folder::plan(&dataset, &selection)?;
    jobs.truncate(args.limit.unwrap_or(usize::MAX));
    let generator = start_generator(config, &args.pack, None, Telemetry::new().engine).await?;
    let settings = args.settings(&generator);
    let state = FolderState::open(
        &args.out,
        FolderSettings {
            pack: generator.pack().id(),
            method: args.method.clone().unwrap_or_else(|| generator.spec().system.clone()),
            selection,
            settings,
            seed_by_name: args.seed_by_name,
            negative_prompt: args.negative_prompt.clone(),
        },
    )?;
    let bar = progress::bar("denoising steps");
    let (all, steps) = (jobs.len() as u64, args.steps as u64);
    bar.set_length(all * steps);
    let done = std::cell::Cell::new(0);
    let told = |progress| match progress {
        Progress::Kept(kept) => {
            done.set(kept as u64);
            // The time left is that of what is left.
            bar.set_length((all - done.get()) * steps);
            bar.reset_eta();
        }
        Progress::Step => bar.inc(1),
        Progress::Image => {
            done.set(done.get() + 1);
            bar.set_message(format!("({} of {})", done.get(), counted(all, "image")));
        }
    };
    let written = folder::write(&generator, &state, &jobs, args.concurrency as usize, told).await;
    bar.finish_and_clear();
    let written = written?;
    warn_about_weights(&generator);
    generator.engine().drain().await;
    let mut text = format!(
        "{} in {}: {} generated, {} were there\n",
        counted(all, "image"),
        args.out.display(),
        written.generated,
        written.kept
    );
    if written.flagged > 0 {
        let _ = writeln!(
            text,
            "{} of the generated ones have flags: see aux_metadata.flags in their JSON files",
            written.flagged
        );
    }
    print(&text)
}

fn warn_about_weights(generator: &Generator) {
    let pack = generator.pack();
    if pack.weights == Weights::Demo {
        note(&format!("note: pack {} has demo weights: its images mean nothing\n", pack.name));
    }
}
