//! `stellar-score keys`: creating, listing and revoking API keys, and the audit log.
//!
//! The commands change the database of the configuration. Running services look up every key there,
//! so a change is effective at once.

use std::{fmt::Write as _, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use time::{Date, Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    output::{counted, print},
    start::open_store,
};
use crate::{
    api::AuditRow,
    clock,
    config::Config,
    key::{Key, KeyLimits, Scope},
    label,
    store::{AuditQuery, KeyRecord, Store},
};

/// Longest validity, in days: a hundred years.
const MOST_DAYS: u32 = 36_500;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Create a key and print it; it is shown only once
    Create(CreateArgs),
    /// List all keys, without their secrets
    List(ListArgs),
    /// Revoke a key; every service refuses it from then on
    Revoke(RevokeArgs),
    /// Remove all keys; services that start afterwards need none
    RemoveAll(RemoveAllArgs),
    /// Print the audit log, the newest entries first: who wrote or deleted what
    Audit(AuditArgs),
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Name of the key, such as the person or the program that uses it
    name: String,
    /// What the key may do, separated by commas: read, score, annotate, admin, generate
    #[arg(long, value_delimiter = ',', required = true)]
    scopes: Vec<Scope>,
    /// The key expires after so many days
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_DAYS)))]
    expires_days: Option<u32>,
    /// Most requests per minute, in each instance of the service
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_minute: Option<u32>,
    /// Most images per minute, in each instance of the service
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    images_per_minute: Option<u32>,
    /// Most concurrent requests, in each instance of the service
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrent_requests: Option<u32>,
    /// Most bytes of images that wait in the spool, over all instances, in MiB
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    stored_mib: Option<u64>,
    /// Most generated images per hour, in each instance of the service
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    generated_per_hour: Option<u32>,
    /// Write the key to a new file that only its owner can read, instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// Name or id of the key
    key: String,
}

#[derive(Debug, Args)]
pub(super) struct RemoveAllArgs {
    /// Confirms that everyone who reaches the service may then use it
    #[arg(long, required = true)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// Only entries of the key with this name
    #[arg(long)]
    key: Option<String>,
    /// Only entries about this resource: an id, a hash, a dataset, or `blake3:` with 16 digits of
    /// the hash of the name of a sample or annotator
    #[arg(long)]
    resource: Option<String>,
    /// Only entries since this day (2026-01-31, UTC) or time (RFC 3339)
    #[arg(long, value_parser = since)]
    since: Option<OffsetDateTime>,
    /// Most entries
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: &Config, command: KeysCommand) -> anyhow::Result<ExitCode> {
    let store = open_store(config).await?;
    let printed = match command {
        KeysCommand::Create(args) => create(&store, args).await,
        KeysCommand::List(args) => list(&store, &args).await,
        KeysCommand::Revoke(args) => revoke(&store, &args).await,
        KeysCommand::RemoveAll(_) => {
            let removed = store.remove_keys().await?;
            Ok(format!(
                "{} removed: restart services on addresses that other machines reach, which still \
                    refuse requests without a key\n",
                counted(removed, "key")
            ))
        }
        KeysCommand::Audit(args) => audit(&store, args).await,
    };
    store.close().await;
    print(&printed?)
}

async fn create(store: &Store, args: CreateArgs) -> anyhow::Result<String> {
    let name = label::clean(&args.name).map_err(|why| anyhow::anyhow!("the key's name {why}"))?;
    let key = Key::generate().context("the system has no random numbers")?;
    let mut scopes = args.scopes;
    scopes.sort_unstable();
    scopes.dedup();
    let created = clock::now();
    let record = KeyRecord {
        id: key.id(),
        name,
        hash: key.hash(),
        scopes,
        limits: KeyLimits {
            requests_per_minute: args.requests_per_minute,
            images_per_minute: args.images_per_minute,
            concurrent_requests: args.concurrent_requests,
            stored_bytes: args.stored_mib.map(|mib| mib << 20),
            generated_per_hour: args.generated_per_hour,
        },
        created,
        expires: args.expires_days.map(|days| created + Duration::days(days.into())),
        revoked: None,
    };
    let is_first = !store.has_keys().await?;
    // The file first: a key that is stored and then lost could only be revoked.
    if let Some(file) = &args.out {
        write_secret(file, &key).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if !store.create_key(&record).await? {
        if let Some(file) = &args.out {
            let _ = std::fs::remove_file(file);
        }
        anyhow::bail!(
            "there is a key named {} already: choose another name, or revoke it first \
                (stellar-score keys revoke {})",
            record.name,
            record.name
        );
    }
    let first =
        if is_first { "It is the first key: from now on every request needs one.\n" } else { "" };
    let told = format!("{}{first}", line(&record, created));
    Ok(if args.out.is_some() {
        told
    } else {
        // Only the key goes to the standard output, so that it can be piped.
        let _ = std::io::stderr().write_all(told.as_bytes());
        key.reveal() + "\n"
    })
}

fn write_secret(file: &std::path::Path, key: &Key) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all((key.reveal() + "\n").as_bytes())
}

async fn list(store: &Store, args: &ListArgs) -> anyhow::Result<String> {
    let (keys, now) = (store.keys().await?, clock::now());
    if args.json {
        let keys: Vec<_> = keys.iter().map(|key| as_json(key, now)).collect();
        return Ok(serde_json::to_string_pretty(&keys)? + "\n");
    }
    if keys.is_empty() {
        return Ok("there are no keys: requests from this machine need none\n".to_owned());
    }
    Ok(keys.iter().map(|key| line(key, now)).collect())
}

async fn revoke(store: &Store, args: &RevokeArgs) -> anyhow::Result<String> {
    let now = clock::now();
    let key = store.revoke_key(&args.key, now).await?.with_context(|| {
        format!("there is no key {} that could be revoked: see stellar-score keys list", args.key)
    })?;
    Ok(line(&key, now))
}

fn state(key: &KeyRecord, now: OffsetDateTime) -> &'static str {
    match key {
        _ if key.is_valid(now) => "valid",
        KeyRecord { revoked: Some(_), .. } => "revoked",
        _ => "expired",
    }
}

fn as_json(key: &KeyRecord, now: OffsetDateTime) -> serde_json::Value {
    let time = |time: OffsetDateTime| time.format(&Rfc3339).ok();
    json!({
        "id": key.id, "name": key.name, "state": state(key, now), "scopes": key.scopes,
        "limits": key.limits, "created": time(key.created), "expires": key.expires.and_then(time),
        "revoked": key.revoked.and_then(time),
    })
}

/// Describes a key on one line.
fn line(key: &KeyRecord, now: OffsetDateTime) -> String {
    let scopes = key.scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(",");
    let mut line = format!("{}  {:<8} {}  {scopes}", key.id, state(key, now), key.name);
    if let Some(expires) = key.expires {
        let _ = write!(line, "  expires {}", expires.date());
    }
    let KeyLimits {
        requests_per_minute,
        images_per_minute,
        concurrent_requests,
        stored_bytes,
        generated_per_hour,
    } = key.limits;
    let limits = [
        (requests_per_minute.map(u64::from), "requests/min"),
        (images_per_minute.map(u64::from), "images/min"),
        (concurrent_requests.map(u64::from), "concurrent"),
        (stored_bytes.map(|bytes| bytes >> 20), "MiB stored"),
        (generated_per_hour.map(u64::from), "generated/h"),
    ];
    for (limit, unit) in limits {
        if let Some(limit) = limit {
            let _ = write!(line, "  {limit} {unit}");
        }
    }
    line + "\n"
}

async fn audit(store: &Store, args: AuditArgs) -> anyhow::Result<String> {
    let query = AuditQuery {
        key: args.key,
        resource: args.resource,
        since: args.since,
        before: None,
        limit: args.limit,
    };
    let mut text = String::new();
    for entry in store.audit(&query).await? {
        if args.json {
            text += &serde_json::to_string(&AuditRow::from(entry))?;
            text.push('\n');
            continue;
        }
        let address = entry.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
        let _ = writeln!(
            text,
            "{}  {}  {address}  {} {} {}  {}  {}",
            entry.time.format(&Rfc3339).unwrap_or_default(),
            entry.key.as_ref().map_or("-", |(_, name)| name.as_str()),
            entry.method,
            entry.route,
            if entry.resource.is_empty() { "-" } else { &entry.resource },
            entry.status,
            entry.request_id,
        );
    }
    Ok(text)
}

/// Reads a day or a time.
fn since(text: &str) -> Result<OffsetDateTime, String> {
    let wrong = "use a day (2026-01-31) or a time (2026-01-31T08:00:00Z)";
    let date = |text: &str| {
        let mut parts = text.split('-');
        let year = parts.next()?.parse().ok()?;
        let month = parts.next()?.parse::<u8>().ok()?.try_into().ok()?;
        let day = parts.next()?.parse().ok()?;
        let date = Date::from_calendar_date(year, month, day).ok()?;
        parts.next().is_none().then_some(date.midnight().assume_utc())
    };
    date(text)
        .or_else(|| OffsetDateTime::parse(text, &Rfc3339).ok())
        .ok_or_else(|| wrong.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_and_a_time_are_read() {
        let day = since("2026-01-31").unwrap();
        assert_eq!(since("2026-01-31T00:00:00Z").unwrap(), day);
        assert_eq!(since("2026-01-31T01:00:00+01:00").unwrap(), day);
        for wrong in ["", "2026", "2026-13-01", "2026-01-31-02", "31.1.2026", "2026-01-31 08:00"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
