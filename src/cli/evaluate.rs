//! `stellar-score evaluate`: like `submit`, but in one process with its own database.

use std::{net::Ipv4Addr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Args;

use super::{
    exchange::write_files,
    output::print,
    progress,
    serve::Service,
    submit::{EvaluationArgs, evaluate},
};
use crate::{client::Client, config::Config};

#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    #[command(flatten)]
    evaluation: EvaluationArgs,
    /// Output folder for the results, and for the state needed to resume after an interruption
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// The service runs in this process: a request that fails for this long will not succeed later.
const PATIENCE: Duration = Duration::from_secs(10);

/// Retry time on backpressure. Pending samples must be scored first, which takes long with large
/// models.
const PATIENCE_WHEN_FULL: Duration = Duration::from_mins(10);

pub(super) async fn run(mut config: Config, args: EvaluateArgs) -> anyhow::Result<ExitCode> {
    let out = &args.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    config.store.url = format!("sqlite:{}", out.join("stellar.db").display());
    config.store.spool = out.join("files");
    config.server.listen = (Ipv4Addr::LOCALHOST, 0).into();
    // The same code path as with a server, for the same numbers. Only this process knows the
    // address.
    let service = Service::start(&config).await?;
    let client = Client::new(&format!("http://{}", service.address), PATIENCE)?
        .patient_when_full(PATIENCE_WHEN_FULL)
        .telling(progress::note_waiting);
    let report = results(&client, &args).await;
    service.stop(Duration::ZERO).await;
    print(&report?)
}

async fn results(client: &Client, args: &EvaluateArgs) -> anyhow::Result<String> {
    let run = evaluate(client, &args.evaluation).await?.run_id;
    write_files(client, run, &args.out).await?;
    let policy = args.evaluation.policy.name();
    for (format, name) in
        [("json", "report.json"), ("csv", "report.csv"), ("markdown", "report.md")]
    {
        let path = args.out.join(name);
        let text = client.report(run, policy, format).await?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    client.report(run, policy, "markdown").await.map_err(Into::into)
}
