//! Decoding and resizing for a request: one decode a picture, one resize a geometry.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OnceCell, Semaphore};

use super::Picture;
use crate::{
    blocking::blocking,
    tensor::Tensor,
    vision::{self, DecodeError, DecodeLimits, Geometry, Image, Prepared},
};

/// Decodes pictures on the blocking pool, a bounded number at once: a decoded photo is ten times its file.
#[derive(Debug)]
pub(super) struct Decoder {
    limits: DecodeLimits,
    permits: Arc<Semaphore>,
}

impl Decoder {
    pub(super) fn new(limits: DecodeLimits) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { limits, permits: Arc::new(Semaphore::new(cores)) }
    }

    pub(super) fn limits(&self) -> &DecodeLimits {
        &self.limits
    }

    /// A picture of a request and every geometry in which its graphs may want it; `keep` if it will be asked
    /// for as a whole.
    pub(super) fn job(&self, picture: &Picture, geometries: Vec<Geometry>, keep: bool) -> Arc<PictureJob> {
        Arc::new(PictureJob {
            picture: picture.clone(),
            geometries,
            limits: self.limits,
            permits: Arc::clone(&self.permits),
            tensors: OnceCell::new(),
            keep,
            whole: Mutex::new(None),
        })
    }
}

/// A picture that is decoded at most once, when the first of its features is not in the cache.
#[derive(Debug)]
pub(super) struct PictureJob {
    picture: Picture,
    geometries: Vec<Geometry>,
    limits: DecodeLimits,
    permits: Arc<Semaphore>,
    tensors: OnceCell<Result<HashMap<Geometry, Tensor>, DecodeError>>,
    keep: bool,
    /// The decoded picture, from when it was decoded until it is asked for.
    whole: Mutex<Option<Arc<Image>>>,
}

impl PictureJob {
    /// The picture in one of the job's geometries, as the graphs take it.
    pub(super) async fn tensor(self: Arc<Self>, geometry: Geometry) -> Result<Vec<Tensor>, DecodeError> {
        let tensors = self.tensors.get_or_init(|| self.prepare()).await;
        tensors.as_ref().map(|tensors| vec![tensors[&geometry].clone()]).map_err(Clone::clone)
    }

    /// The decoded picture, which the job keeps no longer.
    pub(super) async fn image(self: Arc<Self>) -> Result<Arc<Image>, DecodeError> {
        self.tensors.get_or_init(|| self.prepare()).await.as_ref().map_err(Clone::clone)?;
        let kept = self.whole.lock().unwrap_or_else(PoisonError::into_inner).take();
        match kept {
            Some(image) => Ok(image),
            None => self.decode(Vec::new()).await.map(|(image, _)| image),
        }
    }

    /// All geometries at once, so that a picture that no one wants as a whole is dropped before any model runs.
    async fn prepare(&self) -> Result<HashMap<Geometry, Tensor>, DecodeError> {
        let (image, tensors) = self.decode(self.geometries.clone()).await?;
        if self.keep {
            *self.whole.lock().unwrap_or_else(PoisonError::into_inner) = Some(image);
        }
        Ok(tensors)
    }

    async fn decode(
        &self,
        geometries: Vec<Geometry>,
    ) -> Result<(Arc<Image>, HashMap<Geometry, Tensor>), DecodeError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        let (bytes, limits) = (self.picture.bytes.clone(), self.limits);
        let work = move || {
            // Held by the work itself, which goes on when the client leaves.
            let _permit = permit;
            let picture = vision::decode(&bytes, &limits)?;
            let prepared = |geometry: Geometry| (geometry, tensor(geometry.apply(&picture)));
            let tensors = geometries.into_iter().map(prepared).collect();
            Ok((Arc::new(picture), tensors))
        };
        blocking(work).await
    }
}

fn tensor(prepared: Prepared) -> Tensor {
    match prepared {
        Prepared::U8 { height, width, data } => {
            Tensor::U8 { shape: vec![height as usize, width as usize, 3], data: data.into() }
        }
        Prepared::F32 { height, width, data } => {
            Tensor::F32 { shape: vec![height as usize, width as usize, 3], data: data.into() }
        }
    }
}
