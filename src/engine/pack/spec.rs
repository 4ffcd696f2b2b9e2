//! One graph of a pack, and the smaller tables of the manifest.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Sha;
use crate::content::ContentHash;
use crate::tensor::{Dtype, Tensor};
use crate::text::Cleaning;
use crate::vision::Geometry;

/// A tokenizer's vocabulary.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSpec {
    /// The name text graphs use.
    pub name: String,
    /// How the file is read.
    pub kind: TokenizerKind,
    /// The file; relative in the manifest, joined to the pack's folder once opened.
    pub file: PathBuf,
    /// The file's digest.
    pub sha256: Sha,
}

/// How a vocabulary file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerKind {
    /// Byte-level BPE of CLIP: a merges file, from which the vocabulary follows.
    ClipBpe,
    /// BERT's `WordPiece`: a `vocab.txt`.
    Wordpiece,
}

/// One graph of a pack: what it is for, what it takes, what it gives, and where it comes from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphSpec {
    /// What it is for, for example `clip.image`.
    pub role: String,
    /// What its input is made of.
    pub kind: GraphKind,
    /// The arithmetic inside; inputs and outputs keep their types.
    pub precision: Precision,
    /// The largest batch it is run with.
    pub max_batch: usize,
    /// The graph first, then its external data.
    pub files: Vec<FileSpec>,
    /// The checkpoint it was exported from.
    pub source: SourceSpec,
    /// Inputs in the order items give them.
    pub inputs: Vec<TensorSpec>,
    /// Outputs.
    pub outputs: Vec<TensorSpec>,
    /// How an image is resized and cropped for it; image graphs of a fixed size only.
    #[serde(default)]
    pub geometry: Option<Geometry>,
    /// How a text is cleaned and cut for it; text graphs only.
    #[serde(default)]
    pub text: Option<TextSpec>,
    /// The model inside, for example `egtr`; scene graphs only. It is named beside every score, since scores of two
    /// models are not comparable.
    #[serde(default)]
    pub backend: Option<String>,
    /// The file with the names of its classes, see [`Labels`](super::Labels); scene graphs only.
    #[serde(default)]
    pub labels: Option<FileSpec>,
    /// Additions and multiplications of one item like [`sample`](Self::sample), where the exporter counted them; for measurements.
    #[serde(default)]
    pub flops: Option<u64>,
}

/// What a graph's input is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GraphKind {
    /// One image.
    Image,
    /// Token ids.
    Text,
    /// Features of other graphs.
    Joint,
    /// Regions of an image, cut by the code that knows what the graph looks for.
    Region,
    /// An image and the features of any number of texts to look for in it.
    Grounding,
}

/// A graph's arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// IEEE single precision.
    Fp32,
    /// IEEE half precision.
    Fp16,
    /// Products of 8-bit integers, whose scales are single precision.
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        })
    }
}

/// A file and its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Relative in the manifest, joined to the pack's folder once opened.
    pub path: PathBuf,
    /// The file's digest.
    pub sha256: Sha,
}

/// The checkpoint a graph was exported from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// Its name, for example a hub id.
    pub checkpoint: String,
    /// The hub's commit, or `local`.
    pub revision: String,
    /// The file within it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// That file's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub sha256: Option<Sha>,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Its name in the graph.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape without the batch dimension.
    pub shape: Vec<Dim>,
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[", self.name, self.dtype)?;
        for (at, dim) in self.shape.iter().enumerate() {
            write!(f, "{}{dim}", if at == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}

/// One dimension of a declared shape; -1 in the manifest is any length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum Dim {
    /// Always this long.
    Fixed(usize),
    /// Any length from 1.
    Dynamic,
}

impl TryFrom<i64> for Dim {
    type Error = String;

    fn try_from(value: i64) -> Result<Self, String> {
        match value {
            -1 => Ok(Self::Dynamic),
            1.. => Ok(Self::Fixed(value as usize)),
            _ => Err(format!("a dimension is positive, or -1 for any length, found {value}")),
        }
    }
}

impl From<Dim> for i64 {
    fn from(dim: Dim) -> Self {
        match dim {
            Dim::Fixed(length) => length as i64,
            Dim::Dynamic => -1,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(length) => write!(f, "{length}"),
            Self::Dynamic => f.write_str("any"),
        }
    }
}

/// How a text is cleaned, cut and padded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSpec {
    /// Name of a tokenizer of the pack.
    pub tokenizer: String,
    /// What is done to the text first.
    pub cleaning: Cleaning,
    /// The most tokens, markers of beginning and end included.
    pub context: usize,
    /// The id that fills up to a fixed length.
    pub pad: i64,
}

/// Inputs with the scores that the original programs give for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldensSpec {
    /// Relative in the manifest, joined to the pack's folder once opened.
    pub file: PathBuf,
    /// The file's digest.
    pub sha256: Sha,
}

impl GraphSpec {
    /// The ONNX file; the others of [`files`](Self::files) are its external data.
    #[must_use]
    pub fn file(&self) -> &Path {
        // Every opened pack has at least one file a graph.
        self.files.first().map_or(Path::new(""), |file| &file.path)
    }

    /// The graph's weights by content: equal for two entries that name the same files.
    #[must_use]
    pub fn weights_id(&self) -> ContentHash {
        ContentHash::of_parts(self.files.iter().map(|file| file.sha256.as_bytes().as_slice()))
    }

    /// What one item's tensors must look like, for messages.
    pub(crate) fn signature(&self) -> String {
        let inputs: Vec<_> = self.inputs.iter().map(ToString::to_string).collect();
        inputs.join(" and ")
    }

    /// Says what is wrong with an item, if anything is: what was expected and what was found.
    pub(crate) fn refuse(&self, item: &[Tensor]) -> Option<(String, String)> {
        let found = || item.iter().map(|tensor| format!("{tensor:?}")).collect::<Vec<_>>().join(" and ");
        if item.len() != self.inputs.len() {
            return Some((self.signature(), format!("{} tensors ({})", item.len(), found())));
        }
        for (spec, tensor) in self.inputs.iter().zip(item) {
            let fits = spec.dtype == tensor.dtype()
                && spec.shape.len() == tensor.shape().len()
                && spec.shape.iter().zip(tensor.shape()).all(|(dim, &length)| match dim {
                    Dim::Fixed(fixed) => *fixed == length,
                    Dim::Dynamic => length >= 1 && length <= self.longest(),
                });
            if !fits {
                let most = match self.longest() {
                    usize::MAX => String::new(),
                    longest => format!(" (any: 1 to {longest})"),
                };
                return Some((format!("{}{most}", self.signature()), found()));
            }
            // An overflowing product would be no valid length either.
            let elements = tensor.shape().iter().try_fold(1_usize, |all, &length| all.checked_mul(length));
            if elements != Some(tensor.len()) {
                return Some((
                    format!("as many elements as {tensor:?} has places"),
                    tensor.len().to_string(),
                ));
            }
        }
        None
    }

    /// The longest that a dynamic dimension may get.
    fn longest(&self) -> usize {
        match (&self.text, &self.geometry) {
            (Some(text), _) => text.context,
            (None, Some(geometry)) if geometry.size().is_none() => geometry.longest_side() as usize,
            _ => usize::MAX,
        }
    }

    /// An item of ones. Dynamic dimensions get the text context, the sides of the largest common image, a few
    /// texts to look for, or a side that every detector takes.
    pub(crate) fn sample(&self) -> Vec<Tensor> {
        /// Large enough for the smallest receptive field that is in use, small enough to be free.
        const SIDE: usize = 64;
        /// As many as most prompts have objects.
        const QUERIES: usize = 8;
        let sides = match (&self.text, &self.geometry, self.kind) {
            (Some(text), ..) => [text.context; 2],
            (_, _, GraphKind::Grounding) => [QUERIES; 2],
            (_, Some(Geometry::Bounded { shortest, longest, .. }), _) => {
                [*shortest as usize, *longest as usize]
            }
            _ => [SIDE; 2],
        };
        let ones = |spec: &TensorSpec| {
            let lengths = spec.shape.iter().enumerate().map(|(at, dim)| match dim {
                Dim::Fixed(length) => *length,
                Dim::Dynamic => sides[at.min(1)],
            });
            Tensor::ones(spec.dtype, lengths.collect())
        };
        self.inputs.iter().map(ones).collect()
    }

    pub(super) fn entry(&self) -> String {
        super::entry("graph", &self.role)
    }

    /// Says what contradicts itself in the entry.
    pub(super) fn check(&self, tokenizers: &HashSet<&str>) -> Result<(), String> {
        if self.role.is_empty() || self.role.contains(char::is_whitespace) {
            return Err("a role is a word such as `clip.image`".into());
        }
        if self.files.is_empty() {
            return Err("`files` is empty, expected the ONNX file first".into());
        }
        if self.max_batch == 0 {
            return Err("`max_batch` is 0, expected at least 1".into());
        }
        for (what, tensors) in [("inputs", &self.inputs), ("outputs", &self.outputs)] {
            if tensors.is_empty() {
                return Err(format!("`{what}` is empty"));
            }
            let mut names = HashSet::new();
            if let Some(twice) = tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
                return Err(format!("`{what}` has `{}` twice", twice.name));
            }
        }
        if let Some(output) = self.outputs.iter().find(|output| output.dtype != Dtype::F32) {
            return Err(format!("output `{}` is {}, expected f32", output.name, output.dtype));
        }
        // Joint graphs may take a text beside another graph's features.
        if let Some(text) = &self.text {
            if !tokenizers.contains(text.tokenizer.as_str()) {
                return Err(format!("the pack has no tokenizer `{}`", text.tokenizer));
            }
            if text.context < 2 {
                return Err(format!("`context` is {}, expected at least 2", text.context));
            }
        }
        match (&self.labels, self.backend.as_deref().map(str::trim)) {
            (None, None) => {}
            (Some(_), Some(backend)) if !backend.is_empty() && self.kind == GraphKind::Image => {}
            _ => {
                return Err(
                    "a scene graph is an image graph with `labels` and the name of its `backend`".into()
                );
            }
        }
        match self.kind {
            GraphKind::Image => match self.inputs.as_slice() {
                [input] => self.check_image(input),
                _ => Err(format!("an image graph has one input, found {}", self.inputs.len())),
            },
            GraphKind::Text => self.check_text(),
            GraphKind::Joint => Ok(()),
            GraphKind::Region => self.check_region(),
            GraphKind::Grounding => self.check_grounding(),
        }
    }

    fn check_image(&self, input: &TensorSpec) -> Result<(), String> {
        let sides = match input.shape.as_slice() {
            [Dim::Fixed(height), Dim::Fixed(width), Dim::Fixed(3)] => Some((*height, *width)),
            [_, _, Dim::Fixed(3)] => None,
            _ => return Err(format!("an image graph takes [height, width, 3], found {input}")),
        };
        let Some(geometry) = &self.geometry else {
            return match sides {
                Some(_) => Err("an image graph of a fixed size needs a `geometry`".into()),
                None => Ok(()),
            };
        };
        let dtype = if geometry.is_float() { Dtype::F32 } else { Dtype::U8 };
        let made = geometry.size().map(|(height, width)| (height as usize, width as usize));
        let free = input.shape[..2] == [Dim::Dynamic; 2];
        if dtype != input.dtype || made != sides || made.is_none() && !free {
            let sides = made.map_or("any, any".to_owned(), |(height, width)| format!("{height}, {width}"));
            return Err(format!("`geometry` makes {dtype}[{sides}, 3], the input is {input}"));
        }
        Ok(())
    }

    /// An image of a fixed size and queries, of which each gets a logit in each of the boxes.
    fn check_grounding(&self) -> Result<(), String> {
        let expected = "a grounding graph takes pixels [height, width, 3] and f32 queries [any, width], and gives \
                        logits [boxes, any] and boxes [boxes, 4]";
        let wrong = || {
            let outputs: Vec<_> = self.outputs.iter().map(ToString::to_string).collect();
            Err(format!("{expected}; found {} and {}", self.signature(), outputs.join(" and ")))
        };
        let [pixels, queries] = self.inputs.as_slice() else { return wrong() };
        let output =
            |name| self.outputs.iter().find(|output| output.name == name).map(|o| o.shape.as_slice());
        let fits = queries.dtype == Dtype::F32
            && matches!(queries.shape.as_slice(), [Dim::Dynamic, Dim::Fixed(_)])
            && match (output("logits"), output("boxes")) {
                (Some([Dim::Fixed(each), Dim::Dynamic]), Some([Dim::Fixed(boxes), Dim::Fixed(4)])) => {
                    each == boxes
                }
                _ => false,
            };
        if !fits || pixels.shape.contains(&Dim::Dynamic) {
            return wrong();
        }
        self.check_image(pixels)
    }

    fn check_region(&self) -> Result<(), String> {
        match self.inputs.as_slice() {
            [TensorSpec { shape, .. }] if matches!(shape.as_slice(), [_, _, Dim::Fixed(3)]) => Ok(()),
            _ => Err(format!("a region graph takes [height, width, 3], found {}", self.signature())),
        }
    }

    fn check_text(&self) -> Result<(), String> {
        if self.text.is_none() {
            return Err("a text graph needs a `text` table".into());
        }
        if let Some(input) = self.inputs.iter().find(|input| input.dtype != Dtype::I64) {
            return Err(format!("a text graph takes i64 ids, found {input}"));
        }
        Ok(())
    }
}
