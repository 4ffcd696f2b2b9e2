//! Conversion of an image to the input pixels of a graph, as described by a pack's manifest.

use serde::Deserialize;

use super::{Filter, Image, Rect, letterbox, resize_window};

/// Maximum side of a graph's input, in pixels: far beyond any vision model's, yet small enough for
/// any memory.
const MAX_SIDE: u32 = 4096;

/// Conversion of an image to a graph's input.
///
/// In a pack's manifest, it is a table:
///
/// ```toml
/// [geometry]
/// resize = "shortest_edge"
/// height = 224
/// width = 224
/// filter = "bicubic"
/// crop = "floor"
/// dtype = "u8"
/// ```
///
/// | `resize` | `filter` | `crop` | `dtype` |
/// |---|---|---|---|
/// | `shortest_edge` | `bicubic`, `bilinear`, `lanczos` | `floor`, `half_even` | `u8` |
/// | `exact` | `bicubic`, `bilinear`, `lanczos` | `none` (or omitted) | `u8` |
/// | `letterbox` | `bicubic` | `none` (or omitted) | `f32` |
/// | `bounded` | `bicubic`, `bilinear`, `lanczos` | `none` (or omitted) | `u8` |
///
/// `bounded` has `shortest` and `longest` instead of `height` and `width`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "Table")]
pub enum Geometry {
    /// The shorter side becomes `size` and the longer one `⌊size · long / short⌋`; then the central
    /// square is cropped (CLIP, BLIP).
    ShortestEdge {
        /// Side of the result, in pixels.
        size: u32,
        /// Filter of the resize.
        filter: Filter,
        /// Rounding of an odd margin.
        crop: CropRounding,
    },
    /// Both sides are resized without preserving the aspect ratio (DINO, DreamSim, OWL-ViT).
    Exact {
        /// Rows of the result.
        height: u32,
        /// Columns of the result.
        width: u32,
        /// Filter of the resize.
        filter: Filter,
    },
    /// The longer side becomes `size` and the rest of the square is zero. The values are floats and
    /// are not clamped (HPSv2). See [`letterbox`](Prepared::F32).
    Letterbox {
        /// Side of the result, in pixels.
        size: u32,
    },
    /// The shorter side becomes `shortest`, or less if the longer one would exceed `longest`. The
    /// aspect ratio is preserved, so results differ in shape (DETR and related models). See
    /// [`size_for`](Self::size_for).
    Bounded {
        /// Length of the shorter side, in pixels, if the longer one allows it.
        shortest: u32,
        /// Bound of the longer side, in pixels.
        longest: u32,
        /// Filter of the resize.
        filter: Filter,
    },
}

/// Rounding of the offset of a central crop, which is half of the margin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CropRounding {
    /// Down, as in Hugging Face's image processors.
    Floor,
    /// To the nearest integer, halves to even, as Python's `round` in torchvision's `CenterCrop`.
    /// The result differs from that of `Floor` if the margin is 3 more than a multiple of 4.
    HalfEven,
}

impl CropRounding {
    fn offset(self, margin: u64) -> u64 {
        match self {
            Self::HalfEven if margin % 4 == 3 => margin.div_ceil(2),
            _ => margin / 2,
        }
    }
}

/// An image as a graph's input: rows of pixels of three channels (HWC), in RGB.
#[derive(Clone, Debug, PartialEq)]
pub enum Prepared {
    /// Levels from 0 to 255.
    U8 {
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// `height · width · 3` values.
        data: Vec<u8>,
    },
    /// Levels where 1 is white. Values may slightly exceed [0, 1]: the cubic kernel overshoots at
    /// edges.
    F32 {
        /// Rows.
        height: u32,
        /// Columns.
        width: u32,
        /// `height · width · 3` values.
        data: Vec<f32>,
    },
}

impl Prepared {
    /// Returns the number of rows, columns and channels.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        let (Self::U8 { height, width, .. } | Self::F32 { height, width, .. }) = self;
        [*height as usize, *width as usize, 3]
    }
}

impl Geometry {
    /// Resizes and crops the image. Only the pixels of the result are computed: a 1 × 30,000 image,
    /// which "shortest edge 224" would stretch to 224 × 6,720,000, takes only the memory of its
    /// 224 × 224 crop.
    #[must_use]
    pub fn apply(&self, image: &Image) -> Prepared {
        let resized = match *self {
            Self::ShortestEdge { size, filter, crop } => shortest_edge(image, size, filter, crop),
            Self::Exact { height, width, filter } => super::resize(image, width, height, filter),
            Self::Bounded { filter, .. } => {
                let (height, width) = self.size_for(image.width, image.height);
                super::resize(image, width, height, filter)
            }
            Self::Letterbox { size } => {
                return Prepared::F32 {
                    height: size,
                    width: size,
                    data: letterbox::letterbox(image, size),
                };
            }
        };
        Prepared::U8 { height: resized.height, width: resized.width, data: resized.pixels }
    }

    /// Returns the rows and columns of the result if they are the same for every image.
    #[must_use]
    pub fn size(&self) -> Option<(u32, u32)> {
        match *self {
            Self::ShortestEdge { size, .. } | Self::Letterbox { size } => Some((size, size)),
            Self::Exact { height, width, .. } => Some((height, width)),
            Self::Bounded { .. } => None,
        }
    }

    /// Returns the rows and columns of the result for an image of this size.
    #[must_use]
    pub fn size_for(&self, width: u32, height: u32) -> (u32, u32) {
        match *self {
            Self::Bounded { shortest, longest, .. } => bounded(width, height, shortest, longest),
            Self::ShortestEdge { size, .. } | Self::Letterbox { size } => (size, size),
            Self::Exact { height, width, .. } => (height, width),
        }
    }

    /// Returns an upper bound of the longest side of any result. Rounding lets very long images
    /// exceed the bound of [`Bounded`](Self::Bounded), but always by less than a factor of two.
    #[must_use]
    pub fn longest_side(&self) -> u32 {
        match *self {
            Self::Bounded { longest, .. } => 2 * longest,
            Self::ShortestEdge { size, .. } | Self::Letterbox { size } => size,
            Self::Exact { height, width, .. } => height.max(width),
        }
    }

    /// Returns whether the result is [`Prepared::F32`] rather than [`Prepared::U8`].
    #[must_use]
    pub fn is_float(&self) -> bool {
        matches!(self, Self::Letterbox { .. })
    }
}

fn shortest_edge(image: &Image, size: u32, filter: Filter, crop: CropRounding) -> Image {
    let (short, long) = (image.width.min(image.height), image.width.max(image.height));
    // Python's `int(size * long / short)`: the product is exact, and the quotient is rounded once,
    // then truncated.
    let long = (f64::from(size) * f64::from(long) / f64::from(short)) as u64;
    let (width, height) =
        if image.width <= image.height { (u64::from(size), long) } else { (long, u64::from(size)) };
    let margin = |side: u64| side - u64::from(size);
    let window = Rect {
        left: crop.offset(margin(width)),
        top: crop.offset(margin(height)),
        width: size,
        height: size,
    };
    resize_window(image, Rect::of(image), (width, height), window, filter)
}

/// Computes rows and columns like Hugging Face's `DeformableDetrFeatureExtractor`, in the same
/// floating-point steps: Python's `round` for the shorter side, truncation for the longer one.
///
/// The original fails on images so long that the shorter side would round to 0. Here that side
/// becomes 1 and the longer one `longest`.
fn bounded(width: u32, height: u32, shortest: u32, longest: u32) -> (u32, u32) {
    let (short, long) = (f64::from(width.min(height)), f64::from(width.max(height)));
    let mut size = shortest;
    if long / short * f64::from(shortest) > f64::from(longest) {
        size = (f64::from(longest) * short / long).round_ties_even() as u32;
    }
    if size == 0 {
        return if width < height { (longest, 1) } else { (1, longest) };
    }
    if size == width.min(height) {
        return (height, width);
    }
    let other = |a: u32, b: u32| (f64::from(size) * f64::from(a) / f64::from(b)) as u32;
    if width < height { (other(height, width), size) } else { (size, other(width, height)) }
}

/// Reason why a table of the manifest is not a valid geometry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// A side is 0 or exceeds that of any model.
    #[error("height and width must be 1 to {MAX_SIDE}, not {height} and {width}")]
    Side {
        /// Rows in the table.
        height: u32,
        /// Columns in the table.
        width: u32,
    },
    /// The bounds are 0, exceed those of any model, or are in the wrong order.
    #[error(
        "shortest and longest must be 1 to {MAX_SIDE} and in this order, not {shortest} and \
            {longest}"
    )]
    Bounds {
        /// Shorter side in the table.
        shortest: u32,
        /// Longer side in the table.
        longest: u32,
    },
    /// The kind of resize makes squares, but the two sides differ.
    #[error(
        "resize = \"{resize}\" makes squares: height ({height}) and width ({width}) must be equal"
    )]
    NotSquare {
        /// Kind of resize.
        resize: &'static str,
        /// Rows in the table.
        height: u32,
        /// Columns in the table.
        width: u32,
    },
    /// A key is missing, is not allowed or has a value that the kind of resize does not support.
    #[error("resize = \"{resize}\" needs {needs}")]
    Mismatch {
        /// Kind of resize.
        resize: &'static str,
        /// The required keys or values.
        needs: &'static str,
    },
}

/// The table as written in the manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    resize: Resize,
    height: Option<u32>,
    width: Option<u32>,
    shortest: Option<u32>,
    longest: Option<u32>,
    filter: Filter,
    #[serde(default)]
    crop: Crop,
    dtype: Dtype,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Resize {
    ShortestEdge,
    Exact,
    Letterbox,
    Bounded,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Crop {
    Floor,
    HalfEven,
    #[default]
    None,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Dtype {
    U8,
    F32,
}

impl TryFrom<Table> for Geometry {
    type Error = GeometryError;

    fn try_from(table: Table) -> Result<Self, GeometryError> {
        let Table { resize, height, width, shortest, longest, filter, crop, dtype } = table;
        let (name, wanted) = match resize {
            Resize::ShortestEdge => ("shortest_edge", Dtype::U8),
            Resize::Exact => ("exact", Dtype::U8),
            Resize::Letterbox => ("letterbox", Dtype::F32),
            Resize::Bounded => ("bounded", Dtype::U8),
        };
        let mismatch = |needs| Err(GeometryError::Mismatch { resize: name, needs });
        let (height, width) = match (&resize, height, width, shortest, longest) {
            (Resize::Bounded, None, None, Some(shortest), Some(longest)) => (shortest, longest),
            (Resize::Bounded, ..) => {
                return mismatch("`shortest` and `longest`, and neither `height` nor `width`");
            }
            (_, Some(height), Some(width), None, None) => (height, width),
            _ => return mismatch("`height` and `width`, and neither `shortest` nor `longest`"),
        };
        let possible = (1..=MAX_SIDE).contains(&height) && (1..=MAX_SIDE).contains(&width);
        match resize {
            Resize::Bounded if !possible || height > width => {
                return Err(GeometryError::Bounds { shortest: height, longest: width });
            }
            _ if !possible => return Err(GeometryError::Side { height, width }),
            _ => {}
        }
        if dtype != wanted {
            return mismatch(if wanted == Dtype::U8 {
                "dtype = \"u8\""
            } else {
                "dtype = \"f32\""
            });
        }
        if matches!(resize, Resize::ShortestEdge | Resize::Letterbox) && height != width {
            return Err(GeometryError::NotSquare { resize: name, height, width });
        }
        match (resize, crop) {
            (Resize::ShortestEdge, Crop::Floor) => {
                Ok(Self::ShortestEdge { size: height, filter, crop: CropRounding::Floor })
            }
            (Resize::ShortestEdge, Crop::HalfEven) => {
                Ok(Self::ShortestEdge { size: height, filter, crop: CropRounding::HalfEven })
            }
            (Resize::ShortestEdge, Crop::None) => mismatch("crop = \"floor\" or \"half_even\""),
            (_, Crop::Floor | Crop::HalfEven) => mismatch("crop = \"none\""),
            (Resize::Exact, Crop::None) => Ok(Self::Exact { height, width, filter }),
            (Resize::Bounded, Crop::None) => {
                Ok(Self::Bounded { shortest: height, longest: width, filter })
            }
            (Resize::Letterbox, Crop::None) if filter == Filter::Bicubic => {
                Ok(Self::Letterbox { size: height })
            }
            (Resize::Letterbox, Crop::None) => mismatch("filter = \"bicubic\""),
        }
    }
}

#[cfg(test)]
mod tests;
