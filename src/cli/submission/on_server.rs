//! Submissions on a server: sending a bundle, reporting its verification, withdrawing it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use uuid::Uuid;

use crate::cli::output::print;
use crate::cli::server::ServerArgs;
use crate::client::{Client, Submission, VerificationReport};
use crate::read;
use crate::submission::{Bounds, Bundle, within};

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// The bundle
    bundle: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WithdrawArgs {
    /// Id of the submission
    #[arg(value_name = "ID")]
    submission: Uuid,
    /// Note for the change log of the board
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// Reads the file of a bundle.
pub(super) fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let named = path.display();
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {named}"))?;
    anyhow::ensure!(size.len() <= Bounds::COMMAND.file, "{named} is too large for a bundle");
    read::bytes(path).with_context(|| format!("cannot read {named}"))
}

pub(super) async fn send(args: SendArgs) -> anyhow::Result<ExitCode> {
    let named = args.bundle.display();
    let bytes = read_file(&args.bundle)?;
    // What the server would refuse is never sent.
    let bundle =
        Bundle::read(&bytes, Bounds::UPLOAD).with_context(|| format!("{named} is refused"))?;
    let differences = within(&bundle);
    anyhow::ensure!(differences.is_empty(), "{named} is refused: {}", differences.join("; "));
    let client = args.server.client()?;
    let (sent, is_new) =
        client.send_bundle(bytes.into()).await.context("cannot send the bundle")?;
    let again = if is_new { "" } else { ", as before" };
    print(&format!(
        "submission {}: {}{again}\n{}/{}\ndigest {}\n",
        sent.id, sent.state, sent.method, sent.run, sent.digest
    ))
}

pub(super) async fn withdraw(args: WithdrawArgs) -> anyhow::Result<ExitCode> {
    let client = args.server.client()?;
    let withdrawn = client.withdraw(args.submission, &args.note).await;
    let withdrawn = withdrawn.context("cannot withdraw the submission")?;
    print(&format!("submission {}: {}\n", withdrawn.id, withdrawn.state))
}

/// Reports that a submission was verified. Returns it in its new state.
pub(super) async fn report(
    client: &Client,
    id: Uuid,
    report: &VerificationReport,
) -> anyhow::Result<Submission> {
    let reported = client.report_verification(id, report).await;
    if let Err(error) = &reported
        && error.code() == Some("submission_conflict")
    {
        // The response to an earlier attempt of this command may have been lost.
        let found = client.submission(id).await.context("cannot read the submission")?;
        let seed = found.verification.as_ref().map(|of| of.seed);
        if found.state == "verified" && seed == Some(report.seed) {
            return Ok(found);
        }
    }
    reported.context("cannot report the verification")
}
