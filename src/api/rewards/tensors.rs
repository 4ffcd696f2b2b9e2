//! Raw pixels in a body of safetensors.

use std::{collections::HashMap, ops::Range};

use axum::body::Bytes;
use safetensors::{Dtype, SafeTensors};

use crate::api::http::{ApiError, Code};

/// Maximum length of the header, in bytes: it contains the request.
const MOST_HEADER: u64 = 16 << 20;

/// The body, whose tensors have been checked.
pub(super) struct Tensors {
    bytes: Bytes,
    all: HashMap<String, Tensor>,
}

/// A tensor of the body, whose bytes fit its shape.
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Range<usize>,
}

fn invalid(problem: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidField, problem)
}

impl Tensors {
    /// Checks the header of a body, and returns the request in its metadata.
    pub(super) fn parse(bytes: Bytes) -> Result<(Self, String), ApiError> {
        let malformed = |error: &dyn std::fmt::Display| {
            let problem = format!("the body is not safetensors: {error}");
            ApiError::new(Code::MalformedRequest, problem)
        };
        let length = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        if length.is_some_and(|length| length > MOST_HEADER) {
            return Err(malformed(&"its header is longer than 16 MiB"));
        }
        let (length, header) =
            SafeTensors::read_metadata(&bytes).map_err(|error| malformed(&error))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| malformed(&error))?;
        // After the length of the header and the header.
        let start = length + size_of::<u64>();
        let all = header.tensors().into_iter().map(|(name, of)| {
            let (from, to) = of.data_offsets;
            let (dtype, shape) = (of.dtype, of.shape.clone());
            (name, Tensor { dtype, shape, data: start + from..start + to })
        });
        let all: HashMap<_, _> = all.collect();
        debug_assert_eq!(all.len(), tensors.len());
        let request = header.metadata().as_ref().and_then(|metadata| metadata.get("request"));
        let request = request.cloned().ok_or_else(|| {
            let problem = "the safetensors have no `request` in their `__metadata__`: put the JSON \
                document there";
            ApiError::new(Code::MissingField, problem)
        })?;
        Ok((Self { bytes, all }, request))
    }

    /// Returns an image as a PPM file: item `at` of the tensor `name` (`[N, H, W, 3]`), or the
    /// tensor `name.at` (`[H, W, 3]`).
    pub(super) fn image(&self, name: &str, at: usize) -> Result<Bytes, ApiError> {
        let own = self.all.get(&format!("{name}.{at}"));
        let (tensor, shape, at) = match (own, self.all.get(name)) {
            (Some(own), _) => (own, &own.shape[..], 0),
            (None, Some(shared)) if shared.shape.len() == 4 => (shared, &shared.shape[1..], at),
            (None, Some(shared)) => {
                let shape = &shared.shape;
                return Err(invalid(format!(
                    "the tensor `{name}` has the shape {shape:?}: it must be [N, height, width, 3]"
                )));
            }
            _ => {
                return Err(invalid(format!(
                    "there is neither a tensor `{name}` nor `{name}.{at}`"
                )));
            }
        };
        let &[height, width, 3] = shape else {
            return Err(invalid(format!(
                "the tensor of this image has the shape {shape:?}: an image is [height, width, 3]"
            )));
        };
        if tensor.dtype != Dtype::U8 {
            let found = tensor.dtype;
            return Err(invalid(format!(
                "the tensor of this image has the type {found:?}: send U8, from 0 to 255"
            )));
        }
        let data = &self.bytes[tensor.data.clone()];
        // A tensor of no items fits any other sides.
        let size = height.checked_mul(width).and_then(|pixels| pixels.checked_mul(3));
        let pixels = size.and_then(|size| data.get(at.checked_mul(size)?..)?.get(..size));
        let pixels =
            pixels.ok_or_else(|| invalid(format!("the tensor `{name}` has no item {at}")))?;
        Ok(ppm(height, width, pixels))
    }
}

/// Returns 8-bit RGB pixels as a file, which the decoders read.
pub(crate) fn ppm(height: usize, width: usize, pixels: &[u8]) -> Bytes {
    let mut file = format!("P6\n{width} {height}\n255\n").into_bytes();
    file.extend_from_slice(pixels);
    file.into()
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    fn body(name: &str, dtype: Dtype, shape: &[usize], data: &[u8]) -> Bytes {
        let tensor = TensorView::new(dtype, shape.to_vec(), data).unwrap();
        let metadata = [("request".to_owned(), "{}".to_owned())].into();
        safetensors::serialize([(name, tensor)], Some(metadata)).unwrap().into()
    }

    #[test]
    fn images_are_found_by_index_and_by_name() {
        let pixels: Vec<u8> = (0..12).collect();
        let (tensors, request) =
            Tensors::parse(body("images", Dtype::U8, &[2, 1, 2, 3], &pixels)).unwrap();
        assert_eq!(request, "{}");
        assert_eq!(
            tensors.image("images", 1).unwrap()[..],
            *b"P6\n2 1\n255\n\x06\x07\x08\x09\x0a\x0b"
        );
        for (name, at) in [("images", 2), ("images", usize::MAX), ("references", 0)] {
            assert!(tensors.image(name, at).is_err(), "{name} {at}");
        }
        let (own, _) = Tensors::parse(body("images.7", Dtype::U8, &[1, 4, 3], &pixels)).unwrap();
        assert!(own.image("images", 7).unwrap().starts_with(b"P6\n4 1\n255\n"));
    }

    #[test]
    fn other_shapes_types_and_bodies_are_refused() {
        let refused = |name, dtype, shape: &[usize], data: &[u8]| {
            let (tensors, _) = Tensors::parse(body(name, dtype, shape, data)).unwrap();
            assert!(tensors.image("images", 0).is_err(), "{name} {dtype:?} {shape:?}");
        };
        refused("images", Dtype::U8, &[1, 3, 2, 2], &[0; 12]);
        refused("images", Dtype::U8, &[2, 2, 3], &[0; 12]);
        refused("images.0", Dtype::U8, &[12], &[0; 12]);
        refused("images", Dtype::F32, &[1, 1, 1, 3], &[0; 12]);
        refused("images", Dtype::U8, &[0, 1 << 62, 4, 3], &[]);
        for bytes in
            [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", b"\x02\0\0\0\0\0\0\0{}", b"junk"]
        {
            assert!(Tensors::parse(Bytes::from_static(bytes)).is_err(), "{bytes:?}");
        }
    }
}
