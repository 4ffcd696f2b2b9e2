//! Face detection by MTCNN: the cascade around its three networks, equal to facenet-pytorch 2.6.0.
//!
//! ```text
//! pyramid of area-resized levels ── P-Net probability and correction at every second pixel
//!                                ── suppression per level, then over all; corrected, squared
//! crops of 24×24                 ── R-Net > 0.7, suppression, corrected, squared
//! crops of 48×48                 ── O-Net > 0.7, landmarks, corrected, suppression by smaller area
//! faces, largest first
//! ```
//!
//! Zhang et al. 2016, *Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
//! Networks*. Arithmetic that the package does in single precision is in single precision here too,
//! in the same order, because boxes are rounded and compared with thresholds. Two quirks of the
//! package are preserved: crops count pixels from 1, and the first correction uses box sides
//! without the extra pixel that the later corrections add.
//!
//! This module does not fail where the package does. An image whose shorter side is below 20 pixels
//! has no levels and therefore no faces. A box whose crop lies outside the image is dropped. If
//! there are more than [`MAX_CANDIDATES`] boxes, only the most probable ones are processed further.

mod crops;
#[cfg(all(test, target_arch = "x86_64"))]
mod fake_graph;
mod graph;
mod pnet;
#[cfg(target_arch = "x86_64")]
mod registers;
mod suppress;

use stellar_vision::area::resize_area_rows;
use stellar_vision::{Filter, Image, Rect, resize_area, resize_window};

pub use crops::CropNet;
pub use graph::{Tensors, Unsuited};
pub use pnet::{ProposalNet, Spot};
pub use suppress::Corners;

/// Side of the smallest face that is searched for, in pixels.
pub const LEAST_FACE: u32 = 20;
/// Side of the crop that an embedding is computed from, in pixels.
pub const CROP_SIDE: u32 = 160;
/// Maximum number of boxes passed from one network to the next: far more than a crowd has, and a
/// bound for images that consist of texture.
pub const MAX_CANDIDATES: usize = 8192;

/// Side of P-Net's receptive field, in pixels.
const CELL: u32 = 12;
/// Distance from one P-Net position to the next, in pixels.
const STRIDE: u32 = 2;
/// Scale factor from one level of the pyramid to the next.
const FACTOR: f64 = 0.709;
/// Minimum probabilities after P-Net (inclusive), R-Net and O-Net (both exclusive).
const THRESHOLDS: [f32; 3] = [0.6, 0.7, 0.7];
/// Side of a crop for R-Net, in pixels.
pub const REFINE_SIDE: u32 = 24;
/// Side of a crop for O-Net, in pixels.
pub const OUTPUT_SIDE: u32 = 48;
/// Margin around a face in a crop of [`CROP_SIDE`], in pixels of the crop. The reference toolkit
/// intends this number as a threshold, but passes it as a margin.
const MARGIN: f64 = 0.9;
/// P-Net positions per side of a tile. A tile's activations fit into a core's cache, and the
/// overlap is 4 % per side.
const TILE: u32 = 128;

/// A piece of a resized image: `height · width · 3` levels from 0 to 255.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels {
    /// Number of rows.
    pub height: u32,
    /// Number of columns.
    pub width: u32,
    /// Levels, starting with R, G, B of the top left pixel.
    pub data: Vec<f32>,
}

/// P-Net's output for every second pixel of a piece, row by row.
#[derive(Debug, Clone)]
pub struct Proposals {
    /// Positions per row.
    pub columns: usize,
    /// Probability of a face at each position.
    pub probability: Vec<f32>,
    /// Corrections of left, top, right and bottom, in units of the box sides: four maps, one after
    /// the other.
    pub correction: Vec<f32>,
}

/// Output of R-Net or O-Net for a crop.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Probability of a face.
    pub probability: f32,
    /// Corrections of left, top, right and bottom, in units of the box sides.
    pub correction: [f32; 4],
    /// O-Net only: x coordinates and then y coordinates of the five landmarks, in units of the box
    /// sides.
    pub landmarks: [f32; 10],
}

/// The three networks. Each returns one result per piece, in the order of the pieces.
pub trait Networks {
    /// Error of a failed network.
    type Error;
    /// Runs P-Net on whole levels of an image, if there is a faster way than by pieces. Returns the
    /// positions of each level with a probability of at least `threshold`, row by row, or `None` if
    /// there is no faster way.
    fn spots(
        &self,
        image: &Image,
        levels: &[(u32, u32)],
        threshold: f32,
    ) -> Option<Result<Vec<Vec<Spot>>, Self::Error>> {
        let _ = (image, levels, threshold);
        None
    }
    /// Runs P-Net on pieces of at least 12×12.
    fn propose(&self, pieces: Vec<Levels>) -> Result<Vec<Proposals>, Self::Error>;
    /// Runs R-Net on crops of 24×24.
    fn refine(&self, crops: Vec<Levels>) -> Result<Vec<Verdict>, Self::Error>;
    /// Runs O-Net on crops of 48×48.
    fn decide(&self, crops: Vec<Levels>) -> Result<Vec<Verdict>, Self::Error>;
}

/// A face in an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Face {
    /// The box, in pixels of the upright image. It may extend beyond the edges.
    pub corners: Corners,
    /// Probability according to O-Net, above 0.7.
    pub probability: f32,
    /// x and y of the left eye, right eye, nose, left and right corner of the mouth, from the
    /// viewer's perspective.
    pub landmarks: [[f32; 2]; 5],
}

/// A box between two stages of the cascade.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    corners: Corners,
    probability: f32,
    correction: [f32; 4],
}

/// Finds the faces in an image, largest first.
///
/// # Errors
/// The errors of the networks.
pub fn detect<N: Networks>(image: &Image, networks: &N) -> Result<Vec<Face>, N::Error> {
    let mut candidates = Vec::new();
    for found in proposed(image, &scales(image.width, image.height), networks)? {
        candidates.extend(suppressed(&found, 0.5));
    }
    let mut candidates = suppressed(&candidates, 0.7);
    for candidate in &mut candidates {
        candidate.corners = square(corrected(candidate, 0.0));
    }

    let (candidates, crops) = cut(image, candidates, REFINE_SIDE);
    let verdicts = if crops.is_empty() { Vec::new() } else { networks.refine(crops)? };
    let refined: Vec<_> =
        judged(&candidates, &verdicts, THRESHOLDS[1]).map(|(candidate, _)| candidate).collect();
    let mut refined = suppressed(&refined, 0.7);
    for candidate in &mut refined {
        candidate.corners = square(corrected(candidate, 1.0));
    }

    let (candidates, crops) = cut(image, refined, OUTPUT_SIDE);
    let verdicts = if crops.is_empty() { Vec::new() } else { networks.decide(crops)? };
    let mut faces: Vec<Face> = judged(&candidates, &verdicts, THRESHOLDS[2])
        .map(|(candidate, verdict)| Face {
            corners: corrected(&candidate, 1.0),
            probability: candidate.probability,
            landmarks: landmarks(candidate.corners, &verdict.landmarks),
        })
        .collect();
    let boxes: Vec<_> = faces.iter().map(|face| face.corners).collect();
    let probabilities: Vec<_> = faces.iter().map(|face| face.probability).collect();
    let stay = suppress::by_smaller(&boxes, &probabilities, 0.7);
    faces = stay.into_iter().map(|index| faces[index].clone()).collect();
    // Sorted in double precision, ascending and then reversed, as in the package.
    faces.sort_by(|a, b| area(a.corners).total_cmp(&area(b.corners)));
    faces.reverse();
    Ok(faces)
}

/// Returns the image that an embedding is computed from: the box with its margin, cut at whole
/// pixels and resized to [`CROP_SIDE`] with Pillow's bilinear filter. Returns `None` if the box
/// lies outside the image.
#[must_use]
pub fn crop(image: &Image, face: &Face) -> Option<Image> {
    let source = crop_rect(face.corners, image.width, image.height)?;
    let side = u64::from(CROP_SIDE);
    let window = Rect { left: 0, top: 0, width: CROP_SIDE, height: CROP_SIDE };
    Some(resize_window(image, source, (side, side), window, Filter::Bilinear))
}

fn crop_rect(corners: Corners, width: u32, height: u32) -> Option<Rect> {
    let [left, top, right, bottom] = corners.map(f64::from);
    let margin = |from: f64, to: f64| MARGIN * (to - from) / (f64::from(CROP_SIDE) - MARGIN) / 2.0;
    let (x, y) = (margin(left, right), margin(top, bottom));
    let first = |value: f64| value.max(0.0) as u32;
    let end = |value: f64, side: u32| value.min(f64::from(side)).max(0.0) as u32;
    let (left, top) = (first(left - x), first(top - y));
    let (right, bottom) = (end(right + x, width), end(bottom + y, height));
    // Without this check, a NaN corner would have become the image's edge.
    let real = corners.iter().all(|corner| corner.is_finite());
    (real && right > left && bottom > top).then(|| Rect {
        left: left.into(),
        top: top.into(),
        width: right - left,
        height: bottom - top,
    })
}

/// Returns the scale of the image at each level of the pyramid.
fn scales(width: u32, height: u32) -> Vec<f64> {
    let cell = f64::from(CELL);
    let mut scale = cell / f64::from(LEAST_FACE);
    let mut shorter = f64::from(width.min(height)) * scale;
    let mut scales = Vec::new();
    while shorter >= cell {
        scales.push(scale);
        scale *= FACTOR;
        shorter *= FACTOR;
    }
    scales
}

/// Returns every candidate of P-Net for each level, row by row.
fn proposed<N: Networks>(
    image: &Image,
    scales: &[f64],
    networks: &N,
) -> Result<Vec<Vec<Candidate>>, N::Error> {
    let side = |of: u32, scale: f64| (f64::from(of) * scale + 1.0) as u32;
    let levels: Vec<_> =
        scales.iter().map(|&scale| (side(image.width, scale), side(image.height, scale))).collect();
    let spots = match networks.spots(image, &levels, THRESHOLDS[0]) {
        Some(spots) => spots?,
        None => levels
            .iter()
            .map(|&level| by_pieces(image, level, networks))
            .collect::<Result<_, _>>()?,
    };
    let candidates = |(spots, &scale): (Vec<Spot>, &f64)| {
        spots.iter().map(|spot| candidate(spot, scale as f32)).collect::<Vec<_>>()
    };
    Ok(spots.into_iter().zip(scales).map(candidates).collect())
}

/// Returns the spots of a level, computed by pieces.
fn by_pieces<N: Networks>(
    image: &Image,
    (width, height): (u32, u32),
    networks: &N,
) -> Result<Vec<Spot>, N::Error> {
    let mut spots = Vec::new();
    for row in (0..places(height)).step_by(TILE as usize) {
        let rows = span(row, places(height), height);
        let band = resize_area_rows(image, Rect::of(image), width, height, rows.clone());
        let columns: Vec<u32> = (0..places(width)).step_by(TILE as usize).collect();
        let piece = |&column: &u32| {
            let columns = span(column, places(width), width);
            let take =
                |row: &[f32]| row[3 * columns.start as usize..3 * columns.end as usize].to_vec();
            let data: Vec<f32> = band.chunks_exact(3 * width as usize).flat_map(take).collect();
            Levels { height: rows.len() as u32, width: columns.len() as u32, data }
        };
        let pieces = columns.iter().map(piece).collect();
        for (column, proposals) in columns.iter().zip(networks.propose(pieces)?) {
            spots.extend(proposals.spots(*column, row, THRESHOLDS[0]));
        }
    }
    // The order within the whole level decides between equal probabilities.
    spots.sort_by_key(|spot| (spot.y, spot.x));
    Ok(spots)
}

/// Returns the number of P-Net positions along a side of a level. The last pooling window may be
/// cut in half.
fn places(side: u32) -> u32 {
    (side - 2).div_ceil(2) - 4
}

/// Returns the pixels seen by a tile's positions, starting at position `first`.
fn span(first: u32, places: u32, side: u32) -> std::ops::Range<u32> {
    let last = (first + TILE).min(places) - 1;
    STRIDE * first..(STRIDE * last + CELL).min(side)
}

impl Proposals {
    /// Returns the positions with a probability of at least `threshold`, for a piece that starts at
    /// position (`left`, `top`) of the level.
    pub fn spots(&self, left: u32, top: u32, threshold: f32) -> impl Iterator<Item = Spot> + '_ {
        let count = self.probability.len();
        let probable = self.probability.iter().enumerate().filter(move |(_, p)| **p >= threshold);
        probable.map(move |(at, &probability)| Spot {
            x: left + (at % self.columns) as u32,
            y: top + (at / self.columns) as u32,
            probability,
            correction: std::array::from_fn(|side| self.correction[side * count + at]),
        })
    }
}

/// Returns the box that P-Net sees at a position of a level.
fn candidate(spot: &Spot, scale: f32) -> Candidate {
    let pixel = |place: u32, offset: u32| ((STRIDE * place + offset) as f32 / scale).floor();
    Candidate {
        corners: [pixel(spot.x, 1), pixel(spot.y, 1), pixel(spot.x, CELL), pixel(spot.y, CELL)],
        probability: spot.probability,
        correction: spot.correction,
    }
}

/// Returns the candidates that remain after suppression, most probable first.
fn suppressed(candidates: &[Candidate], threshold: f64) -> Vec<Candidate> {
    let boxes: Vec<_> = candidates.iter().map(|candidate| candidate.corners).collect();
    let probabilities: Vec<_> = candidates.iter().map(|candidate| candidate.probability).collect();
    let stay = suppress::by_union(&boxes, &probabilities, threshold);
    stay.into_iter().take(MAX_CANDIDATES).map(|index| candidates[index]).collect()
}

/// Moves the box by its correction, in units of sides that are `added` longer than the difference
/// of the corners.
fn corrected(candidate: &Candidate, added: f32) -> Corners {
    let [left, top, right, bottom] = candidate.corners;
    let (width, height) = (right - left + added, bottom - top + added);
    let [a, b, c, d] = candidate.correction;
    [left + a * width, top + b * height, right + c * width, bottom + d * height]
}

/// Returns the square of the longer side around the same centre.
fn square([left, top, right, bottom]: Corners) -> Corners {
    let (width, height) = (right - left, bottom - top);
    let side = width.max(height);
    let left = left + width * 0.5 - side * 0.5;
    let top = top + height * 0.5 - side * 0.5;
    [left, top, left + side, top + side]
}

/// Returns the candidates whose box has a crop, and these crops, resized to `side`.
fn cut(image: &Image, mut candidates: Vec<Candidate>, side: u32) -> (Vec<Candidate>, Vec<Levels>) {
    let mut crops = Vec::with_capacity(candidates.len());
    candidates.retain(|candidate| {
        let rect = region(candidate.corners, image.width, image.height);
        if let Some(rect) = rect {
            crops.push(Levels {
                height: side,
                width: side,
                data: resize_area(image, rect, side, side),
            });
        }
        rect.is_some()
    });
    (candidates, crops)
}

/// Returns the pixels of a box: corners truncated to integers, counted from 1, both ends included.
fn region(corners: Corners, width: u32, height: u32) -> Option<Rect> {
    let [left, top, right, bottom] = corners.map(|value| value as i64);
    let (left, top) = (left.max(1) - 1, top.max(1) - 1);
    let (right, bottom) = (right.min(width.into()), bottom.min(height.into()));
    (right > left && bottom > top).then(|| Rect {
        left: left as u64,
        top: top as u64,
        width: (right - left) as u32,
        height: (bottom - top) as u32,
    })
}

/// Returns the candidates that a network accepts as faces, with its probability and correction.
fn judged<'a>(
    candidates: &'a [Candidate],
    verdicts: &'a [Verdict],
    threshold: f32,
) -> impl Iterator<Item = (Candidate, &'a Verdict)> {
    candidates.iter().zip(verdicts).filter(move |(_, verdict)| verdict.probability > threshold).map(
        |(candidate, verdict)| {
            let Verdict { probability, correction, .. } = *verdict;
            (Candidate { corners: candidate.corners, probability, correction }, verdict)
        },
    )
}

/// Converts landmarks from units of the box sides to pixels. The package counts pixels from 1 here
/// too.
fn landmarks([left, top, right, bottom]: Corners, points: &[f32; 10]) -> [[f32; 2]; 5] {
    let (width, height) = (right - left + 1.0, bottom - top + 1.0);
    std::array::from_fn(|i| [width * points[i] + left - 1.0, height * points[i + 5] + top - 1.0])
}

fn area([left, top, right, bottom]: Corners) -> f64 {
    (f64::from(right) - f64::from(left)) * (f64::from(bottom) - f64::from(top))
}

#[cfg(test)]
mod tests;
