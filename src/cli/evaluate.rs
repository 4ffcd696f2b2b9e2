//! `stellar-score evaluate`: like `submit`, but in one process with its own database.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;

use super::{
    exchange::write_files,
    local::with_service,
    output::print,
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

pub(super) async fn run(config: Config, args: EvaluateArgs) -> anyhow::Result<ExitCode> {
    let out = &args.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    print(&with_service(config, out, async |client| results(client, &args).await).await?)
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
