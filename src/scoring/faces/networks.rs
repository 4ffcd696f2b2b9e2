//! The three networks of the face cascade: run in their lanes, or computed here with the weights of
//! the lanes' graphs.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::try_join_all;
use tokio::{runtime::Handle, sync::Semaphore};

use crate::{
    blocking::blocking,
    engine::{Engine, EngineError, OnnxGraph, Provider},
    metrics::FeatureSource,
    tensor::{Features, Tensor},
    vision::{
        Image,
        faces::{
            CropNet, Levels, Networks, OUTPUT_SIDE, ProposalNet, Proposals, REFINE_SIDE, Spot,
            Tensors, Unsuited, Verdict,
        },
    },
};

const PROPOSE: &str = FeatureSource::FACE_GRAPHS[0];
const REFINE: &str = FeatureSource::FACE_GRAPHS[1];
const DECIDE: &str = FeatureSource::FACE_GRAPHS[2];

/// The four lanes of the face graphs.
#[derive(Clone)]
pub(super) struct Lanes {
    engine: Arc<Engine>,
    /// Limits the pieces that are pending in the queues.
    room: Arc<Semaphore>,
    left: Arc<AtomicBool>,
}

impl Lanes {
    pub(super) fn new(engine: Arc<Engine>, room: Arc<Semaphore>) -> Self {
        Self { engine, room, left: Arc::default() }
    }

    /// Returns a guard that, on drop, signals to the searching thread that no request waits for its
    /// result any more.
    pub(super) fn leaving(&self) -> Leaving {
        Leaving(Arc::clone(&self.left))
    }

    /// Runs a graph on each item and returns the outputs in the order of the items.
    pub(super) async fn run(
        &self,
        role: &str,
        items: Vec<Tensor>,
    ) -> Result<Vec<Arc<Features>>, EngineError> {
        let one = |item| async {
            let _place = self.room.acquire().await.expect("the semaphore is never closed");
            self.engine.run(role, vec![item]).await
        };
        try_join_all(items.into_iter().map(one)).await
    }
}

/// Signals on drop to the searching thread that no request waits for its result any more.
pub(super) struct Leaving(Arc<AtomicBool>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Networks computed outside of their lanes, where that is faster and gives the same numbers.
#[derive(Debug, Default)]
pub(super) struct OwnNetworks {
    propose: Option<ProposalNet>,
    refine: Option<CropNet>,
    decide: Option<CropNet>,
}

impl OwnNetworks {
    /// Creates the networks, except those whose lane runs on a device.
    pub(super) async fn new(lanes: &Lanes) -> Result<Self, EngineError> {
        let (image, piece) = image_of_noise();
        let size = (piece.width, piece.height);
        let propose = own(
            lanes,
            PROPOSE,
            vec![piece],
            ProposalNet::new,
            move |net| {
                net.propose(&image, &[size], 0.0).remove(0).iter().flat_map(of_spot).collect()
            },
            |features| {
                Some(
                    proposals(features)?.spots(0, 0, 0.0).flat_map(|spot| of_spot(&spot)).collect(),
                )
            },
        );
        Ok(Self {
            propose: propose.await?,
            refine: crop_net(lanes, REFINE, REFINE_SIDE, CropNet::refine, refined).await?,
            decide: crop_net(lanes, DECIDE, OUTPUT_SIDE, CropNet::decide, decided).await?,
        })
    }
}

/// Creates a network that judges crops.
async fn crop_net(
    lanes: &Lanes,
    role: &'static str,
    side: u32,
    make: fn(&OnnxGraph) -> Result<CropNet, Unsuited>,
    read: fn(&Features) -> Option<Verdict>,
) -> Result<Option<CropNet>, EngineError> {
    let crops: Vec<Levels> = (0..PROBES).map(|seed| noise(side, side, seed)).collect();
    let judged = crops.clone();
    let judge = move |net: &CropNet| net.judge(&judged).iter().flat_map(of_verdict).collect();
    let read = |features: &Features| Some(of_verdict(&read(features)?).collect());
    own(lanes, role, crops, make, judge, read).await
}

/// Creates a network with the weights of a lane's graph that runs outside of the lane. Returns
/// `None` if the lane is not on the CPU, if the graph or the CPU is unsuitable, or if the outputs
/// for pieces of noise differ from the graph's.
async fn own<N: Send + 'static>(
    lanes: &Lanes,
    role: &'static str,
    pieces: Vec<Levels>,
    make: fn(&OnnxGraph) -> Result<N, Unsuited>,
    compute: impl FnOnce(&N) -> Vec<f32> + Send + 'static,
    read: impl Fn(&Features) -> Option<Vec<f32>>,
) -> Result<Option<N>, EngineError> {
    let Some(graph) = lanes.engine.graph(role) else { return Ok(None) };
    if lanes.engine.provider_of(role) != Some(Provider::Cpu) {
        return Ok(None);
    }
    let file = graph.file().to_owned();
    let made = blocking(move || {
        let net = make(&OnnxGraph::read(&file)?).map_err(|unsuited| unsuited.to_string())?;
        let computed = compute(&net);
        Ok::<_, String>((net, computed))
    });
    let (net, computed) = match made.await {
        Ok(made) => made,
        Err(reason) => {
            tracing::info!(role, %reason, "network unavailable outside of its lane, using the \
                slower graph");
            return Ok(None);
        }
    };
    let outputs = lanes.run(role, pieces.into_iter().map(levels).collect()).await?;
    let expected: Vec<f32> =
        outputs.iter().filter_map(|features| read(features)).flatten().collect();
    let near = |(a, b): (&f32, &f32)| (a - b).abs() < PROBE_TOLERANCE;
    if computed.len() == expected.len() && computed.iter().zip(&expected).all(near) {
        return Ok(Some(net));
    }
    tracing::warn!(role, "network disagrees with its graph on this CPU, using the slower graph");
    Ok(None)
}

/// Largest allowed difference of probabilities, corrections and landmarks from the graph's.
const PROBE_TOLERANCE: f32 = 1e-4;
/// Number of crops to compare: more than a network judges at once.
const PROBES: u32 = 7;

fn of_spot(spot: &Spot) -> impl Iterator<Item = f32> + use<> {
    let Spot { x, y, probability, correction } = *spot;
    [x as f32, y as f32, probability].into_iter().chain(correction)
}

fn of_verdict(verdict: &Verdict) -> impl Iterator<Item = f32> + use<> {
    let Verdict { probability, correction, landmarks } = *verdict;
    std::iter::once(probability).chain(correction).chain(landmarks)
}

/// Returns a pseudo-random level between 0 and 255 for each place of a piece and channel.
fn noise_at(place: u32, seed: u32) -> u8 {
    let mixed = (place + 1).wrapping_mul(0x9E37_79B9).wrapping_add(seed.wrapping_mul(0x85EB_CA6B));
    (mixed ^ mixed >> 15).to_le_bytes()[1]
}

fn noise(width: u32, height: u32, seed: u32) -> Levels {
    let data = (0..3 * width * height).map(|place| f32::from(noise_at(place, seed))).collect();
    Levels { height, width, data }
}

/// Returns an image and a piece of noise that is its level of half the size.
fn image_of_noise() -> (Image, Levels) {
    const SIDES: [u32; 2] = [67, 45];
    let [width, height] = SIDES;
    let places = (0..2 * height).flat_map(|y| (0..2 * width).map(move |x| y / 2 * width + x / 2));
    let pixels =
        places.flat_map(|place| (0..3).map(move |channel| noise_at(3 * place + channel, 0)));
    (Image::new(2 * width, 2 * height, pixels.collect()), noise(width, height, 0))
}

impl Tensors for OnnxGraph {
    fn operators(&self) -> Vec<&str> {
        self.operators().collect()
    }

    fn tensor(&self, name: &str) -> Option<(&[usize], &[f32])> {
        self.constant(name)
    }
}

/// The networks for the thread that cuts the pieces. The thread blocks while the lanes run them.
pub(super) struct Blocking {
    lanes: Lanes,
    runtime: Handle,
    own: Arc<OwnNetworks>,
}

impl Blocking {
    /// Must be called inside the runtime; the result is used outside of it.
    pub(super) fn new(lanes: Lanes, own: Arc<OwnNetworks>) -> Self {
        Self { lanes, runtime: Handle::current(), own }
    }

    fn run<T>(
        &self,
        role: &'static str,
        pieces: Vec<Levels>,
        read: impl Fn(&Features) -> Option<T>,
    ) -> Result<Vec<T>, EngineError> {
        self.still_wanted()?;
        let results = self
            .runtime
            .block_on(self.lanes.run(role, pieces.into_iter().map(levels).collect()))?;
        let outputs = || {
            EngineError::Prepare(Arc::new(UnexpectedOutputs(role)) as Arc<dyn Error + Send + Sync>)
        };
        results.iter().map(|features| read(features).ok_or_else(outputs)).collect()
    }

    /// Judges crops by the network itself if there is one, else in its lane.
    fn judge(
        &self,
        own: Option<&CropNet>,
        role: &'static str,
        crops: Vec<Levels>,
        read: fn(&Features) -> Option<Verdict>,
    ) -> Result<Vec<Verdict>, EngineError> {
        match own {
            Some(net) => self.still_wanted().map(|()| net.judge(&crops)),
            None => self.run(role, crops, read),
        }
    }

    fn still_wanted(&self) -> Result<(), EngineError> {
        if self.lanes.left.load(Ordering::Relaxed) { Err(EngineError::Stopping) } else { Ok(()) }
    }
}

/// Error for a pack whose face graphs lack the outputs that the cascade needs.
#[derive(Debug, thiserror::Error)]
#[error("graph {0} lacks prob, reg or landmarks in the exporter's layout: export the pack again")]
struct UnexpectedOutputs(&'static str);

impl Networks for Blocking {
    type Error = EngineError;

    fn spots(
        &self,
        image: &Image,
        levels: &[(u32, u32)],
        threshold: f32,
    ) -> Option<Result<Vec<Vec<Spot>>, EngineError>> {
        let net = self.own.propose.as_ref()?;
        Some(self.still_wanted().map(|()| net.propose(image, levels, threshold)))
    }

    fn propose(&self, pieces: Vec<Levels>) -> Result<Vec<Proposals>, EngineError> {
        self.run(PROPOSE, pieces, proposals)
    }

    fn refine(&self, crops: Vec<Levels>) -> Result<Vec<Verdict>, EngineError> {
        self.judge(self.own.refine.as_ref(), REFINE, crops, refined)
    }

    fn decide(&self, crops: Vec<Levels>) -> Result<Vec<Verdict>, EngineError> {
        self.judge(self.own.decide.as_ref(), DECIDE, crops, decided)
    }
}

fn proposals(features: &Features) -> Option<Proposals> {
    let (probability, correction) = (features.get("prob")?, features.get("reg")?);
    let fits = correction.data.len() == 4 * probability.data.len();
    fits.then_some(())?;
    Some(Proposals {
        columns: *probability.shape.get(1)?,
        probability: probability.data.clone(),
        correction: correction.data.clone(),
    })
}

/// Reads the verdict of R-Net's graph on a crop.
fn refined(features: &Features) -> Option<Verdict> {
    verdict(features, [0.0; 10])
}

/// Reads the verdict of O-Net's graph on a crop.
fn decided(features: &Features) -> Option<Verdict> {
    verdict(features, features.get("landmarks")?.data.as_slice().try_into().ok()?)
}

fn verdict(features: &Features, landmarks: [f32; 10]) -> Option<Verdict> {
    let correction = features.get("reg")?.data.as_slice().try_into().ok()?;
    Some(Verdict { probability: *features.get("prob")?.data.first()?, correction, landmarks })
}

fn levels(piece: Levels) -> Tensor {
    Tensor::F32 {
        shape: vec![piece.height as usize, piece.width as usize, 3],
        data: piece.data.into(),
    }
}
