//! Checks of the machine: runtime, GPU, pack, memory, address, open files.

use std::{io, time::Duration};

use tokio::net::TcpListener;

use super::Check;
use crate::{
    config::Config,
    engine::{self, Gpus, Pack, PackError, Provider, ProviderChoice},
    machine,
    memory::Needs,
    pack_id::Weights,
};

const MIB: u64 = 1 << 20;

/// How long a service may take to respond.
const PATIENCE: Duration = Duration::from_secs(2);

/// Checks what takes a blocking thread.
pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks = vec![runtime(config), gpu(config)];
    let generator = config.generator.pack().map(Pack::open);
    match Pack::open(&config.pack) {
        Ok(opened) => {
            let beside = generator.as_ref().and_then(|pack| pack.as_ref().ok());
            checks.extend([pack(&opened), memory(config, &opened, beside)]);
        }
        Err(error) => checks.push(Check::error("pack", error.to_string(), None)),
    }
    checks.extend(generator.map(generator_pack));
    checks
}

fn generator_pack(opened: Result<Pack, PackError>) -> Check {
    match opened {
        Ok(pack) if pack.generator.is_some() => Check::ok("generator", found(&pack)),
        Ok(pack) => Check::error(
            "generator",
            format!("the pack {} in {} scores images", pack.name, pack.dir.display()),
            Some("set generator.pack to the folder of a generator pack (docs/GENERATION.md)"),
        ),
        Err(error) => Check::error("generator", error.to_string(), None),
    }
}

/// Says what a pack is and where it was found.
fn found(pack: &Pack) -> String {
    format!(
        "{} in {}, digest {}, {} graphs, {} MiB, all files verified",
        pack.name,
        pack.dir.display(),
        pack.digest,
        pack.graphs.len(),
        pack.weight_bytes().div_ceil(MIB)
    )
}

fn runtime(config: &Config) -> Check {
    match engine::examine(&config.engine) {
        Err(error) => Check::error("runtime", error.to_string(), None),
        Ok(found) => {
            let text = format!("{}, provider {}", found.library.display(), found.provider.name());
            let fell_back = found.has_driver
                && found.provider == Provider::Cpu
                && config.engine.provider == ProviderChoice::Auto;
            if fell_back {
                let help = "run `make setup` on this machine, or set engine.provider = \"cuda\" \
                    to see the cause";
                Check::warning("runtime", text + " although there is an NVIDIA driver", Some(help))
            } else {
                Check::ok("runtime", text)
            }
        }
    }
}

fn gpu(config: &Config) -> Check {
    let wanted = matches!(config.engine.provider, ProviderChoice::Cuda | ProviderChoice::TensorRt);
    match Gpus::list() {
        Ok(gpus) if !gpus.is_empty() => {
            let gpus = gpus.iter().map(|(name, bytes)| format!("{name} ({} MiB)", bytes / MIB));
            Check::ok("gpu", gpus.collect::<Vec<_>>().join(", "))
        }
        other if wanted => {
            let reason = other.err().unwrap_or_else(|| "the driver finds no GPU".to_owned());
            let help = "install the NVIDIA driver, or set engine.provider = \"cpu\"";
            Check::error("gpu", reason, Some(help))
        }
        _ => Check::ok("gpu", format!("none; {}", machine::description())),
    }
}

fn pack(pack: &Pack) -> Check {
    let found = found(pack);
    match pack.weights {
        Weights::Demo => Check::warning(
            "pack",
            found + "; its weights are for trying the service, and its scores mean nothing",
            Some("build an official pack (docs/PACKS.md) and set `pack` to its folder"),
        ),
        Weights::Official | Weights::Imported => Check::ok("pack", found),
    }
}

fn memory(config: &Config, pack: &Pack, generator: Option<&Pack>) -> Check {
    let mut needs = Needs::of(config, pack);
    if let Some(generator) = generator {
        needs = needs.with_generator(config, generator);
    }
    let total = needs.total().div_ceil(MIB);
    let text = |of: &str, mib: u64| format!("up to {total} of {mib} MiB of {of} ({needs})");
    if let Some(limit) = config.limits.memory_bytes() {
        let found = text("limits.memory_mib", limit / MIB);
        return match needs.check(config, pack) {
            Ok(()) => Check::ok("memory", found),
            Err(error) => Check::error("memory", error.to_string(), None),
        };
    }
    match machine::memory_bytes() {
        Some(machine) if needs.total() > machine => Check::warning(
            "memory",
            text("the machine or container", machine / MIB),
            Some("lower engine.cache_bytes, limits.upload_memory_mib or limits.pixel_memory_mib"),
        ),
        Some(machine) => Check::ok("memory", text("the machine or container", machine / MIB)),
        None => Check::ok("memory", format!("up to {total} MiB ({needs})")),
    }
}

/// Checks whether the service can listen, or listens already; also returns whether it does.
pub(super) async fn address(config: &Config) -> (Check, bool) {
    let listen = config.server.listen;
    let Err(error) = TcpListener::bind(listen).await else {
        return (Check::ok("address", format!("{listen} is free")), false);
    };
    if error.kind() != io::ErrorKind::AddrInUse {
        let help = "set server.listen to an address of this machine and a port above 1023";
        let found = format!("cannot listen on {listen}: {error}");
        return (Check::error("address", found, Some(help)), false);
    }
    let responds = async {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().ok()?;
        let response = client.get(format!("http://{listen}/livez")).send().await.ok()?;
        (response.status().is_success() && response.headers().contains_key("x-request-id"))
            .then_some(())
    };
    if responds.await.is_some() {
        (Check::ok("address", format!("a stellar-score service responds on {listen}")), true)
    } else {
        let found = format!("{listen} is in use by another program");
        let help = "stop it, or set server.listen to a free port";
        (Check::error("address", found, Some(help)), false)
    }
}

/// Checks whether the system allows as many connections as are configured.
pub(super) fn open_files(config: &Config) -> Check {
    let wanted = config.server.connections;
    match rlimit::getrlimit(rlimit::Resource::NOFILE) {
        Err(error) => Check::warning("open files", format!("the limit is unknown: {error}"), None),
        Ok((soft, hard)) => {
            let possible = machine::connections_of(hard);
            let found = format!(
                "limit {soft}, raised to {hard} at start: {} of {wanted} connections \
                 (server.connections)",
                possible.min(wanted)
            );
            if possible < wanted {
                let help = "raise the limit (LimitNOFILE= in systemd, ulimit -n, --ulimit nofile)";
                Check::warning("open files", found, Some(help))
            } else {
                Check::ok("open files", found)
            }
        }
    }
}
