//! Inputs and outputs of a graph, one item at a time.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::vision::Prepared;

/// An input of one item, without the batch dimension. Clones share the data.
#[derive(Clone, PartialEq)]
pub enum Tensor {
    /// Pixels, 0 to 255.
    U8 {
        /// Lengths of the dimensions, outermost first.
        shape: Vec<usize>,
        /// Row-major elements, as many as the product of `shape`.
        data: Arc<[u8]>,
    },
    /// Token ids and masks.
    I64 {
        /// Lengths of the dimensions, outermost first.
        shape: Vec<usize>,
        /// Row-major elements, as many as the product of `shape`.
        data: Arc<[i64]>,
    },
    /// Pixels already in float, or features of another graph.
    F32 {
        /// Lengths of the dimensions, outermost first.
        shape: Vec<usize>,
        /// Row-major elements, as many as the product of `shape`.
        data: Arc<[f32]>,
    },
}

impl Tensor {
    /// Lengths of the dimensions, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::U8 { shape, .. } | Self::I64 { shape, .. } | Self::F32 { shape, .. } => shape,
        }
    }

    /// Returns the element type, as the manifest names it.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::U8 { .. } => Dtype::U8,
            Self::I64 { .. } => Dtype::I64,
            Self::F32 { .. } => Dtype::F32,
        }
    }

    /// Returns the number of elements in `data`, whatever `shape` says.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U8 { data, .. } => data.len(),
            Self::I64 { data, .. } => data.len(),
            Self::F32 { data, .. } => data.len(),
        }
    }

    /// Returns true if there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Creates a tensor of ones for warm-up and probing: a token id that every vocabulary has, a
    /// mask that hides nothing, an almost black image. Zeros would mask everything and leave a
    /// softmax without inputs.
    #[must_use]
    pub fn ones(dtype: Dtype, shape: Vec<usize>) -> Self {
        let len = shape.iter().product();
        match dtype {
            Dtype::U8 => Self::U8 { shape, data: vec![1; len].into() },
            Dtype::I64 => Self::I64 { shape, data: vec![1; len].into() },
            Dtype::F32 => Self::F32 { shape, data: vec![1.0; len].into() },
        }
    }
}

impl From<Prepared> for Tensor {
    fn from(prepared: Prepared) -> Self {
        let shape = prepared.shape().to_vec();
        match prepared {
            Prepared::U8 { data, .. } => Self::U8 { shape, data: data.into() },
            Prepared::F32 { data, .. } => Self::F32 { shape, data: data.into() },
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Pixel values are useless in a log line.
        write!(f, "{}{:?}", self.dtype(), self.shape())
    }
}

/// An element type of a graph's inputs and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Unsigned bytes.
    U8,
    /// Signed 64-bit integers.
    I64,
    /// IEEE single precision.
    F32,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U8 => "u8",
            Self::I64 => "i64",
            Self::F32 => "f32",
        })
    }
}

/// An output of one item, without the batch dimension.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Lengths of the dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Row-major elements, as many as the product of `shape` (one for a scalar).
    pub data: Vec<f32>,
}

/// All outputs of a graph for one item, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Features {
    // A graph has one to four outputs: a scan beats a map, and all items share the names.
    outputs: Vec<(Arc<str>, Output)>,
}

impl Features {
    /// Collects the outputs of one item.
    #[must_use]
    pub fn new(outputs: Vec<(Arc<str>, Output)>) -> Self {
        Self { outputs }
    }

    /// Returns the output called `name`, if the graph has one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Output> {
        self.outputs.iter().find(|(have, _)| &**have == name).map(|(_, output)| output)
    }

    /// Returns the elements of the output called `name`, row-major.
    #[must_use]
    pub fn values(&self, name: &str) -> Option<&[f32]> {
        self.get(name).map(|output| output.data.as_slice())
    }

    /// Returns the only element of the output called `name`; `None` unless there is exactly one.
    #[must_use]
    pub fn scalar(&self, name: &str) -> Option<f32> {
        match self.values(name)? {
            [value] => Some(*value),
            _ => None,
        }
    }

    /// Iterates over all outputs, in the graph's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Output)> {
        self.outputs.iter().map(|(name, output)| (&**name, output))
    }

    /// Returns the memory size in bytes, as the feature cache counts it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let each = |output: &Output| {
            output.data.len() * size_of::<f32>() + output.shape.len() * size_of::<usize>()
        };
        size_of::<Self>()
            + self
                .outputs
                .iter()
                .map(|(_, output)| size_of::<(Arc<str>, Output)>() + each(output))
                .sum::<usize>()
    }

    /// Returns the name of the first output that has a NaN or an infinity.
    pub(crate) fn not_finite(&self) -> Option<&str> {
        let bad = |output: &Output| output.data.iter().any(|value| !value.is_finite());
        self.outputs.iter().find(|(_, output)| bad(output)).map(|(name, _)| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(value: f32) -> Output {
        Output { shape: vec![], data: vec![value] }
    }

    #[test]
    fn a_scalar_is_read_by_name_and_a_vector_is_not_one() {
        let vector = Output { shape: vec![2], data: vec![1.0, 2.0] };
        let features =
            Features::new(vec![("aesthetic".into(), scalar(5.5)), ("embedding".into(), vector)]);
        assert_eq!(features.scalar("aesthetic"), Some(5.5));
        assert_eq!(features.scalar("embedding"), None);
        assert_eq!(features.values("embedding"), Some(&[1.0, 2.0][..]));
        assert_eq!(features.get("absent"), None);
    }

    #[test]
    fn an_output_with_nan_or_infinity_is_named() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let features =
                Features::new(vec![("a".into(), scalar(0.0)), ("b".into(), scalar(bad))]);
            assert_eq!(features.not_finite(), Some("b"));
        }
        assert_eq!(Features::new(vec![("a".into(), scalar(f32::MAX))]).not_finite(), None);
    }

    #[test]
    fn ones_have_the_given_shape_and_type() {
        let ones = Tensor::ones(Dtype::I64, vec![2, 3]);
        assert_eq!((ones.dtype(), ones.shape(), ones.len()), (Dtype::I64, &[2, 3][..], 6));
    }

    #[test]
    fn memory_grows_with_the_elements() {
        let of = |n: usize| {
            Features::new(vec![("e".into(), Output { shape: vec![n], data: vec![0.0; n] })]).bytes()
        };
        assert_eq!(of(1280) - of(0), 1280 * 4);
    }
}
