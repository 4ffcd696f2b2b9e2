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
/// geometry = { resize = "shortest_edge", height = 224, width = 224, filter = "bicubic", crop = "floor", dtype = "u8" }
/// ```
///
/// | `resize` | `filter` | `crop` | `dtype` |
/// |---|---|---|---|
/// | `shortest_edge` | `bicubic`, `bilinear` | `floor`, `half_even` | `u8` |
/// | `exact` | `bicubic`, `bilinear` | `none` (or omitted) | `u8` |
/// | `letterbox` | `bicubic` | `none` (or omitted) | `f32` |
/// | `bounded` | `bicubic`, `bilinear` | `none` (or omitted) | `u8` |
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
                return Prepared::F32 { height: size, width: size, data: letterbox::letterbox(image, size) };
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
    #[error("shortest and longest must be 1 to {MAX_SIDE} and in this order, not {shortest} and {longest}")]
    Bounds {
        /// Shorter side in the table.
        shortest: u32,
        /// Longer side in the table.
        longest: u32,
    },
    /// The kind of resize makes squares, but the two sides differ.
    #[error("resize = \"{resize}\" makes squares: height ({height}) and width ({width}) must be equal")]
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
            return mismatch(if wanted == Dtype::U8 { "dtype = \"u8\"" } else { "dtype = \"f32\"" });
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
            (Resize::Bounded, Crop::None) => Ok(Self::Bounded { shortest: height, longest: width, filter }),
            (Resize::Letterbox, Crop::None) if filter == Filter::Bicubic => {
                Ok(Self::Letterbox { size: height })
            }
            (Resize::Letterbox, Crop::None) => mismatch("filter = \"bicubic\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(table: &str) -> Result<Geometry, String> {
        #[derive(Deserialize)]
        struct Graph {
            geometry: Geometry,
        }
        toml::from_str::<Graph>(&format!("geometry = {{ {table} }}"))
            .map(|graph| graph.geometry)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_tables_of_manifests_are_parsed() {
        assert_eq!(
            parse(
                r#"resize="shortest_edge", height=224, width=224, filter="bicubic", crop="floor", dtype="u8""#
            ),
            Ok(Geometry::ShortestEdge { size: 224, filter: Filter::Bicubic, crop: CropRounding::Floor })
        );
        assert_eq!(
            parse(
                r#"resize="shortest_edge", height=8, width=8, filter="bilinear", crop="half_even", dtype="u8""#
            ),
            Ok(Geometry::ShortestEdge { size: 8, filter: Filter::Bilinear, crop: CropRounding::HalfEven })
        );
        assert_eq!(
            parse(r#"resize="exact", height=840, width=600, filter="bicubic", crop="none", dtype="u8""#),
            Ok(Geometry::Exact { height: 840, width: 600, filter: Filter::Bicubic })
        );
        assert_eq!(
            parse(r#"resize="letterbox", height=224, width=224, filter="bicubic", dtype="f32""#),
            Ok(Geometry::Letterbox { size: 224 })
        );
        assert_eq!(
            parse(r#"resize="bounded", shortest=800, longest=1333, filter="bilinear", dtype="u8""#),
            Ok(Geometry::Bounded { shortest: 800, longest: 1333, filter: Filter::Bilinear })
        );
    }

    /// Sizes are rows first. `tests/vision` has many more sizes, and pixels, from the package
    /// itself. The cases here include those where the package fails.
    #[test]
    fn bounded_sizes_are_those_of_the_original() {
        let geometry = Geometry::Bounded { shortest: 800, longest: 1333, filter: Filter::Bilinear };
        for ((width, height), expected) in [
            ((1024, 1024), (800, 800)),
            ((1, 1), (800, 800)),
            ((640, 480), (800, 1066)),
            ((480, 640), (1066, 800)),
            ((800, 1000), (1000, 800)),
            ((6016, 4000), (800, 1203)),
            ((1961, 1635), (800, 959)),
            ((3840, 5760), (1200, 800)),
            ((5000, 200), (53, 1325)),
            ((200, 5000), (1325, 53)),
            ((1920, 1080), (750, 1333)),
            // The shorter side rounds up, so the longer one exceeds the bound, as in the original.
            ((9700, 100), (14, 1358)),
            // The original's shorter side would be 0.
            ((30_000, 2), (1, 1333)),
            ((2, 30_000), (1333, 1)),
        ] {
            assert_eq!(geometry.size_for(width, height), expected, "{width} × {height}");
        }
        for (width, height) in (1..400).flat_map(|short| [(short, 40_000), (70_001, short)]) {
            let (rows, columns) = geometry.size_for(width, height);
            assert!(rows >= 1 && columns >= 1 && rows.max(columns) <= geometry.longest_side());
        }
    }

    #[test]
    fn an_invalid_table_is_rejected_with_the_reason() {
        for (table, reason) in [
            (r#"resize="exact", height=0, width=8, filter="bicubic", dtype="u8""#, "must be 1 to 4096"),
            (r#"resize="exact", height=8, width=5000, filter="bicubic", dtype="u8""#, "must be 1 to 4096"),
            (r#"resize="exact", height=8, width=8, filter="bicubic", dtype="f32""#, r#"needs dtype = "u8""#),
            (
                r#"resize="letterbox", height=8, width=8, filter="bicubic", dtype="u8""#,
                r#"needs dtype = "f32""#,
            ),
            (
                r#"resize="letterbox", height=8, width=8, filter="bilinear", dtype="f32""#,
                r#"needs filter = "bicubic""#,
            ),
            (r#"resize="letterbox", height=8, width=9, filter="bicubic", dtype="f32""#, "must be equal"),
            (
                r#"resize="shortest_edge", height=8, width=9, filter="bicubic", crop="floor", dtype="u8""#,
                "must be equal",
            ),
            (r#"resize="shortest_edge", height=8, width=8, filter="bicubic", dtype="u8""#, "needs crop"),
            (
                r#"resize="exact", height=8, width=8, filter="bicubic", crop="floor", dtype="u8""#,
                r#"needs crop = "none""#,
            ),
            (r#"resize="exact", height=8, width=8, filter="lanczos", dtype="u8""#, "unknown variant"),
            (r#"resize="squash", height=8, width=8, filter="bicubic", dtype="u8""#, "unknown variant"),
            (r#"resize="exact", height=8, width=8, filter="bicubic", dtype="u8", x=1"#, "unknown field"),
            (r#"resize="exact", height=8, filter="bicubic", dtype="u8""#, "needs `height` and `width`"),
            (
                r#"resize="exact", height=8, width=8, longest=9, filter="bicubic", dtype="u8""#,
                "neither `shortest` nor `longest`",
            ),
            (
                r#"resize="bounded", height=8, width=8, filter="bilinear", dtype="u8""#,
                "needs `shortest` and `longest`",
            ),
            (r#"resize="bounded", shortest=9, longest=8, filter="bilinear", dtype="u8""#, "in this order"),
            (
                r#"resize="bounded", shortest=0, longest=8, filter="bilinear", dtype="u8""#,
                "must be 1 to 4096",
            ),
            (
                r#"resize="bounded", shortest=8, longest=5000, filter="bilinear", dtype="u8""#,
                "must be 1 to 4096",
            ),
            (
                r#"resize="bounded", shortest=8, longest=9, filter="bilinear", crop="floor", dtype="u8""#,
                r#"needs crop = "none""#,
            ),
        ] {
            let error = parse(table).expect_err(table);
            assert!(error.contains(reason), "{table}: {error}");
        }
    }

    #[test]
    fn crop_offsets_differ_only_at_margins_of_three_more_than_a_multiple_of_four() {
        for margin in 0..1000_u64 {
            let half_even = (margin as f64 / 2.0).round_ties_even() as u64;
            assert_eq!(CropRounding::HalfEven.offset(margin), half_even);
            assert_eq!(CropRounding::Floor.offset(margin), margin / 2);
        }
    }

    #[test]
    fn extreme_images_take_the_memory_of_their_crop() {
        let line = Image::new(1, 30_000, (0..90_000_u32).map(|i| (i / 3 / 120) as u8).collect());
        for (image, geometry) in [
            (&line, Geometry::ShortestEdge { size: 224, filter: Filter::Bicubic, crop: CropRounding::Floor }),
            (&line, Geometry::Exact { height: 840, width: 840, filter: Filter::Bicubic }),
            (&line, Geometry::Letterbox { size: 224 }),
            (&line, Geometry::Bounded { shortest: 800, longest: 1333, filter: Filter::Bilinear }),
        ] {
            let (height, width) = geometry.size_for(line.width, line.height);
            let prepared = geometry.apply(image);
            assert_eq!(prepared.shape(), [height as usize, width as usize, 3]);
            assert_eq!(matches!(prepared, Prepared::F32 { .. }), geometry.is_float());
        }
    }
}
