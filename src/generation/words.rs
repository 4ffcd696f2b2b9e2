//! Words: the vectors that stand for a person, made from a photo or learned for one.

use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};

use super::GenerationError;
use super::tower::Tower;

/// Files of words that were learned, for the first and second text tower: those of diffusers'
/// script for Textual Inversion with SDXL.
pub const WORD_FILES: [&str; 2] = ["learned_embeds.safetensors", "learned_embeds_2.safetensors"];

/// Vectors that stand for a person in a prompt.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Words {
    /// The vectors of each text tower, one after the other.
    pub(super) vectors: [Arc<[f32]>; 2],
    /// Vectors in each text tower.
    pub(super) count: usize,
}

impl Words {
    /// Reads words from the content of [`WORD_FILES`], for these text towers.
    pub(super) fn read(towers: &[Tower; 2], files: [&[u8]; 2]) -> Result<Self, GenerationError> {
        let read = |at: usize| {
            let (file, tower) = (WORD_FILES[at], &towers[at]);
            tensor(files[at], tower.width, tower.frame.most_words())
                .map_err(|problem| GenerationError::Words { file, problem })
        };
        let ((first, count), (second, other)) = (read(0)?, read(1)?);
        if count != other {
            let problem = format!(
                "has {other} words, but {} has {count}: give both files of one training",
                WORD_FILES[0]
            );
            return Err(GenerationError::Words { file: WORD_FILES[1], problem });
        }
        Ok(Self { vectors: [first, second], count })
    }
}

/// Reads the only tensor of a file. Returns its values and the number of words.
fn tensor(bytes: &[u8], width: usize, most: usize) -> Result<(Arc<[f32]>, usize), String> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| format!("is not a safetensors file: {error}"))?;
    let mut tensors = file.iter();
    let (Some((_, tensor)), None) = (tensors.next(), tensors.next()) else {
        return Err(format!("has {} tensors, expected one", file.len()));
    };
    if tensor.dtype() != Dtype::F32 {
        return Err(format!("has values of type {}, expected F32: convert them", tensor.dtype()));
    }
    let &[count, found] = tensor.shape() else {
        return Err(format!(
            "has a tensor of shape {:?}, expected [words, {width}]",
            tensor.shape()
        ));
    };
    if found != width {
        return Err(format!(
            "has vectors of {found} values, but those of the pack have {width}: they were learned \
                with another base model"
        ));
    }
    if !(1..=most).contains(&count) {
        return Err(format!("has {count} words, expected 1 to {most}"));
    }
    let values: Arc<[f32]> =
        tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    if values.iter().any(|value| !value.is_finite()) {
        return Err("has values that are not finite: repeat the training".to_owned());
    }
    Ok((values, count))
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::generation::fake::fakes;

    fn file(tensors: &[(&str, Dtype, &[usize], f32)]) -> Vec<u8> {
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, dtype, shape, value)| {
                let size = shape.iter().product::<usize>();
                let value =
                    if *dtype == Dtype::F32 { value.to_le_bytes().to_vec() } else { vec![0; 2] };
                value.repeat(size)
            })
            .collect();
        let views = tensors.iter().zip(&bytes).map(|((name, dtype, shape, _), bytes)| {
            (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    #[tokio::test]
    async fn words_are_read_and_what_does_not_fit_is_refused() {
        let generator = fakes().generator;
        let good = |count: usize, width: usize| file(&[("<p>", Dtype::F32, &[count, width], 0.5)]);
        let words = generator.read_words([&good(3, 32), &good(3, 40)]).unwrap();
        assert_eq!(words.count, 3);
        assert_eq!(words.vectors.each_ref().map(|each| each.len()), [96, 120]);
        let half = 0.5_f32.to_bits();
        assert!(words.vectors.iter().flat_map(|each| each.iter()).all(|of| of.to_bits() == half));
        let cases = [
            (b"junk".to_vec(), good(3, 40), "learned_embeds.safetensors is not a safetensors"),
            (file(&[]), good(3, 40), "has 0 tensors"),
            (
                file(&[("a", Dtype::F32, &[1, 32], 0.0), ("b", Dtype::F32, &[1, 32], 0.0)]),
                good(1, 40),
                "has 2 tensors",
            ),
            (file(&[("a", Dtype::F16, &[1, 32], 0.0)]), good(1, 40), "type F16"),
            (file(&[("a", Dtype::F32, &[32], 0.0)]), good(1, 40), "shape [32]"),
            (good(3, 40), good(3, 40), "vectors of 40 values"),
            (good(0, 32), good(0, 40), "has 0 words, expected 1 to 75"),
            (good(76, 32), good(76, 40), "has 76 words"),
            (good(3, 32), good(2, 40), "learned_embeds_2.safetensors has 2 words"),
            (file(&[("a", Dtype::F32, &[1, 32], f32::NAN)]), good(1, 40), "not finite"),
        ];
        for (first, second, reason) in cases {
            let error = generator.read_words([&first, &second]).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }
}
