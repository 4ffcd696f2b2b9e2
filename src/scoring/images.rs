//! Decoding and resizing for a request: one decode per image and one resize per geometry, within a
//! budget of pixel memory.
//!
//! A decoded image takes ten times the memory of its file and more. Every decode first acquires its
//! memory from one budget, which gets it back when the pixels are dropped. A job acquires memory
//! once for one decode and its results. While it holds that memory, it waits for nothing that
//! itself waits for the budget, so the budget cannot deadlock.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tracing::Instrument as _;

use super::EncodedImage;
use crate::{
    blocking::blocking,
    sync::lock,
    tensor::Tensor,
    trace::span,
    vision::{self, DecodeError, DecodeLimits, Geometry, Image},
};

tokio::task_local! {
    /// Set in tasks whose result no client waits for.
    static BACKGROUND: ();
}

/// Runs work whose result no client waits for. Its images yield to those of requests.
pub async fn in_background<F: Future>(work: F) -> F::Output {
    BACKGROUND.scope((), work).await
}

/// Time after a request during which background work leaves one core to the next request.
const AFTER_A_REQUEST: Duration = Duration::from_secs(10);

/// Turns of work that occupies a core for a while. Background work first queues for its own turns,
/// as many as there are cores, so that a request never waits behind all pending background work.
/// While requests arrive, it gets one turn less.
#[derive(Debug)]
pub(super) struct Turns {
    cores: usize,
    all: Arc<Semaphore>,
    background: Arc<Semaphore>,
    during_requests: Arc<Semaphore>,
    started: Instant,
    /// Time of the last request in milliseconds after the start; 0 if there was none.
    last_request: AtomicU64,
}

/// A turn, released on drop.
#[derive(Debug)]
pub(super) struct Turn {
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new() -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            cores,
            all: Arc::new(Semaphore::new(cores)),
            background: Arc::new(Semaphore::new(cores)),
            during_requests: Arc::new(Semaphore::new((cores - 1).max(1))),
            started: Instant::now(),
            last_request: AtomicU64::new(0),
        })
    }

    /// Returns the number of turns that exist.
    pub(super) fn cores(&self) -> usize {
        self.cores
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 + 1
    }

    pub(super) async fn take(&self, background: bool) -> Turn {
        let mut permits = Vec::with_capacity(3);
        if background {
            permits.push(acquire(&self.background, 1).await);
            let last = self.last_request.load(Ordering::Relaxed);
            if last > 0 && self.now() - last < AFTER_A_REQUEST.as_millis() as u64 {
                permits.push(acquire(&self.during_requests, 1).await);
            }
        } else {
            self.last_request.store(self.now(), Ordering::Relaxed);
        }
        permits.push(acquire(&self.all, 1).await);
        Turn { _permits: permits }
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, permits: u32) -> OwnedSemaphorePermit {
    Arc::clone(semaphore).acquire_many_owned(permits).await.expect("the semaphore is never closed")
}

/// Memory for pixels, counted in KiB.
#[derive(Debug)]
struct Budget {
    all: Arc<Semaphore>,
    /// The part that decoded images may occupy while their face search is pending. The rest is
    /// always available for decoding.
    held: Arc<Semaphore>,
    total: u32,
    most_held: u32,
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl Budget {
    fn new(bytes: u64) -> Self {
        let total = kib(bytes).max(1);
        let held = total / 4;
        let semaphore = |kib: u32| Arc::new(Semaphore::new(kib as usize));
        Self {
            all: semaphore(total - held),
            held: semaphore(held),
            total: total - held,
            most_held: held,
        }
    }

    /// Waits for free memory. An image larger than the whole budget acquires all of it: the limits
    /// of one file already bound its size.
    async fn take(&self, bytes: u64) -> OwnedSemaphorePermit {
        acquire(&self.all, kib(bytes).min(self.total)).await
    }

    fn used(&self) -> u64 {
        let free = self.all.available_permits() + self.held.available_permits();
        self.limit().saturating_sub(1024 * free as u64)
    }

    fn limit(&self) -> u64 {
        1024 * (u64::from(self.total) + u64::from(self.most_held))
    }
}

/// Decodes images on the blocking pool, with bounded concurrency and memory.
#[derive(Debug)]
pub(super) struct Decoder {
    limits: DecodeLimits,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    turns: Arc<Turns>,
    budget: Budget,
}

/// Turns and memory for decoding, shared by all that decode images of clients.
#[derive(Debug, Clone)]
pub struct DecodeBudget(Arc<Shared>);

/// A turn and memory for one decode, released on drop.
#[derive(Debug)]
pub struct DecodePermit {
    _turn: Turn,
    _memory: OwnedSemaphorePermit,
}

impl DecodeBudget {
    /// Creates a budget of its own, for what runs without a service.
    #[must_use]
    pub fn new(pixel_bytes: u64) -> Self {
        Self(Arc::new(Shared { turns: Turns::new(), budget: Budget::new(pixel_bytes) }))
    }

    /// Waits for a turn and for so many bytes. Hold the permit in the decode itself, which goes on
    /// if the client disconnects.
    pub async fn take(&self, bytes: u64) -> DecodePermit {
        let turn = self.0.turns.take(false).await;
        DecodePermit { _turn: turn, _memory: self.0.budget.take(bytes).await }
    }
}

impl Decoder {
    /// Creates a decoder that holds at most `pixel_bytes` bytes of pixels.
    pub(super) fn new(limits: DecodeLimits, pixel_bytes: u64) -> Self {
        Self {
            limits,
            shared: Arc::new(Shared { turns: Turns::new(), budget: Budget::new(pixel_bytes) }),
        }
    }

    pub(super) fn limits(&self) -> &DecodeLimits {
        &self.limits
    }

    /// Returns the turns and the memory of this decoder.
    pub(super) fn budget(&self) -> DecodeBudget {
        DecodeBudget(Arc::clone(&self.shared))
    }

    /// Bytes of pixels that are decoded or being decoded.
    pub(super) fn pixel_bytes(&self) -> u64 {
        self.shared.budget.used()
    }

    /// Limit of `pixel_bytes`.
    pub(super) fn pixel_limit_bytes(&self) -> u64 {
        self.shared.budget.limit()
    }

    /// Creates the job for an image and every geometry that its graphs may need. Set `keep` if the
    /// whole image will be needed too.
    pub(super) fn job(
        &self,
        image: &EncodedImage,
        geometries: Vec<Geometry>,
        keep: bool,
    ) -> Arc<ImageJob> {
        Arc::new(ImageJob {
            file: image.clone(),
            geometries,
            limits: self.limits,
            shared: Arc::clone(&self.shared),
            background: BACKGROUND.try_with(|()| ()).is_ok(),
            tensors: OnceCell::new(),
            keep,
            whole: Mutex::new(None),
        })
    }
}

/// A decoded image and its share of the memory budget.
#[derive(Debug)]
pub(super) struct Pixels {
    image: Image,
    _memory: OwnedSemaphorePermit,
}

impl Deref for Pixels {
    type Target = Image;

    fn deref(&self) -> &Image {
        &self.image
    }
}

/// An image that is decoded at the first cache miss of its features, and at most once. A face
/// search decodes it again if its pixels could not be held until then.
#[derive(Debug)]
pub(super) struct ImageJob {
    file: EncodedImage,
    geometries: Vec<Geometry>,
    limits: DecodeLimits,
    shared: Arc<Shared>,
    background: bool,
    tensors: OnceCell<Result<HashMap<Geometry, Tensor>, DecodeError>>,
    keep: bool,
    /// The decoded image, held from its decode until it is requested.
    whole: Mutex<Option<Pixels>>,
}

impl ImageJob {
    /// Returns true if no client waits for the job.
    pub(super) fn is_background(&self) -> bool {
        self.background
    }

    /// Returns the image in one of the job's geometries, as input of a graph.
    pub(super) async fn tensor(
        self: Arc<Self>,
        geometry: Geometry,
    ) -> Result<Vec<Tensor>, DecodeError> {
        let tensors = self.tensors.get_or_init(|| self.prepare()).await;
        tensors.as_ref().map(|tensors| vec![tensors[&geometry].clone()]).map_err(Clone::clone)
    }

    /// Returns the decoded image, which the job then no longer holds.
    pub(super) async fn image(self: Arc<Self>) -> Result<Pixels, DecodeError> {
        if !self.geometries.is_empty() {
            self.tensors.get_or_init(|| self.prepare()).await.as_ref().map_err(Clone::clone)?;
        }
        let kept = lock(&self.whole).take();
        match kept {
            Some(pixels) => Ok(pixels),
            None => self.decode(Vec::new()).await.map(|(pixels, _)| pixels),
        }
    }

    /// Computes all geometries at once, so that an image that is not needed as a whole is dropped
    /// before any model runs.
    async fn prepare(&self) -> Result<HashMap<Geometry, Tensor>, DecodeError> {
        let (pixels, tensors) = self.decode(self.geometries.clone()).await?;
        if self.keep {
            // Use only the part reserved for this, and only if it has room now: images pending a
            // search must not block the decodes that this search waits for.
            let bytes = u64::from(pixels.width) * u64::from(pixels.height) * 3;
            let held = Arc::clone(&self.shared.budget.held).try_acquire_many_owned(kib(bytes));
            if let Ok(memory) = held {
                let kept = Pixels { image: pixels.image, _memory: memory };
                *lock(&self.whole) = Some(kept);
            }
        }
        Ok(tensors)
    }

    async fn decode(
        &self,
        geometries: Vec<Geometry>,
    ) -> Result<(Pixels, HashMap<Geometry, Tensor>), DecodeError> {
        let span = span!("decode", bytes = self.file.bytes.len(), geometries = geometries.len());
        self.decode_in_turn(geometries).instrument(span).await
    }

    async fn decode_in_turn(
        &self,
        geometries: Vec<Geometry>,
    ) -> Result<(Pixels, HashMap<Geometry, Tensor>), DecodeError> {
        let waiting = span!("decode turn");
        let turn = self.shared.turns.take(self.background).await;
        let memory = self.shared.budget.take(self.file.header.decode_memory).await;
        drop(waiting);
        let (bytes, limits) = (self.file.bytes.clone(), self.limits);
        let work = move || {
            // Held by the work itself, which continues if the client disconnects.
            let _turn = turn;
            let image = vision::decode(&bytes, &limits)?;
            let prepared = |geometry: Geometry| (geometry, Tensor::from(geometry.apply(&image)));
            let tensors = geometries.into_iter().map(prepared).collect();
            Ok((Pixels { image, _memory: memory }, tensors))
        };
        blocking(work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        content::ContentHash,
        vision::{Filter, Format},
    };

    fn png(side: u32) -> EncodedImage {
        use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};
        let mut file = Vec::new();
        let pixels = vec![7; (3 * side * side) as usize];
        PngEncoder::new(&mut file)
            .write_image(&pixels, side, side, ExtendedColorType::Rgb8)
            .unwrap();
        let header = vision::read_header(&file, &DecodeLimits::default()).unwrap();
        assert_eq!(header.format, Format::Png);
        EncodedImage { hash: ContentHash::of(&file), bytes: file.into(), header }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pixels_of_many_images_stay_within_the_budget_and_are_released() {
        let file = png(256);
        let one = file.header.decode_memory;
        let decoder = Decoder::new(DecodeLimits::default(), 8 * one);
        let bound = 8 * one;
        let jobs: Vec<_> = (0..40).map(|_| decoder.job(&file, Vec::new(), true)).collect();
        let most = Arc::new(AtomicU64::new(0));
        let all = jobs.into_iter().map(|job| {
            let (decoder, most) = (&decoder, Arc::clone(&most));
            async move {
                let pixels = job.image().await.unwrap();
                most.fetch_max(decoder.pixel_bytes(), Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                drop(pixels);
            }
        });
        futures_util::future::join_all(all).await;
        let most = most.load(Ordering::SeqCst);
        assert!(most >= one && most <= bound, "{most} bytes of {bound}");
        assert_eq!(decoder.pixel_bytes(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn images_pending_a_face_search_leave_memory_for_decoding() {
        let file = png(128);
        let geometry = Geometry::Exact { height: 8, width: 8, filter: Filter::Bicubic };
        let decoder = Decoder::new(DecodeLimits::default(), 4 * file.header.decode_memory);
        let jobs: Vec<_> = (0..64).map(|_| decoder.job(&file, vec![geometry], true)).collect();
        // All images are decoded, and hold what memory they can, before the first whole image is
        // requested.
        for job in &jobs {
            Arc::clone(job).tensor(geometry).await.unwrap();
        }
        for job in jobs {
            assert_eq!(job.image().await.unwrap().width, 128);
        }
        assert_eq!(decoder.pixel_bytes(), 0);
    }

    #[tokio::test]
    async fn an_image_larger_than_the_budget_is_decoded_alone() {
        let file = png(64);
        let decoder = Decoder::new(DecodeLimits::default(), 1024);
        assert_eq!(decoder.job(&file, Vec::new(), true).image().await.unwrap().width, 64);
    }

    #[tokio::test]
    async fn a_request_gets_its_turn_before_pending_background_work() {
        let turns = Turns::new();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut held = Vec::new();
        for _ in 0..cores {
            held.push(turns.take(true).await);
        }
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let turns = Arc::clone(&turns);
                tokio::spawn(async move {
                    let _turn = turns.take(true).await;
                    tokio::time::sleep(Duration::from_hours(1)).await;
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let request = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { drop(turns.take(false).await) }
        });
        tokio::task::yield_now().await;
        // One running task ends: the request is next, ahead of everything that queued before it.
        held.pop();
        tokio::time::timeout(Duration::from_secs(20), request)
            .await
            .expect("turn granted")
            .unwrap();
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
