//! Arguments and helpers shared by the commands that use a server.

use std::{io::Read as _, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use uuid::Uuid;

use super::progress;
use crate::client::{Client, Run, shown_word};

#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// The server's address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// Seconds to retry before giving up while the server is unreachable, such as during a restart,
    /// or refuses all requests at its limits
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
    #[command(flatten)]
    key: KeyArgs,
}

/// The API key, which is never an argument: every user of a machine can list those.
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// File with the API key, `-` for the standard input. Without it, the variable `STELLAR_KEY` is
    /// the key, if it is set
    #[arg(long, value_name = "FILE", env = "STELLAR_KEY_FILE")]
    key_file: Option<PathBuf>,
}

/// Longest file with a key, in bytes.
const KEY_FILE: u64 = 4_096;

impl KeyArgs {
    /// Adds the key, if there is one.
    pub(super) fn add_to(&self, client: Client) -> anyhow::Result<Client> {
        if let Some(file) = &self.key_file {
            let mut key = String::new();
            let read = if file.as_os_str() == "-" {
                std::io::stdin().take(KEY_FILE).read_to_string(&mut key)
            } else {
                std::fs::File::open(file)
                    .and_then(|opened| opened.take(KEY_FILE).read_to_string(&mut key))
            };
            read.with_context(|| format!("cannot read the API key from {}", file.display()))?;
            return client.with_key(&key).with_context(|| file.display().to_string());
        }
        match std::env::var("STELLAR_KEY") {
            Ok(key) if !key.is_empty() => client.with_key(&key).context("STELLAR_KEY"),
            _ => Ok(client),
        }
    }
}

impl ServerArgs {
    /// Returns the server's address as files may show it, without what may be an API key.
    pub(super) fn shown(&self) -> String {
        shown_word(&self.server)
    }

    pub(super) fn client(&self) -> anyhow::Result<Client> {
        let client = Client::new(&self.server, Duration::from_secs(self.patience))?;
        Ok(self.key.add_to(client)?.telling(progress::note_waiting))
    }
}

/// Finds a run by its id, by `method/run`, or by its method if that has one run.
pub(super) async fn find_run(client: &Client, named: &str) -> anyhow::Result<Run> {
    if let Ok(id) = named.parse::<Uuid>() {
        return client.run(id).await.with_context(|| format!("cannot read the run {id}"));
    }
    let (method, run) = match named.split_once('/') {
        Some((method, run)) => (method, Some(run)),
        None => (named, None),
    };
    let mut found = client.runs(Some(method)).await.context("cannot list the runs")?;
    found.retain(|each| run.is_none_or(|run| each.run == run));
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => anyhow::bail!("run {named} not found: name it as METHOD/RUN or by its id"),
        count => {
            let names: Vec<String> =
                found.iter().map(|run| format!("{}/{}", run.method, run.run)).collect();
            anyhow::bail!("the method {named} has {count} runs: name one of {}", names.join(", "))
        }
    }
}
