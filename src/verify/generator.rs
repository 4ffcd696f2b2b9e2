//! Parity of a generator pack: images of diffusers, from its noise and from ours.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::npy;
use crate::VERSION;
use crate::engine::{LaneStatus, Pack, pack::generator_roles as roles};
use crate::generation::{Generator, Person, Picture, Request, Settings, Subject};
use crate::vision::{self, DecodeLimits};

/// Golden samples of a generator pack.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorGoldens {
    /// Version of this layout.
    schema: u32,
    /// Always `generator`.
    kind: String,
    /// The programs that generated the images.
    pub reference: String,
    /// Largest differences allowed.
    pub tolerance: Tolerance,
    /// Requests and their images.
    pub samples: Vec<GoldenImage>,
}

/// Largest differences allowed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// Largest difference of a latent.
    pub latents: f32,
    /// Smallest share of equal bytes.
    pub bytes: f64,
}

/// A golden image; paths are relative to the pack.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenImage {
    /// Name, for messages.
    pub name: String,
    prompt: String,
    negative_prompt: Option<String>,
    photo: Option<PathBuf>,
    mask: Option<PathBuf>,
    seed: u64,
    steps: usize,
    guidance: f32,
    width: usize,
    height: usize,
    noise: PathBuf,
    latents: PathBuf,
    image: PathBuf,
}

/// Result of comparing a generator pack with its golden images.
#[derive(Debug, Serialize)]
pub struct GeneratorCertificate {
    /// Whether every image is within the tolerance, from either noise, alone and concurrently.
    pub passed: bool,
    /// The programs that generated the expected images.
    pub reference: String,
    /// Digest of the pack.
    pub pack_digest: String,
    /// Version of the service.
    pub service_version: &'static str,
    /// Largest differences allowed.
    pub tolerance: Tolerance,
    /// Mean batch of the denoiser while the images were generated concurrently.
    pub mean_batch: f64,
    /// Results by image.
    pub images: Vec<ImageParity>,
}

/// One image's comparison.
#[derive(Debug, Serialize)]
pub struct ImageParity {
    /// Name of the golden image.
    pub image: String,
    /// Largest difference of a latent, from the reference's noise.
    pub latents: f32,
    /// Share of equal bytes, from the reference's noise.
    pub bytes: f64,
    /// Largest difference of a latent, from the noise of the seed.
    pub seed_latents: f32,
    /// Share of equal bytes, from the noise of the seed.
    pub seed_bytes: f64,
    /// Whether the image is the same to the bit if it is generated alone and together with others.
    pub batch_independent: bool,
    /// Whether all of this is within the tolerance.
    pub passed: bool,
}

/// What a golden image is compared with.
struct Expected {
    noise: Vec<f32>,
    latents: Vec<f32>,
    pixels: Vec<u8>,
}

impl GeneratorGoldens {
    /// Reads the golden images listed in the pack's manifest.
    ///
    /// # Errors
    /// A pack without golden images, or a file with another layout.
    pub fn read(pack: &Pack) -> anyhow::Result<Self> {
        let goldens = pack.goldens.as_ref().with_context(|| {
            format!("the pack {} has no golden images: export it again with them", pack.name)
        })?;
        let path = goldens.file.display();
        let text =
            crate::read::text(&goldens.file).with_context(|| format!("cannot read {path}"))?;
        let read: Self = serde_json::from_str(&text)
            .with_context(|| format!("{path} is not a file of golden images"))?;
        anyhow::ensure!(
            read.schema == 1 && read.kind == "generator",
            "{path} has kind {} and schema {}: this version reads kind generator, schema 1",
            read.kind,
            read.schema
        );
        anyhow::ensure!(!read.samples.is_empty(), "{path} has no samples");
        Ok(read)
    }
}

impl GoldenImage {
    fn request(&self, dir: &Path) -> anyhow::Result<Request> {
        let file = |path: &PathBuf| file(&dir.join(path)).map(Bytes::from);
        let person = match &self.photo {
            None => None,
            Some(photo) => {
                let mask = self.mask.as_ref().map(file).transpose()?;
                Some(Person::Photo(Subject { photo: file(photo)?, mask }))
            }
        };
        let Self { seed, steps, guidance, width, height, .. } = *self;
        Ok(Request {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            person,
            settings: Settings { seed, steps, guidance, width, height },
        })
    }

    fn expected(&self, dir: &Path) -> anyhow::Result<Expected> {
        let array = |path: &Path| {
            let path = dir.join(path);
            let read = npy::read(&file(&path)?).map_err(anyhow::Error::msg);
            read.map(|(_, values)| values).with_context(|| format!("cannot use {}", path.display()))
        };
        let image = dir.join(&self.image);
        let pixels = vision::decode(&file(&image)?, &DecodeLimits::default())
            .with_context(|| format!("cannot use {}", image.display()))?
            .pixels;
        Ok(Expected { noise: array(&self.noise)?, latents: array(&self.latents)?, pixels })
    }
}

fn file(path: &Path) -> anyhow::Result<Vec<u8>> {
    crate::read::bytes(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Generates all golden images from the reference's noise and from that of the seed, one by one and
/// then concurrently, and compares them.
///
/// # Errors
/// A file cannot be read, or an image cannot be generated.
pub async fn certify_generator(
    generator: &Generator,
    goldens: &GeneratorGoldens,
    compared: impl Fn(),
) -> anyhow::Result<GeneratorCertificate> {
    let dir = &generator.pack().dir;
    let mut alone = Vec::new();
    for golden in &goldens.samples {
        let request = golden.request(dir)?;
        let expected = golden.expected(dir)?;
        let failed = || format!("golden image {}", golden.name);
        let noise = expected.noise.clone();
        let given = generator.generate_from(&request, noise, |_| ()).await.with_context(failed)?;
        let own = generator.generate(&request, |_| ()).await.with_context(failed)?;
        compared();
        alone.push((golden, request, expected, given, own));
    }
    let before = denoised(generator);
    let together = alone.iter().map(|(.., request, _, _, _)| generator.generate(request, |_| ()));
    let together = try_join_all(together).await.context("generating all golden images at once")?;
    let after = denoised(generator);
    let images: Vec<_> = alone
        .iter()
        .zip(&together)
        .map(|((golden, _, expected, given, own), together)| {
            parity(&golden.name, goldens.tolerance, expected, [given, own, together])
        })
        .collect();
    Ok(GeneratorCertificate {
        passed: images.iter().all(|image| image.passed),
        reference: goldens.reference.clone(),
        pack_digest: generator.pack().digest.to_string(),
        service_version: VERSION,
        tolerance: goldens.tolerance,
        mean_batch: (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64,
        images,
    })
}

fn parity(
    name: &str,
    tolerance: Tolerance,
    expected: &Expected,
    [given, own, together]: [&Picture; 3],
) -> ImageParity {
    let (latents, bytes) = differences(expected, given);
    let (seed_latents, seed_bytes) = differences(expected, own);
    let batch_independent = own == together;
    ImageParity {
        image: name.to_owned(),
        latents,
        bytes,
        seed_latents,
        seed_bytes,
        batch_independent,
        passed: latents.max(seed_latents) <= tolerance.latents
            && bytes.min(seed_bytes) >= tolerance.bytes
            && batch_independent,
    }
}

/// Returns the largest difference of a latent and the share of equal bytes. Of other sizes, nothing
/// is equal.
fn differences(expected: &Expected, found: &Picture) -> (f32, f64) {
    if expected.latents.len() != found.latents.len() || expected.pixels.len() != found.pixels.len()
    {
        return (f32::INFINITY, 0.0);
    }
    let latents = expected.latents.iter().zip(&found.latents);
    // `f32::max` passes over NaN, which equals nothing.
    let difference = |(a, b): (&f32, &f32)| match (a - b).abs() {
        difference if difference.is_finite() => difference,
        _ => f32::INFINITY,
    };
    let largest = latents.map(difference).fold(0.0, f32::max);
    let equal = expected.pixels.iter().zip(&found.pixels).filter(|(a, b)| a == b).count();
    (largest, equal as f64 / found.pixels.len() as f64)
}

/// Returns the items and batches of the denoiser since the start.
fn denoised(generator: &Generator) -> (u64, u64) {
    let is_it = |lane: &LaneStatus| lane.roles.iter().any(|role| role == roles::DENOISER);
    let lane = generator.engine().status().into_iter().find(is_it);
    lane.map_or((0, 0), |lane| (lane.items, lane.batches))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn picture(latents: Vec<f32>, pixels: Vec<u8>) -> Picture {
        Picture { width: 1, height: 1, pixels, latents, flags: BTreeSet::new() }
    }

    #[test]
    fn an_image_passes_only_within_all_tolerances() {
        let expected = Expected { noise: vec![], latents: vec![1.0], pixels: vec![1, 2, 3] };
        let tolerance = Tolerance { latents: 1e-4, bytes: 0.999 };
        let right = picture(vec![1.00001], vec![1, 2, 3]);
        let passes = |three: [&Picture; 3]| parity("x", tolerance, &expected, three).passed;
        assert!(passes([&right, &right, &right]));
        let far = picture(vec![1.1], vec![1, 2, 3]);
        let other = picture(vec![1.00001], vec![1, 2, 4]);
        let larger = picture(vec![1.00001; 2], vec![1, 2, 3]);
        for wrong in [&far, &other, &larger] {
            assert!(!passes([wrong, &right, &right]));
            assert!(!passes([&right, wrong, wrong]));
            assert!(!passes([&right, &right, wrong]), "it depends on its neighbours");
        }
    }
}
