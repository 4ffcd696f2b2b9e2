//! Checks of database, spool and disks.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{Access, access};

use super::{Check, Status};
use crate::{
    blobs::bucket_note,
    config::{Config, Nats, S3, Server},
    dispatch::{Broker, Queue},
    machine,
    runs::{SpoolFolder, SpoolOpenError},
    store::{DatabaseState, MigrationError, StoreOptions},
    telemetry::Telemetry,
};

const MIB: u64 = 1 << 20;

/// How long the database may take to respond.
const PATIENCE: Duration = Duration::from_secs(5);

/// Checks database, keys, spool and their disks. `serves` is whether the configured service runs.
pub(super) async fn checks(config: &Config, serves: bool) -> Vec<Check> {
    let (database, state) = database(config).await;
    let (folder, used) = spool(config, state.as_ref(), serves);
    // A database that does not exist yet has no keys.
    let unknown = state.is_none() && database.status == Status::Error;
    let mut checks = vec![database];
    if !unknown {
        checks.push(keys(&config.server, state.as_ref().map_or(0, |state| state.keys)));
    }
    checks.push(folder);
    let s3 = &config.store.s3;
    if s3.is_used() {
        checks.push(bucket(s3, state.as_ref()).await);
    }
    if config.dispatch.is_nats() {
        checks.push(broker(&config.dispatch.nats).await);
    }
    // Space that the spool may still take.
    let budget = if s3.is_used() { 0 } else { config.store.spool_bytes().saturating_sub(used) };
    let least = config.store.min_free_mib.saturating_mul(MIB);
    checks.push(disk("spool disk", &config.store.spool, budget, least));
    if let Some(file) = DatabaseState::file(&config.store.url) {
        checks.push(disk("database disk", &file, 0, least));
    }
    checks
}

async fn database(config: &Config) -> (Check, Option<DatabaseState>) {
    const NAME: &str = "database";
    let url = &config.store.url;
    if let Some(file) = DatabaseState::file(url).filter(|file| !file.exists()) {
        let check = match writable(&file) {
            Ok(()) => Check::ok(NAME, format!("{} is created at start", file.display())),
            Err(problem) => Check::error(
                NAME,
                format!("{} cannot be created: {problem}", file.display()),
                Some("set store.url to sqlite:PATH in a folder that the service can write to"),
            ),
        };
        return (check, None);
    }
    if DatabaseState::file(url).is_none() && url.starts_with("sqlite:") {
        let found = "in memory: everything is gone when the service ends";
        return (Check::warning(NAME, found, Some("set store.url to sqlite:PATH")), None);
    }
    let options = StoreOptions { timeout: PATIENCE, ..StoreOptions::default() };
    let state = match DatabaseState::read(url, &options).await {
        Ok(state) => state,
        Err(error) => return (Check::error(NAME, error.to_string(), None), None),
    };
    let DatabaseState { version, bytes, samples, pending, newest, .. } = &state;
    let size = match samples {
        0 => String::new(),
        samples => format!(", {} KiB for each", (bytes / samples).div_ceil(1024)),
    };
    let found = |schema: &str| {
        format!(
            "{version}, {schema}, {} MiB, {samples} samples{size}, {pending} pending",
            bytes.div_ceil(MIB)
        )
    };
    let check = match state.schema {
        None => Check::ok(NAME, format!("{version}, empty: tables are created at start")),
        Some(schema) if schema > *newest => {
            let error = MigrationError::Newer { found: schema, known: *newest };
            Check::error(NAME, error.to_string(), None)
        }
        Some(schema) if schema < *newest => Check::warning(
            NAME,
            found(&format!("schema {schema}, migrated to {newest} at start")),
            Some("back up first: stellar-score backup DIR"),
        ),
        Some(schema) => Check::ok(NAME, found(&format!("schema {schema}"))),
    };
    (check, Some(state))
}

/// Checks whether the broker answers and has `JetStream`.
async fn broker(settings: &Nats) -> Check {
    const NAME: &str = "broker";
    let queue = async {
        let telemetry =
            Telemetry::new().runs.dispatch.of_nats().map_err(|error| error.to_string())?;
        let broker = Broker::connect(settings, String::new(), telemetry)
            .await
            .map_err(|error| error.to_string())?;
        broker.queue().await
    };
    match queue.await {
        Ok(None) => Check::ok(NAME, "it answers; its stream is created at start"),
        Ok(Some(Queue { replicas, .. })) if replicas != settings.replicas => Check::warning(
            NAME,
            format!(
                "the stream has {replicas} replicas, and dispatch.nats.replicas is {}",
                settings.replicas
            ),
            Some("change the stream: nats stream edit STREAM --replicas N; or the configuration"),
        ),
        Ok(Some(Queue { samples, .. })) => {
            Check::ok(NAME, format!("{samples} samples are queued or in flight"))
        }
        Err(problem) => Check::error(
            NAME,
            problem,
            Some("check dispatch.nats: servers, credentials and TLS; the server needs JetStream"),
        ),
    }
}

/// Checks who may use the service: a start that would let everyone do so is refused.
fn keys(server: &Server, keys: u64) -> Check {
    const NAME: &str = "keys";
    let Server { listen, proxies, allow_anonymous, .. } = server;
    if keys > 0 {
        return Check::ok(NAME, format!("{keys} stored: every request needs one"));
    }
    if !server.is_exposed() {
        return Check::ok(NAME, "none: requests from this machine need none");
    }
    let reached = format!(
        "there is no API key, and other machines reach the service (server.listen is {listen}, \
            server.proxies are {proxies:?})"
    );
    let create = "create one: stellar-score keys create NAME --scopes read,score";
    if *allow_anonymous {
        let found = format!("{reached}: everyone there may use it (server.allow_anonymous)");
        return Check::warning(NAME, found, Some(create));
    }
    let help = format!("{create}; or let everyone use it: server.allow_anonymous = true");
    Check::error(NAME, reached, Some(&help))
}

/// Checks the spool; also returns the bytes that it has.
fn spool(config: &Config, database: Option<&DatabaseState>, serves: bool) -> (Check, u64) {
    const NAME: &str = "spool";
    let root = &config.store.spool;
    let unusable = |problem: String| {
        Check::error(
            NAME,
            format!("{} cannot be used: {problem}", root.display()),
            Some("set store.spool to a folder that the service can write to"),
        )
    };
    if let Err(problem) = writable(root) {
        return (unusable(problem), 0);
    }
    if !root.exists() {
        return (Check::ok(NAME, format!("{} is created at start", root.display())), 0);
    }
    let folder = SpoolFolder::new(root);
    let read =
        || std::io::Result::Ok((folder.database()?, folder.contents()?, folder.is_in_use()?));
    let (theirs, (files, bytes), in_use) = match read() {
        Ok(read) => read,
        Err(error) => return (unusable(error.to_string()), 0),
    };
    let ours = database.and_then(|state| state.installation.clone());
    // A database that no service has used yet cannot be the one of a spool that has one.
    if let (Some(theirs), Some(_)) = (theirs, database)
        && ours.as_ref() != Some(&theirs)
    {
        let ours = ours.unwrap_or_else(|| "a new one".to_owned());
        let error = SpoolOpenError::OtherDatabase { folder: root.clone(), theirs, ours };
        return (Check::error(NAME, error.to_string(), None), bytes);
    }
    let found = format!(
        "{}: {files} files, {} of {} MiB",
        root.display(),
        bytes.div_ceil(MIB),
        config.store.spool_mib
    );
    let check = match (in_use, serves) {
        (false, _) => Check::ok(NAME, found),
        (true, true) => Check::ok(NAME, found + ", in use by a running service"),
        (true, false) => Check::warning(
            NAME,
            format!(
                "{found}, in use by another process, although no service responds on {}: a start is \
                    refused meanwhile",
                config.server.listen
            ),
            Some("give each instance its own store.spool, or stop that process"),
        ),
    };
    (check, bytes)
}

/// Checks the bucket of the spool.
async fn bucket(settings: &S3, database: Option<&DatabaseState>) -> Check {
    const NAME: &str = "bucket";
    let ours = database.and_then(|state| state.installation.clone());
    match bucket_note(settings).await {
        Err(error) => Check::error(NAME, error.to_string(), None),
        Ok(None) => Check::ok(NAME, format!("{} is taken at start", settings.name())),
        // A database that no service has used yet cannot be the one of a bucket that has one.
        Ok(Some(note)) if database.is_some() && ours.as_ref() != Some(&note.database) => {
            let ours = ours.unwrap_or_else(|| "a new one".to_owned());
            let (bucket, theirs) = (settings.name(), note.database);
            let error = SpoolOpenError::BucketOfOther { bucket, theirs, ours };
            Check::error(NAME, error.to_string(), None)
        }
        Ok(Some(note)) => {
            Check::ok(NAME, format!("{} can be read, id {}", settings.name(), note.id))
        }
    }
}

/// Checks the free space around a path, of which `budget` may still be taken.
fn disk(name: &'static str, path: &Path, budget: u64, least: u64) -> Check {
    let folder = existing(path);
    let free = match machine::disk_bytes(&folder) {
        Ok((free, _)) => free,
        Err(error) => {
            let found = format!("the free space of {} is unknown: {error}", folder.display());
            return Check::warning(name, found, None);
        }
    };
    let found = format!("{} MiB free at {}", free / MIB, folder.display());
    if free < least {
        let help = "free space until store.min_free_mib is left: /readyz is false without";
        Check::error(name, found, Some(help))
    } else if free < budget {
        let found = format!("{found}, but the spool may take {} MiB more", budget / MIB);
        Check::warning(name, found, Some("lower store.spool_mib, or free space"))
    } else {
        Check::ok(name, found)
    }
}

/// Returns the nearest folder that exists.
fn existing(path: &Path) -> PathBuf {
    let found = path.ancestors().find(|ancestor| ancestor.is_dir());
    match found {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ if path.is_absolute() => PathBuf::from("/"),
        _ => PathBuf::from("."),
    }
}

/// Checks that a folder can be written, or that it or a file can be created.
fn writable(path: &Path) -> Result<(), String> {
    let nearest = path
        .ancestors()
        .find(|ancestor| ancestor.exists() && !ancestor.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !nearest.is_dir() {
        return Err(format!("{} is not a folder", nearest.display()));
    }
    access(nearest, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| format!("{} is not writable: {error}", nearest.display()))
}
