//! Command-line interface.

mod backup;
mod bench;
mod compare;
mod dataset;
mod doctor;
mod evaluate;
mod exchange;
mod generate;
mod health;
mod keys;
mod local;
mod masks;
mod output;
mod pack;
mod paper;
mod progress;
mod register;
mod retention;
mod score;
mod serve;
mod server;
mod start;
mod submission;
mod submit;
mod validate;
mod verify;
mod verify_generator;

use std::{io::Write as _, os::unix::process::CommandExt as _, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use self::output::{explain, print, shown};
use rustix::fs::Mode;

use crate::{
    config::{Config, RenamedKey, UnknownVariable},
    telemetry::init_log,
};

/// Grace period for work on other threads when a command ends.
const LEFT_OVER: std::time::Duration = std::time::Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  stellar-score serve
  stellar-score score --image generated.png --prompt 'a person riding a horse' --reference photo.jpg
  stellar-score score --image generated.png --metrics aesthetic --json
  stellar-score generate --pack packs/generator --dataset data/stellar --kind T --out generations/
  stellar-score submit --method mine --dataset data/stellar --images generations/
  stellar-score evaluate --method mine --dataset data/stellar --images generations/ --out results/
  stellar-score report mine --format latex
  stellar-score paper --dataset-name stellar --out paper/
  stellar-score submission pack --run mine/default --images generations/ --out mine.zip
  stellar-score keys create ci --scopes read,score --expires-days 90 --out ci.key
  stellar-score pack inspect packs/demo
  stellar-score pack verify packs/official
  stellar-score pack verify packs/official-fp16 --against packs/official --images images/
  stellar-score pack verify packs/official --toolkit stellar-metrics/tests/assets
  stellar-score validate relations --pairs images.jsonl
  stellar-score doctor
  stellar-score backup /var/backups/stellar
  stellar-score bench graphs --batches 1,8
  stellar-score bench service --images trial/generations --dataset data/stellar --clients 16

Every configuration key can be set in the environment: STELLAR_PACK=packs/official,
STELLAR_SERVER__LISTEN=0.0.0.0:8080, STELLAR_STORE__URL=postgres://…
`stellar-score config` lists all keys and documents them.";

/// Scores images of personalised text-to-image generators, matching the reference implementations.
#[derive(Debug, Parser)]
#[command(name = "stellar-score", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    shared: SharedArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct SharedArgs {
    /// Configuration file; its keys override the defaults, and environment variables override both
    #[arg(long, global = true, value_name = "FILE", env = "STELLAR_CONFIG_FILE")]
    config: Option<PathBuf>,
}

impl Command {
    /// Returns whether it runs until it is stopped, and logs.
    fn is_service(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::Worker(_))
    }
}

const WORKER: &str = "\
Needs dispatch.kind = \"nats\", a bucket and PostgreSQL. Any number of workers may run, each with a
store.spool folder and a server.listen of its own. docs/OPERATIONS.md has more.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the HTTP service
    Serve(serve::ServeArgs),
    /// Score what instances of the service have accepted, beside other workers
    #[command(after_help = WORKER)]
    Worker(serve::ServeArgs),
    /// Score one image without a server and print a table
    Score(score::ScoreArgs),
    /// Generate one image, or those of a dataset in a folder that `submit` takes
    #[command(after_help = generate::EXAMPLES)]
    Generate(Box<generate::GenerateArgs>),
    /// Submit a folder of generated images to a server and print the run's report
    Submit(Box<submit::SubmitArgs>),
    /// Evaluate a folder of generated images without a server
    Evaluate(Box<evaluate::EvaluateArgs>),
    /// Deprecated name of `evaluate`
    #[command(hide = true)]
    Run(Box<evaluate::EvaluateArgs>),
    /// Import scores computed by the reference toolkit into a server
    Import(exchange::ImportArgs),
    /// Export a run's scores as files in the reference toolkit's format
    Export(exchange::ExportArgs),
    /// Print a run's report
    Report(exchange::ReportArgs),
    /// Compare two runs on the same prompts, as a table or as a gate in a training pipeline
    Compare(compare::CompareArgs),
    /// Write the tables and figures of a paper's results: LaTeX, CSV and SVG
    Paper(Box<paper::PaperArgs>),
    /// Prepare, check and register datasets
    #[command(subcommand)]
    Dataset(dataset::DatasetCommand),
    /// Inspect and verify model packs
    #[command(subcommand)]
    Pack(pack::PackCommand),
    /// Make and verify bundles of a run's scores, to submit them to others
    #[command(subcommand)]
    Submission(submission::SubmissionCommand),
    /// Validate a pack's models on images with known ground truth
    #[command(subcommand)]
    Validate(validate::ValidateCommand),
    /// Benchmark the graphs and the service on this machine
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Create, list and revoke API keys, and read the audit log
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Ask a running service whether it is ready; the exit status is 0 or 1
    Health(health::HealthArgs),
    /// Apply pending database migrations and exit
    Migrate,
    /// Back up the database and the images of pending samples, while the service runs
    Backup(backup::BackupArgs),
    /// Restore a backup into an empty database of either kind
    Restore(backup::RestoreArgs),
    /// Check configuration and machine, and say what is wrong and how to mend it
    Doctor(doctor::DoctorArgs),
    /// Print the OpenAPI document of the HTTP API
    Openapi,
    /// Print the default configuration with documentation of every key
    Config,
}

/// Parses the arguments and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    without_telemetry_of_onnxruntime();
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", shown(&explain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Starts this program again with telemetry of ONNX Runtime switched off, unless the variable is
/// set. The official builds report to their publisher from 1.32 on, and an event may be sent before
/// the API can switch it off. Only the environment is early enough, and a process cannot safely
/// change its own.
fn without_telemetry_of_onnxruntime() {
    const SWITCH: &str = "ORT_DISABLE_TELEMETRY";
    if std::env::var_os(SWITCH).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else { return };
    // Returns only if it fails; then the API's switch is all there is.
    let _ = std::process::Command::new(program).arg0(name).args(arguments).env(SWITCH, "1").exec();
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Openapi => print(&(crate::api::openapi().to_pretty_json()? + "\n")),
        Command::Config => print(crate::config::DEFAULTS),
        command => {
            let loaded = Config::load(cli.shared.config.as_deref());
            if let (Command::Doctor(args), Err(error)) = (&command, &loaded) {
                return doctor::unreadable(error, args);
            }
            let mut config = loaded?;
            if !command.is_service() {
                // Commands print only their result, and log only what is wrong.
                "warn".clone_into(&mut config.log.filter);
            }
            let traces = command.is_service().then_some(&config.traces);
            let traces = init_log(&config.log, traces)?;
            warn_about_unknown_variables();
            if let Command::Serve(_) | Command::Worker(_) | Command::Migrate | Command::Restore(_) =
                command
            {
                // The database and the spool hold personal data: other users of the machine have no
                // access.
                rustix::process::umask(Mode::RWXG | Mode::RWXO);
            }
            for RenamedKey { old, new } in &config.renamed {
                tracing::warn!(old, new, "renamed configuration key: the old name works until 0.3");
            }
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let ended = runtime.block_on(async {
                match command {
                    Command::Serve(args) => {
                        serve::run(config, args, serve::ProcessKind::Service).await
                    }
                    Command::Worker(args) => {
                        serve::run(config, args, serve::ProcessKind::Worker).await
                    }
                    Command::Score(args) => score::run(config, args).await,
                    Command::Generate(args) => generate::run(config, *args).await,
                    Command::Submit(args) => submit::run(*args).await,
                    Command::Evaluate(args) => evaluate::run(config, *args).await,
                    Command::Run(args) => {
                        tracing::warn!("`run` is now `evaluate`: the old name works until 0.3");
                        evaluate::run(config, *args).await
                    }
                    Command::Import(args) => exchange::import(args).await,
                    Command::Export(args) => exchange::export(args).await,
                    Command::Report(args) => exchange::report(args).await,
                    Command::Compare(args) => compare::run(args).await,
                    Command::Paper(args) => Box::pin(paper::run(config, *args)).await,
                    Command::Dataset(command) => dataset::run(&config, command).await,
                    Command::Pack(command) => pack::run(config, command).await,
                    Command::Submission(command) => submission::run(config, command).await,
                    Command::Validate(command) => validate::run(config, command).await,
                    Command::Bench(command) => bench::run(config, command).await,
                    Command::Keys(command) => keys::run(&config, command).await,
                    Command::Health(args) => health::run(&config, args).await,
                    Command::Migrate => migrate(&config).await,
                    Command::Backup(args) => backup::create(&config, args).await,
                    Command::Restore(args) => backup::restore(&config, args).await,
                    Command::Doctor(args) => {
                        doctor::run(&config, cli.shared.config.as_deref(), args).await
                    }
                    Command::Openapi | Command::Config => unreachable!("handled above"),
                }
            });
            // Abandoned work on other threads must not keep the process alive.
            runtime.shutdown_timeout(LEFT_OVER);
            if let Some(traces) = traces {
                traces.finish();
            }
            ended
        }
    }
}

/// Logs ignored variables. Otherwise a misspelt name would be a setting that silently does nothing.
fn warn_about_unknown_variables() {
    let (slips, others): (Vec<_>, Vec<_>) =
        Config::unknown_variables().into_iter().partition(|variable| variable.nearest.is_some());
    let names = |variables: &[UnknownVariable]| {
        let named = variables.iter().map(|UnknownVariable { name, nearest }| match nearest {
            Some(nearest) => format!("{name} (did you mean {nearest}?)"),
            None => name.clone(),
        });
        named.collect::<Vec<_>>().join(", ")
    };
    if !slips.is_empty() {
        tracing::warn!(variables = names(&slips), "ignored variables that look like misspelt keys");
    }
    if !others.is_empty() {
        tracing::info!(
            variables = names(&others),
            "ignored variables that are not configuration keys"
        );
    }
}

async fn migrate(config: &Config) -> anyhow::Result<ExitCode> {
    let store = start::open_store(config).await?;
    store.close().await;
    print("the database schema is up to date\n")
}
