//! `stellar-score evaluate`: like `submit`, in one process with a database of its own.

use std::{net::Ipv4Addr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Args;

use super::{
    exchange::write_files,
    print, progress,
    serve::Service,
    submit::{EvaluationArgs, evaluate},
};
use crate::{client::Client, config::Config};

#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    #[command(flatten)]
    evaluation: EvaluationArgs,
    /// Where to put the results and what is needed to go on after an interruption
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// The service is in this process: whatever it does not answer at once it never will.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where there is no room for further samples, some have to be scored first, which takes a large model its time.
const PATIENCE_WHEN_FULL: Duration = Duration::from_mins(10);

pub(super) async fn run(mut config: Config, args: EvaluateArgs) -> anyhow::Result<ExitCode> {
    let out = &args.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    config.store.url = format!("sqlite:{}", out.join("stellar.db").display());
    config.store.spool = out.join("files");
    config.server.listen = (Ipv4Addr::LOCALHOST, 0).into();
    // The same code as with a server, so that the same numbers come out; only this process knows the address.
    let service = Service::start(&config).await?;
    let client = Client::new(&format!("http://{}", service.address), PATIENCE)?
        .patient_when_full(PATIENCE_WHEN_FULL)
        .telling(progress::note_waiting);
    let answer = answer(&client, &args).await;
    service.stop().await;
    print(&answer?)
}

async fn answer(client: &Client, args: &EvaluateArgs) -> anyhow::Result<String> {
    let run = evaluate(client, &args.evaluation).await?.run_id;
    write_files(client, run, &args.out).await?;
    let policy = args.evaluation.policy.name();
    for (format, name) in [("json", "report.json"), ("csv", "report.csv"), ("markdown", "report.md")] {
        let path = args.out.join(name);
        let text = client.report(run, policy, format).await?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    client.report(run, policy, "markdown").await.map_err(Into::into)
}
