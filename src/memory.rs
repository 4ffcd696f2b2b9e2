//! Upper bound of the service's memory, from its configuration and its pack: see "Memory" in
//! `docs/LIMITS.md`.

use std::fmt;

use crate::{api, config::Config, engine::Pack, machine};

const MIB: u64 = 1 << 20;

/// The program, its threads and connections, and what the runtime allocates in addition to weights,
/// in bytes. Measured with the demo pack.
const PROGRAM: u64 = 200 * MIB;

/// Upper bound of each part, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Weights of the pack, which stay in memory while the service runs, and the overhead of the
    /// runtime.
    pub pack: u64,
    /// Weights of the generator pack, with the overhead of the runtime, and its features.
    pub generator: u64,
    /// Feature cache: `engine.cache_bytes`.
    pub cache: u64,
    /// Requests being read or scored: `limits.upload_memory_mib` and `rewards.memory_mib`.
    pub uploads: u64,
    /// Decoded pixels: `limits.pixel_memory_mib`.
    pub pixels: u64,
    /// Response cache: reports and other cached responses.
    pub answers: u64,
    /// Score files being imported.
    pub imports: u64,
}

/// The service may need more than `limits.memory_mib`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "limits.memory_mib = {limit} is too low: with the pack `{pack}` the service may need {total} \
        MiB ({needs}); raise it, lower \
     engine.cache_bytes, limits.upload_memory_mib or limits.pixel_memory_mib, or use a smaller \
     pack",
    limit = .limit / MIB, total = .needs.total().div_ceil(MIB)
)]
pub struct TooLittle {
    pack: String,
    limit: u64,
    needs: Needs,
}

impl Needs {
    /// Computes the needs of a configuration with a pack.
    #[must_use]
    pub fn of(config: &Config, pack: &Pack) -> Self {
        Self {
            pack: weights(pack) + PROGRAM,
            generator: 0,
            cache: config.engine.cache_bytes,
            uploads: (config.limits.upload_memory_bytes() + config.rewards.memory_bytes()) as u64,
            pixels: config.limits.pixel_bytes(),
            answers: api::response_cache_bytes(),
            imports: api::import_bytes(),
        }
    }

    /// Adds a generator pack, which has a feature cache of its own.
    #[must_use]
    pub fn with_generator(self, config: &Config, pack: &Pack) -> Self {
        Self { generator: weights(pack) + config.engine.cache_bytes, ..self }
    }

    /// Returns the sum of all parts, in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { pack, generator, cache, uploads, pixels, answers, imports } = *self;
        [generator, cache, uploads, pixels, answers, imports]
            .into_iter()
            .fold(pack, u64::saturating_add)
    }

    /// Checks the needs against `limits.memory_mib` if it is set. Otherwise logs a warning if they
    /// exceed the memory of the machine.
    ///
    /// # Errors
    /// Fails if the needs exceed the limit.
    pub fn check(self, config: &Config, pack: &Pack) -> Result<(), TooLittle> {
        match config.limits.memory_bytes() {
            Some(limit) if self.total() > limit => {
                Err(TooLittle { pack: pack.name.clone(), limit, needs: self })
            }
            Some(_) => Ok(()),
            None => {
                let total = self.total();
                if let Some(machine) = machine::memory_bytes().filter(|machine| total > *machine) {
                    tracing::warn!(
                        may_need_mib = total.div_ceil(MIB), machine_mib = machine / MIB, parts = %self,
                        "under full load the service may need more memory than the machine or \
                            container has"
                    );
                }
                Ok(())
            }
        }
    }
}

/// Memory of a pack's weights. The runtime repacks weights for the CPU's kernels, and keeps some of
/// the originals.
fn weights(pack: &Pack) -> u64 {
    pack.weight_bytes() * 13 / 10
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pack, generator, cache, uploads, pixels, answers, imports } = self;
        let parts = [
            ("pack and program", pack),
            ("generator", generator),
            ("cached features", cache),
            ("uploads", uploads),
            ("pixels", pixels),
            ("cached responses", answers),
            ("imports", imports),
        ];
        for (at, (part, bytes)) in parts.into_iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{part} {}", bytes.div_ceil(MIB))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> Pack {
        Pack::open(concat!(env!("CARGO_MANIFEST_DIR"), "/packs/demo")).unwrap()
    }

    #[test]
    fn a_limit_below_the_needs_is_refused_with_a_breakdown() {
        let (mut config, pack) = (Config::load(None).unwrap(), demo());
        config.limits.memory_mib = 1024;
        let needs = Needs::of(&config, &pack);
        assert_eq!((needs.cache, needs.uploads, needs.pixels), (256 * MIB, 1536 * MIB, 1024 * MIB));
        assert!(needs.pack > PROGRAM && needs.pack < 300 * MIB, "{needs}");
        let error = needs.check(&config, &pack).unwrap_err().to_string();
        for part in [
            "limits.memory_mib = 1024",
            "demo",
            "cached features 256",
            "uploads 1536",
            "pixels 1024",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        config.limits.memory_mib = needs.total().div_ceil(MIB);
        assert_eq!(Needs::of(&config, &pack).check(&config, &pack), Ok(()));
        config.limits.memory_mib -= 1;
        assert!(needs.check(&config, &pack).is_err());
    }

    #[test]
    fn files_that_graphs_share_count_once() {
        let mut pack = demo();
        let before = pack.weight_bytes();
        let again = pack.graphs.clone();
        pack.graphs.extend(again);
        assert_eq!(pack.weight_bytes(), before);
        assert!(before > 0);
    }
}
