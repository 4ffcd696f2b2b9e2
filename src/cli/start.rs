//! Opens what commands without a server need: the store, and a pack with its engine.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;

use crate::{
    config::Config,
    engine::{Engine, EngineTelemetry, Pack, ProviderChoice, pack::generator_roles as roles},
    generation::{GenerationError, Generator, engine_config},
    memory::Needs,
    scoring::Scoring,
    store::{Store, StoreOptions},
    telemetry::Telemetry,
};

pub(super) async fn open_store(config: &Config) -> anyhow::Result<Store> {
    open_store_with(config, StoreOptions::default()).await
}

/// Opens the store of the service, which has service metrics.
pub(super) async fn open_observed_store(
    config: &Config,
    telemetry: &Telemetry,
) -> anyhow::Result<Store> {
    let writers = config.dispatch.is_nats().then_some(1);
    let telemetry = telemetry.store.clone();
    let options = StoreOptions { writers, telemetry, ..StoreOptions::default() };
    open_store_with(config, options).await
}

async fn open_store_with(config: &Config, options: StoreOptions) -> anyhow::Result<Store> {
    let options = StoreOptions { connections: config.store.connections, ..options };
    Store::open(&config.store.url, &options).await.context("cannot open the store")
}

/// Opens a pack and starts its engine. Loading full-size models takes seconds.
pub(super) async fn start_scoring(
    config: &Config,
    pack: &Path,
    telemetry: &Telemetry,
) -> anyhow::Result<Arc<Scoring>> {
    start_scoring_with(config, (pack, Graphs::Here), telemetry, || ()).await
}

/// Where the graphs of a pack are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Graphs {
    /// In this process.
    Here,
    /// In workers.
    Elsewhere,
}

/// Like [`start_scoring`]; calls `opened` between verifying the pack and loading its graphs, if
/// they are to be loaded.
pub(super) async fn start_scoring_with(
    config: &Config,
    (pack, graphs): (&Path, Graphs),
    telemetry: &Telemetry,
    opened: impl FnOnce() + Send + 'static,
) -> anyhow::Result<Arc<Scoring>> {
    let (settings, telemetry, dir) = (config.clone(), telemetry.engine.clone(), pack.to_owned());
    let (engine, pack) = tokio::task::spawn_blocking(move || {
        let mut pack = Pack::open(&dir)?;
        opened();
        let is_simulated = settings.engine.provider == ProviderChoice::Simulated;
        if is_simulated {
            pack.simulate();
        }
        let engine = match graphs {
            Graphs::Elsewhere => Engine::elsewhere(&pack, &settings.engine, &telemetry)?,
            Graphs::Here if is_simulated => Engine::simulated(&pack, &settings.engine, &telemetry)?,
            Graphs::Here => {
                Needs::of(&settings, &pack).check(&settings, &pack)?;
                Engine::start(&pack, &settings.engine, &telemetry)?
            }
        };
        anyhow::Ok((engine, Arc::new(pack)))
    })
    .await
    .context("starting the engine panicked")??;
    let scoring = Scoring::new(engine, pack, config.limits.decode(), config.limits.pixel_bytes())?;
    scoring.show_embeddings(config.privacy.return_embeddings);
    Ok(Arc::new(scoring))
}

/// Opens a generator pack and starts the one graph of it that finds the person of a photo.
pub(super) async fn start_masks(
    config: &Config,
    pack: &Path,
    telemetry: EngineTelemetry,
) -> anyhow::Result<Arc<Generator>> {
    let (settings, dir) = (config.clone(), pack.to_owned());
    let generator = tokio::task::spawn_blocking(move || {
        let pack = Arc::new(Pack::open(&dir)?);
        let mut alone = Pack::clone(&pack);
        alone.graphs.retain(|graph| graph.role == roles::MASK);
        anyhow::ensure!(!alone.graphs.is_empty(), GenerationError::NoMasks);
        Needs::of(&settings, &alone).check(&settings, &alone)?;
        let engine = Engine::start(&alone, &settings.engine, &telemetry)?;
        anyhow::Ok(Generator::new(engine, pack, settings.limits.decode())?)
    });
    generator.await.context("starting the engine panicked")?.map(Arc::new)
}

/// Opens a generator pack and starts its engine, alone or beside the pack that scores. Loading
/// full-size models takes seconds.
pub(super) async fn start_generator(
    config: &Config,
    pack: &Path,
    beside: Option<&Arc<Scoring>>,
    telemetry: EngineTelemetry,
) -> anyhow::Result<Arc<Generator>> {
    let (settings, dir, beside) = (config.clone(), pack.to_owned(), beside.cloned());
    let generator = tokio::task::spawn_blocking(move || {
        let pack = Arc::new(Pack::open(&dir)?);
        if pack.generator.is_none() {
            // Before its graphs are loaded, which may take a minute.
            return Err(GenerationError::NoGenerator { pack: pack.name.clone() }.into());
        }
        match &beside {
            None => Needs::of(&settings, &pack).check(&settings, &pack)?,
            Some(scoring) => {
                let needs = Needs::of(&settings, scoring.pack()).with_generator(&settings, &pack);
                needs.check(&settings, &pack)?;
            }
        }
        let engine = Engine::start(
            &pack,
            &engine_config(&settings.engine, settings.generator.max_batch),
            &telemetry,
        )?;
        let generator = Generator::new(engine, pack, settings.limits.decode())?;
        anyhow::Ok(match beside {
            None => generator,
            Some(scoring) => generator.with_decode_budget(scoring.decode_budget()),
        })
    });
    generator.await.context("starting the engine panicked")?.map(Arc::new)
}
