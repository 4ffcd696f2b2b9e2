//! Face detection by MTCNN: the cascade around its three networks, equal to facenet-pytorch 2.6.0.
//!
//! ```text
//! pyramid of area-resized levels ── P-Net   a probability and a correction every second pixel
//!                                ── suppression within a level, then across levels; corrected, squared
//! crops of 24×24                 ── R-Net   > 0.7, suppression, corrected, squared
//! crops of 48×48                 ── O-Net   > 0.7, landmarks, corrected, suppression by the smaller area
//! faces, the largest first
//! ```
//!
//! Zhang et al. 2016, *Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks*. Where
//! the package's arithmetic is in single precision it is so here, in the same order, because boxes are rounded and
//! compared with thresholds; two of its oddities are kept: crops count pixels from 1, and the first correction
//! takes sides without the added pixel that the later ones have.
//!
//! Where the package fails, this does not: an image whose shorter side is below 20 pixels has no level and so no
//! face; a box whose crop lies outside of the image is dropped; and of more than [`MAX_CANDIDATES`] boxes only
//! the most probable go on.

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

/// Left, top, right, bottom in pixels.
pub type Corners = [f32; 4];

/// Side of the smallest face that is looked for, in pixels.
pub const LEAST_FACE: u32 = 20;
/// Side of the crop that an embedding is computed from.
pub const CROP_SIDE: u32 = 160;
/// Boxes that go from one network to the next at most: far more than a crowd has, and a bound for an image that
/// is made of texture.
pub const MAX_CANDIDATES: usize = 8192;

/// Pixels that P-Net sees at once.
const CELL: u32 = 12;
/// Pixels from one place of P-Net to the next.
const STRIDE: u32 = 2;
/// From one level of the pyramid to the next.
const FACTOR: f64 = 0.709;
/// Least probabilities after P-Net (inclusive), R-Net and O-Net (both exclusive).
const THRESHOLDS: [f32; 3] = [0.6, 0.7, 0.7];
/// Side of a crop for R-Net.
pub const REFINE_SIDE: u32 = 24;
/// Side of a crop for O-Net.
pub const OUTPUT_SIDE: u32 = 48;
/// Margin around a face in a crop of [`CROP_SIDE`], in pixels of the crop. The reference toolkit means a threshold
/// by this number and passes it as a margin.
const MARGIN: f64 = 0.9;
/// Places of P-Net a tile's side: a tile's activations fit into a core's cache, and the overlap is 4 % a side.
const TILE: u32 = 128;

/// A piece of a resized image: levels from 0 to 255, `height · width · 3` of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// R, G, B of the top left pixel first.
    pub data: Vec<f32>,
}

/// What P-Net says of every second pixel of a piece, row by row.
#[derive(Debug, Clone)]
pub struct Proposals {
    /// Places a row.
    pub columns: usize,
    /// The probability of a face at each place.
    pub probability: Vec<f32>,
    /// Corrections of left, top, right, bottom in sides of the box: four maps, one after the other.
    pub correction: Vec<f32>,
}

/// What R-Net and O-Net say of a crop.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The probability of a face.
    pub probability: f32,
    /// Corrections of left, top, right, bottom in sides of the box.
    pub correction: [f32; 4],
    /// Of O-Net: x's and then y's of the five landmarks, in sides of the box.
    pub landmarks: [f32; 10],
}

/// The three networks; each gives as many answers as it gets pieces, in their order.
pub trait Networks {
    /// Why a network gave no answer.
    type Error;
    /// P-Net on whole levels of an image, where there is a quicker way than by pieces: of each the places of at least
    /// this probability, row by row. `None` where there is none.
    fn spots(
        &self,
        image: &Image,
        levels: &[(u32, u32)],
        threshold: f32,
    ) -> Option<Result<Vec<Vec<Spot>>, Self::Error>> {
        let _ = (image, levels, threshold);
        None
    }
    /// P-Net, on pieces of at least 12×12.
    fn propose(&self, pieces: Vec<Levels>) -> Result<Vec<Proposals>, Self::Error>;
    /// R-Net, on crops of 24×24.
    fn refine(&self, crops: Vec<Levels>) -> Result<Vec<Verdict>, Self::Error>;
    /// O-Net, on crops of 48×48.
    fn decide(&self, crops: Vec<Levels>) -> Result<Vec<Verdict>, Self::Error>;
}

/// A face in an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Face {
    /// The box, in pixels of the upright image; it may reach beyond the edges.
    pub corners: Corners,
    /// The probability by O-Net, above 0.7.
    pub probability: f32,
    /// x and y of left eye, right eye, nose, left and right corner of the mouth, as the viewer sees them.
    pub landmarks: [[f32; 2]; 5],
}

/// A box on its way through the cascade.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    corners: Corners,
    probability: f32,
    correction: [f32; 4],
}

/// Finds the faces in an image, the largest first.
///
/// # Errors
/// Those of the networks.
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
    // In double precision, ascending and then turned round, as the package sorts.
    faces.sort_by(|a, b| area(a.corners).total_cmp(&area(b.corners)));
    faces.reverse();
    Ok(faces)
}

/// The image that an embedding is computed from: the box with its margin, cut at whole pixels and resized to
/// [`CROP_SIDE`] as Pillow does, bilinearly. `None` if the box lies outside of the image.
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
    // A corner that is no number would have become the image's edge.
    let real = corners.iter().all(|corner| corner.is_finite());
    (real && right > left && bottom > top).then(|| Rect {
        left: left.into(),
        top: top.into(),
        width: right - left,
        height: bottom - top,
    })
}

/// By how much the image is shrunk for each level of the pyramid.
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

/// Of each level every place where P-Net sees a face, row by row.
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
        None => levels.iter().map(|&level| by_pieces(image, level, networks)).collect::<Result<_, _>>()?,
    };
    let candidates = |(spots, &scale): (Vec<Spot>, &f64)| {
        spots.iter().map(|spot| candidate(spot, scale as f32)).collect::<Vec<_>>()
    };
    Ok(spots.into_iter().zip(scales).map(candidates).collect())
}

/// The spots of a level, which is cut into pieces.
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
            let take = |row: &[f32]| row[3 * columns.start as usize..3 * columns.end as usize].to_vec();
            let data: Vec<f32> = band.chunks_exact(3 * width as usize).flat_map(take).collect();
            Levels { height: rows.len() as u32, width: columns.len() as u32, data }
        };
        let pieces = columns.iter().map(piece).collect();
        for (column, proposals) in columns.iter().zip(networks.propose(pieces)?) {
            spots.extend(proposals.spots(*column, row, THRESHOLDS[0]));
        }
    }
    // In the order of the whole level: it decides between equal probabilities.
    spots.sort_by_key(|spot| (spot.y, spot.x));
    Ok(spots)
}

/// Places of P-Net along a side of a level: the last pooling window may be half a one.
fn places(side: u32) -> u32 {
    (side - 2).div_ceil(2) - 4
}

/// The pixels that a tile's places see, from place `first` on.
fn span(first: u32, places: u32, side: u32) -> std::ops::Range<u32> {
    let last = (first + TILE).min(places) - 1;
    STRIDE * first..(STRIDE * last + CELL).min(side)
}

impl Proposals {
    /// The places that are probable enough, the piece being at these places of the level.
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

/// The box that P-Net sees at a place of a level.
fn candidate(spot: &Spot, scale: f32) -> Candidate {
    let pixel = |place: u32, offset: u32| ((STRIDE * place + offset) as f32 / scale).floor();
    Candidate {
        corners: [pixel(spot.x, 1), pixel(spot.y, 1), pixel(spot.x, CELL), pixel(spot.y, CELL)],
        probability: spot.probability,
        correction: spot.correction,
    }
}

/// What suppression leaves, the most probable first.
fn suppressed(candidates: &[Candidate], threshold: f64) -> Vec<Candidate> {
    let boxes: Vec<_> = candidates.iter().map(|candidate| candidate.corners).collect();
    let probabilities: Vec<_> = candidates.iter().map(|candidate| candidate.probability).collect();
    let stay = suppress::by_union(&boxes, &probabilities, threshold);
    stay.into_iter().take(MAX_CANDIDATES).map(|index| candidates[index]).collect()
}

/// The box moved by its correction, in sides that are `added` longer than the difference of the corners.
fn corrected(candidate: &Candidate, added: f32) -> Corners {
    let [left, top, right, bottom] = candidate.corners;
    let (width, height) = (right - left + added, bottom - top + added);
    let [a, b, c, d] = candidate.correction;
    [left + a * width, top + b * height, right + c * width, bottom + d * height]
}

/// The square of the longer side around the same centre.
fn square([left, top, right, bottom]: Corners) -> Corners {
    let (width, height) = (right - left, bottom - top);
    let side = width.max(height);
    let left = left + width * 0.5 - side * 0.5;
    let top = top + height * 0.5 - side * 0.5;
    [left, top, left + side, top + side]
}

/// The crops of the boxes that have one, resized to `side`, and these boxes.
fn cut(image: &Image, mut candidates: Vec<Candidate>, side: u32) -> (Vec<Candidate>, Vec<Levels>) {
    let mut crops = Vec::with_capacity(candidates.len());
    candidates.retain(|candidate| {
        let rect = region(candidate.corners, image.width, image.height);
        if let Some(rect) = rect {
            crops.push(Levels { height: side, width: side, data: resize_area(image, rect, side, side) });
        }
        rect.is_some()
    });
    (candidates, crops)
}

/// The pixels of a box: corners cut to whole ones, counted from 1, both ends included.
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

/// The boxes that a network takes for faces, with its probability and correction.
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

/// Landmarks from sides of the box to pixels, which the package counts from 1 here too.
fn landmarks([left, top, right, bottom]: Corners, points: &[f32; 10]) -> [[f32; 2]; 5] {
    let (width, height) = (right - left + 1.0, bottom - top + 1.0);
    std::array::from_fn(|i| [width * points[i] + left - 1.0, height * points[i + 5] + top - 1.0])
}

fn area([left, top, right, bottom]: Corners) -> f64 {
    (f64::from(right) - f64::from(left)) * (f64::from(bottom) - f64::from(top))
}

#[cfg(test)]
mod tests;
