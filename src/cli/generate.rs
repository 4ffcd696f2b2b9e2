//! `stellar-score generate`: one image, or the images of a dataset.

use std::{
    cell::Cell,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::{ArgGroup, Args, ValueEnum};
use rustix::fs::{Access, access};

use super::{
    output::{counted, lines, print, shown},
    progress::{self, note},
    start::start_generator,
    submit::problems_first,
};
use crate::{
    config::Config,
    dataset::Dataset,
    generation::{
        GenerationError, Generator, Person, Request, Settings, Subject, WORD_FILES,
        folder::{
            self, FolderSettings, FolderState, People, Photos, Progress, Selection, Split, Written,
        },
    },
    pack_id::Weights,
    telemetry::Telemetry,
    vision::{self, DecodeLimits},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  stellar-score generate --pack packs/generator --prompt '{} as a clown' --photo face.jpg \\
    --mask face-mask.png --out clown.png
  stellar-score generate --pack packs/generator --dataset data/stellar --split test --kind T \\
    --out generations-t/
  stellar-score generate --pack packs/sdxl --words textual-inversion/ --dataset data/stellar \\
    --kind T --out generations-ti/

Images of a dataset are named identity-photo-prompt, as in the paper. An interrupted command goes \
on where it was when it is called again. Images that fail are listed at the end, and tried again \
then.";

/// Default name of the method whose words are learned.
const INVERSION: &str = "textual-inversion";

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
    /// Words that were learned by Textual Inversion, in place of a photo: the folder with
    /// `learned_embeds.safetensors`; of a dataset, the folder with a folder identity-photo for each
    /// photo
    #[arg(long, value_name = "DIR", conflicts_with = "photo")]
    words: Option<PathBuf>,
    /// Use the whole photos of a dataset, as if they had no masks
    #[arg(long, conflicts_with_all = ["prompt", "words"])]
    no_masks: bool,
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
    /// Name of the method in the descriptions [default: the pack's system; with --words
    /// textual-inversion]
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
    fn selection(&self) -> Selection {
        Selection {
            split: match self.split {
                SplitArg::Test => Split::Test,
                SplitArg::Val => Split::Val,
                SplitArg::All => Split::All,
            },
            kind: self.kind.clone(),
            photos: match self.photos {
                PhotosArg::All => Photos::All,
                PhotosArg::First => Photos::First,
            },
        }
    }

    fn people(&self) -> People {
        match &self.words {
            Some(words) => People::Words(words.clone()),
            None if self.no_masks => People::WholePhotos,
            None => People::Photos,
        }
    }

    fn method(&self, generator: &Generator) -> String {
        let system = match self.words {
            Some(_) => INVERSION,
            None => &generator.spec().system,
        };
        self.method.clone().unwrap_or_else(|| system.to_owned())
    }

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

/// Refuses what cannot become an image file, before hours of work are lost with it.
fn check_out(out: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        !out.is_dir(),
        "--out {} is a folder: name the image file in it, such as image.png",
        out.display()
    );
    anyhow::ensure!(
        out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png")),
        "--out {} does not end in .png: one image is a PNG file, only a dataset has a folder",
        out.display()
    );
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    anyhow::ensure!(
        folder.is_dir(),
        "--out {}: there is no folder {}, create it first",
        out.display(),
        folder.display()
    );
    access(folder, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(std::io::Error::from)
        .with_context(|| format!("cannot write in the folder {}", folder.display()))
}

/// Decodes a photo and its mask, which would fail only after the pack is loaded.
fn check_photo(subject: &Subject, limits: &DecodeLimits) -> Result<(), GenerationError> {
    vision::decode(&subject.photo, limits).map_err(GenerationError::Photo)?;
    if let Some(mask) = &subject.mask {
        vision::decode(mask, limits).map_err(GenerationError::Mask)?;
    }
    Ok(())
}

async fn image(config: &Config, args: &GenerateArgs, prompt: &str) -> anyhow::Result<ExitCode> {
    check_out(&args.out)?;
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
    if let Some(subject) = &subject {
        check_photo(subject, &config.limits.decode())?;
    }
    let words = args.words.as_ref().map(|folder| {
        let [first, second] = WORD_FILES.map(|name| file(&folder.join(name)));
        Ok::<_, anyhow::Error>([first?, second?])
    });
    let words = words.transpose()?;
    let generator = start_generator(config, &args.pack, None, Telemetry::new().engine).await?;
    let person = match (subject, words) {
        (_, Some([first, second])) => Some(Person::Words(generator.read_words([&first, &second])?)),
        (subject, None) => subject.map(Person::Photo),
    };
    let request = Request {
        prompt: prompt.to_owned(),
        negative_prompt: args.negative_prompt.clone(),
        person,
        settings: args.settings(&generator),
    };
    let bar = progress::bar("steps");
    bar.set_length(args.steps as u64);
    let picture = generator.generate(&request, |step| bar.set_position(step as u64)).await;
    bar.finish_and_clear();
    let picture = picture?;
    let png = picture.png(&generator.provenance(request.settings))?;
    crate::write::file(&args.out, &png)
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
    anyhow::ensure!(
        args.out.is_dir() || !args.out.exists(),
        "--out {} is not a folder: the images of a dataset need one",
        args.out.display()
    );
    let (dataset, findings) = Dataset::open(root)?;
    note(&problems_first(&findings.list));
    anyhow::ensure!(
        findings.fatal() == 0,
        "{} has problems: no images were generated",
        root.display()
    );
    let selection = args.selection();
    let people = args.people();
    let plan = folder::plan(&dataset, &selection, &people)?;
    if let People::Words(words) = &people {
        anyhow::ensure!(
            plan.iter().filter_map(|job| job.words.as_ref()).any(|folder| folder.is_dir()),
            "--words {} has no folder of a photo of the dataset, such as {}",
            words.display(),
            plan[0].words.as_ref().and_then(|of| of.file_name()).unwrap_or_default().display()
        );
    }
    let jobs = &plan[..plan.len().min(args.limit.unwrap_or(usize::MAX))];
    let generator = start_generator(config, &args.pack, None, Telemetry::new().engine).await?;
    let settings = FolderSettings {
        pack: generator.pack().id(),
        method: args.method(&generator),
        selection,
        people,
        settings: args.settings(&generator),
        seed_by_name: args.seed_by_name,
        negative_prompt: args.negative_prompt.clone(),
    };
    folder::check(&generator, &settings, jobs)?;
    let state = FolderState::open(&args.out, settings, &plan, jobs)?;
    let bar = progress::bar("denoising steps");
    let (all, steps) = (jobs.len() as u64, args.steps as u64);
    bar.set_length(all * steps);
    let (done, failed) = (Cell::new(0), Cell::new(0));
    let told = |progress| {
        match progress {
            Progress::Kept(kept) => {
                done.set(kept as u64);
                // The time left is that of what is left.
                bar.set_length((all - done.get()) * steps);
                bar.reset_eta();
                return;
            }
            Progress::Step => {
                bar.inc(1);
                return;
            }
            Progress::Image => done.set(done.get() + 1),
            Progress::Failed => failed.set(failed.get() + 1),
        }
        let of = counted(all, "image");
        bar.set_message(match failed.get() {
            0 => format!("({} of {of})", done.get()),
            failed => format!("({} of {of}, {failed} failed)", done.get()),
        });
    };
    let written = folder::write(&generator, &state, jobs, args.concurrency as usize, told).await;
    bar.finish_and_clear();
    warn_about_weights(&generator);
    generator.engine().drain().await;
    report(&written, all, &args.out)
}

/// Prints what was written. Failures are listed on standard error, and make the command fail.
fn report(written: &Written, all: u64, out: &Path) -> anyhow::Result<ExitCode> {
    let mut text = format!(
        "{} in {}: {} generated, {} were there\n",
        counted(all, "image"),
        out.display(),
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
    let printed = print(&text)?;
    if written.failed == 0 {
        return Ok(printed);
    }
    let mut failures = lines(written.failures.iter());
    if written.failed > written.failures.len() {
        let _ = writeln!(failures, "and {} more", written.failed - written.failures.len());
    }
    note(&shown(&failures));
    let failed = counted(written.failed as u64, "image");
    match &written.stopped {
        Some(why) => anyhow::bail!(
            "{failed} failed, and the others were not tried, since {why}: mend the cause and \
                repeat the command, which goes on where it was"
        ),
        None => anyhow::bail!(
            "{failed} failed: mend the causes and repeat the command, which tries only these again"
        ),
    }
}

/// Notes that a pack has no trained weights.
pub(super) fn warn_about_weights(generator: &Generator) {
    let pack = generator.pack();
    if pack.weights == Weights::Demo {
        note(&format!("note: pack {} has demo weights: what it makes means nothing\n", pack.name));
    }
}
