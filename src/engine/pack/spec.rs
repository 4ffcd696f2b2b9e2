//! The entries of a pack's manifest: graphs, tokenizers and golden samples.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::sha::Sha;
use crate::content::ContentHash;
use crate::tensor::{Dtype, Tensor};
use crate::text::Cleaning;
use crate::vision::Geometry;

/// Returns how messages name an entry, for example ``graph `clip.image` ``.
pub(super) fn entry(kind: &str, name: &str) -> String {
    format!("{kind} `{name}`")
}

/// The vocabulary file of a tokenizer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSpec {
    /// The name that text graphs refer to.
    pub name: String,
    /// Format of the file.
    pub kind: TokenizerKind,
    /// The file: relative in the manifest, joined to the pack's folder once opened.
    pub file: PathBuf,
    /// SHA-256 of the file.
    pub sha256: Sha,
}

/// Format of a vocabulary file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerKind {
    /// Byte-level BPE of CLIP: a merges file, which determines the vocabulary.
    ClipBpe,
    /// BERT's `WordPiece`: a `vocab.txt`.
    Wordpiece,
}

/// One graph of a pack: its role, inputs, outputs and origin.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphSpec {
    /// Role of the graph, such as `clip.image`.
    pub role: String,
    /// Kind of the graph's input.
    pub kind: GraphKind,
    /// Precision of the arithmetic inside; the types of inputs and outputs do not depend on it.
    pub precision: Precision,
    /// Largest batch, in items.
    pub max_batch: usize,
    /// The ONNX file first, then its external data.
    pub files: Vec<FileSpec>,
    /// The checkpoint that the graph was exported from.
    pub source: SourceSpec,
    /// Inputs, in the order of an item's tensors.
    pub inputs: Vec<TensorSpec>,
    /// Outputs, all f32.
    pub outputs: Vec<TensorSpec>,
    /// Resizing and cropping of images. Required for image graphs of a fixed size.
    #[serde(default)]
    pub geometry: Option<Geometry>,
    /// Cleaning, truncation and padding of texts. Required for text graphs.
    #[serde(default)]
    pub text: Option<TextSpec>,
    /// Name of the model, such as `egtr`; scene graphs only. It is reported with every score, since
    /// scores of two models are not comparable.
    #[serde(default)]
    pub backend: Option<String>,
    /// The file with class names, see [`Labels`](super::Labels); scene graphs only.
    #[serde(default)]
    pub labels: Option<FileSpec>,
    /// Additions and multiplications for one item of the shape of [`sample`](Self::sample), if the
    /// exporter counted them; for benchmarks.
    #[serde(default)]
    pub flops: Option<u64>,
}

/// Kind of a graph's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GraphKind {
    /// One image.
    Image,
    /// Token ids.
    Text,
    /// Features of other graphs.
    Joint,
    /// Regions of an image, cropped by the code that calls the graph.
    Region,
    /// An image and the features of any number of texts to find in it.
    Grounding,
}

/// Precision of a graph's arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// IEEE single precision.
    Fp32,
    /// IEEE half precision.
    Fp16,
    /// Products of 8-bit integers with single-precision scales.
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

/// A file of the pack and its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Path of the file: relative in the manifest, joined to the pack's folder once opened.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub sha256: Sha,
}

/// The checkpoint that a graph was exported from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// Name of the checkpoint, such as a Hugging Face id.
    pub checkpoint: String,
    /// Commit on the Hugging Face hub, or `local`.
    pub revision: String,
    /// File within the checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// SHA-256 of that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub sha256: Option<Sha>,
}

/// One input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Name in the graph.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape without the batch dimension.
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

/// One dimension of a declared shape. -1 in the manifest means any length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum Dim {
    /// Exactly this length.
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
            _ => Err(format!("a dimension must be positive, or -1 for any length, found {value}")),
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

/// Cleaning, truncation and padding of texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSpec {
    /// Name of a tokenizer of the pack.
    pub tokenizer: String,
    /// Cleaning before tokenization.
    pub cleaning: Cleaning,
    /// Context length in tokens, including begin and end tokens. Longer texts are truncated.
    pub context: usize,
    /// Token id for padding to a fixed length.
    pub pad: i64,
}

/// The file of golden samples: inputs with the scores of the original code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldensSpec {
    /// Path of the file: relative in the manifest, joined to the pack's folder once opened.
    pub file: PathBuf,
    /// SHA-256 of the file.
    pub sha256: Sha,
}

impl GraphSpec {
    /// Returns the ONNX file. The other [`files`](Self::files) are its external data.
    #[must_use]
    pub fn file(&self) -> &Path {
        // Every graph of an opened pack has at least one file.
        self.files.first().map_or(Path::new(""), |file| &file.path)
    }

    /// Returns the identity of the weights: equal for two entries with the same files.
    #[must_use]
    pub fn weights_id(&self) -> ContentHash {
        ContentHash::of_parts(self.files.iter().map(|file| file.sha256.as_bytes().as_slice()))
    }

    /// Returns the types and shapes of an item's tensors, for messages.
    pub(crate) fn signature(&self) -> String {
        let inputs: Vec<_> = self.inputs.iter().map(ToString::to_string).collect();
        inputs.join(" and ")
    }

    /// Returns what was expected and what was found if an item does not fit the signature.
    pub(crate) fn refuse(&self, item: &[Tensor]) -> Option<(String, String)> {
        let found =
            || item.iter().map(|tensor| format!("{tensor:?}")).collect::<Vec<_>>().join(" and ");
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
            // An overflowing product is not a valid length either.
            let elements =
                tensor.shape().iter().try_fold(1_usize, |all, &length| all.checked_mul(length));
            if elements != Some(tensor.len()) {
                return Some((
                    format!("the number of elements of {tensor:?}"),
                    tensor.len().to_string(),
                ));
            }
        }
        None
    }

    /// Returns the upper bound of a dynamic dimension.
    fn longest(&self) -> usize {
        match (&self.text, &self.geometry) {
            (Some(text), _) => text.context,
            (None, Some(geometry)) if geometry.size().is_none() => geometry.longest_side() as usize,
            _ => usize::MAX,
        }
    }

    /// Returns an item of ones.
    ///
    /// Dynamic dimensions get the text context, the sides of the largest common image, a few
    /// queries, or a side that every detector accepts.
    pub(crate) fn sample(&self) -> Vec<Tensor> {
        /// Pixels. At least the smallest receptive field in use, and cheap to run.
        const SIDE: usize = 64;
        /// Most prompts have at most this many objects.
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
        entry("graph", &self.role)
    }

    /// Checks the consistency of the entry.
    pub(super) fn check(&self, tokenizers: &HashSet<&str>) -> Result<(), String> {
        if self.role.is_empty() || self.role.contains(char::is_whitespace) {
            return Err("a role must be one word such as `clip.image`".into());
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
        // Joint graphs may take a text in addition to features of another graph.
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
                    "a scene graph must be an image graph with both `labels` and a `backend`"
                        .into(),
                );
            }
        }
        match self.kind {
            GraphKind::Image => match self.inputs.as_slice() {
                [input] => self.check_image(input),
                _ => {
                    Err(format!("an image graph must have one input, found {}", self.inputs.len()))
                }
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
            _ => return Err(format!("an image graph must take [height, width, 3], found {input}")),
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
            let sides =
                made.map_or("any, any".to_owned(), |(height, width)| format!("{height}, {width}"));
            return Err(format!("`geometry` makes {dtype}[{sides}, 3], but the input is {input}"));
        }
        Ok(())
    }

    /// Checks for an image of a fixed size and queries, with one logit for each query and box.
    fn check_grounding(&self) -> Result<(), String> {
        let expected = "a grounding graph must take pixels [height, width, 3] and f32 queries \
            [any, width], and return \
                        logits [boxes, any] and boxes [boxes, 4]";
        let wrong = || {
            let outputs: Vec<_> = self.outputs.iter().map(ToString::to_string).collect();
            Err(format!("{expected}; found {} and {}", self.signature(), outputs.join(" and ")))
        };
        let [pixels, queries] = self.inputs.as_slice() else { return wrong() };
        let output = |name| {
            self.outputs.iter().find(|output| output.name == name).map(|o| o.shape.as_slice())
        };
        let fits = queries.dtype == Dtype::F32
            && matches!(queries.shape.as_slice(), [Dim::Dynamic, Dim::Fixed(_)])
            && match (output("logits"), output("boxes")) {
                (
                    Some([Dim::Fixed(each), Dim::Dynamic]),
                    Some([Dim::Fixed(boxes), Dim::Fixed(4)]),
                ) => each == boxes,
                _ => false,
            };
        if !fits || pixels.shape.contains(&Dim::Dynamic) {
            return wrong();
        }
        self.check_image(pixels)
    }

    fn check_region(&self) -> Result<(), String> {
        match self.inputs.as_slice() {
            [TensorSpec { shape, .. }] if matches!(shape.as_slice(), [_, _, Dim::Fixed(3)]) => {
                Ok(())
            }
            _ => Err(format!(
                "a region graph must take [height, width, 3], found {}",
                self.signature()
            )),
        }
    }

    fn check_text(&self) -> Result<(), String> {
        if self.text.is_none() {
            return Err("a text graph needs a `text` table".into());
        }
        if let Some(input) = self.inputs.iter().find(|input| input.dtype != Dtype::I64) {
            return Err(format!("a text graph must take i64 ids, found {input}"));
        }
        Ok(())
    }
}
