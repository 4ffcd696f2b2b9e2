//! The evidence of a sample's scores: as responses show it, and as it is stored.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
};

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, read::ZlibDecoder, write::ZlibEncoder};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use utoipa::ToSchema;

use crate::{
    engine::Pack,
    metrics::{AttributePrediction, Explanation},
    scoring::{ImageFaces, MetricScore, ObjectEvidence, RelationEvidence, Scorecard, TextEvidence},
};

/// Limit of the stored evidence of one sample, in bytes. Beyond it, only the beginning of each list
/// is stored.
const MOST_BYTES: usize = 32 << 10;

/// Limit of the same when it is read, without compression.
const MOST_TEXT_BYTES: u64 = 16 << 20;

/// Lengths to which lists are cut until the evidence fits.
const LENGTHS: [usize; 4] = [64, 16, 4, 1];

/// What most evidence contains: it halves the stored bytes. It is part of the format of version 1,
/// so it never changes: another dictionary needs another version.
const DICTIONARY: &[u8] = include_bytes!("evidence_1.txt");

/// The first stored byte.
const VERSION: u8 = 1;

/// Significant digits of stored numbers: boxes to a hundredth of a pixel.
const DIGITS: usize = 6;

/// Evidence behind the scores.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// One entry for each text model, on how it read the prompt.
    pub texts: Vec<TextEvidence>,
    /// The checkpoint behind each metric that has a number, by code: for `hpsv2` it names the
    /// version.
    pub checkpoints: BTreeMap<String, String>,
    /// Further numbers behind a metric's value, by code: `pick_score` has `published_scale`, its
    /// value times the model's logit scale.
    pub details: BTreeMap<String, BTreeMap<String, f64>>,
    /// The faces found in each image, if a metric looks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faces: Vec<ImageFaces>,
    /// The most similar faces of the generated image and each reference or auxiliary image, by code
    /// of the metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub matches: BTreeMap<String, Vec<Match>>,
    /// Detection of each object in `detectables`, if a metric looks for objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectEvidence>,
    /// Detection of each relation of the prompt, if a metric looks for relations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relations: Vec<RelationEvidence>,
    /// Prediction of `aps` for each facial attribute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<AttributePrediction>,
}

/// A pair of matched faces.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Match {
    /// The reference or auxiliary image: `reference[0]`, `auxiliary[0]` and so on.
    #[schema(example = "reference[0]")]
    pub photo: String,
    /// Index of the face of the generated image, from 0 in the order of `faces`.
    pub image_face: usize,
    /// Index of the face of the reference or auxiliary image.
    pub photo_face: usize,
    /// Cosine similarity of their embeddings.
    pub cosine: f64,
}

impl Evidence {
    /// Collects the evidence of a scorecard.
    #[must_use]
    pub fn of(card: &Scorecard, pack: &Pack) -> Self {
        let mut evidence = Self {
            texts: card.texts.clone(),
            checkpoints: BTreeMap::new(),
            details: BTreeMap::new(),
            faces: card.faces.clone(),
            matches: BTreeMap::new(),
            objects: card.objects.clone(),
            relations: card.relations.clone(),
            attributes: Vec::new(),
        };
        for MetricScore { metric, outcome } in &card.scores {
            let (Ok(score), code) = (outcome, metric.code.to_owned()) else { continue };
            let first = metric.needs.first();
            if let Some(graph) = first.and_then(|need| pack.graph(need.source.name())) {
                evidence.checkpoints.insert(code.clone(), graph.source.checkpoint.clone());
            }
            match &score.explanation {
                Explanation::Nothing | Explanation::Objects(_) => {}
                Explanation::Detail(name, value) => {
                    let detail = BTreeMap::from([((*name).to_owned(), *value)]);
                    evidence.details.insert(code, detail);
                }
                Explanation::Matches(pairs) => {
                    let named = pairs.iter().map(|pair| Match {
                        photo: pair.photo.to_string(),
                        image_face: pair.image_face,
                        photo_face: pair.photo_face,
                        cosine: pair.cosine,
                    });
                    evidence.matches.insert(code, named.collect());
                }
                Explanation::Predictions(predictions) => {
                    evidence.attributes.extend(predictions.iter().cloned());
                }
            }
        }
        evidence
    }

    /// Returns the evidence as it is stored: compressed, with numbers of six digits and without
    /// embeddings, which identify people. Without `faces`, it has no faces at all. `None` if it is
    /// too large even with short lists.
    #[must_use]
    pub fn to_stored(&self, faces: bool) -> Option<Bytes> {
        let mut kept = self.clone();
        if !faces {
            kept.faces.clear();
        }
        for face in kept.faces.iter_mut().flat_map(|of| &mut of.faces) {
            face.embedding = None;
        }
        let mut lengths = LENGTHS.into_iter();
        loop {
            let mut value = serde_json::to_value(&kept).expect("plain data always serialises");
            round(&mut value);
            let bytes = compress(value.to_string().as_bytes()).expect("memory takes all bytes");
            if bytes.len() <= MOST_BYTES {
                return Some(bytes.into());
            }
            kept.shorten(lengths.next()?);
        }
    }

    /// Reads stored evidence.
    ///
    /// # Errors
    /// Fails if the bytes are not those of [`to_stored`](Self::to_stored).
    pub fn from_stored(bytes: &[u8]) -> io::Result<Self> {
        let Some((&VERSION, bytes)) = bytes.split_first() else {
            return Err(io::Error::other("the evidence is of an unknown version"));
        };
        let mut inflate = Decompress::new(false);
        inflate.set_dictionary(DICTIONARY)?;
        let mut text = Vec::new();
        let decoder = ZlibDecoder::new_with_decompress(bytes, inflate);
        decoder.take(MOST_TEXT_BYTES).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Adds evidence of later scores of the same sample, which goes first.
    pub fn merge(&mut self, later: Self) {
        /// Replaces entries about the same thing, and adds the others.
        fn newer<T, K: PartialEq>(earlier: &mut Vec<T>, later: Vec<T>, key: impl Fn(&T) -> K) {
            earlier.retain(|old| !later.iter().any(|new| key(new) == key(old)));
            earlier.extend(later);
        }
        newer(&mut self.texts, later.texts, |of| of.graph.clone());
        newer(&mut self.faces, later.faces, |of| of.of.clone());
        newer(&mut self.objects, later.objects, |of| of.label.clone());
        newer(&mut self.attributes, later.attributes, |of| of.attribute.clone());
        // All relations of a prompt are found together.
        if !later.relations.is_empty() {
            self.relations = later.relations;
        }
        self.checkpoints.extend(later.checkpoints);
        self.details.extend(later.details);
        self.matches.extend(later.matches);
    }

    fn shorten(&mut self, length: usize) {
        self.objects.truncate(length);
        self.relations.truncate(length);
        self.attributes.truncate(length);
        self.faces.truncate(length);
        self.faces.iter_mut().for_each(|of| of.faces.truncate(length));
        self.matches.values_mut().for_each(|pairs| pairs.truncate(length));
    }
}

fn compress(text: &[u8]) -> io::Result<Vec<u8>> {
    // Without a header: the version says what the bytes are.
    let mut deflate = Compress::new(Compression::default(), false);
    deflate.set_dictionary(DICTIONARY).map_err(io::Error::other)?;
    let mut encoder = ZlibEncoder::new_with_compress(vec![VERSION], deflate);
    encoder.write_all(text)?;
    encoder.finish()
}

/// Rounds all fractions: their last digits say nothing and do not compress.
fn round(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let rounded = number.as_f64().and_then(|value| {
                let digits = DIGITS - 1;
                format!("{value:.digits$e}").parse().ok().and_then(Number::from_f64)
            });
            if let Some(rounded) = rounded {
                *number = rounded;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(round),
        Value::Object(fields) => fields.values_mut().for_each(round),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::{FaceEvidence, TextEvidence};

    fn evidence(images: usize, faces: usize) -> Evidence {
        let face = |at: usize| FaceEvidence {
            corners: [0.1 + at as f32 / 3.0, 20.123_456, 3.0, 1.0 / 3.0],
            probability: 0.999_123_4,
            landmarks: [[at as f32 * 1.77, 2.0]; 5],
            embedding: Some(vec![0.5; 512]),
        };
        let of = |at: usize| ImageFaces {
            of: format!("auxiliary[{at}]"),
            size: None,
            faces: (0..faces).map(face).collect(),
        };
        Evidence {
            texts: Vec::new(),
            checkpoints: BTreeMap::from([("ips".to_owned(), "weights".to_owned())]),
            details: BTreeMap::new(),
            faces: (0..images).map(of).collect(),
            matches: BTreeMap::new(),
            objects: Vec::new(),
            relations: Vec::new(),
            attributes: Vec::new(),
        }
    }

    #[test]
    fn stored_evidence_has_short_numbers_and_no_embeddings() {
        let stored = evidence(1, 2).to_stored(true).unwrap();
        let read = Evidence::from_stored(&stored).unwrap();
        let face = &read.faces[0].faces[1];
        assert_eq!((face.corners[1], face.probability), (20.1235, 0.999_123));
        assert_eq!((read.faces[0].faces.len(), &face.embedding), (2, &None));
        let faceless = Evidence::from_stored(&evidence(1, 2).to_stored(false).unwrap()).unwrap();
        assert!(faceless.faces.is_empty());
        assert_eq!(faceless.checkpoints["ips"], "weights");
    }

    #[test]
    fn stored_evidence_is_bounded() {
        let stored = evidence(80, 300).to_stored(true).unwrap();
        assert!(stored.len() <= MOST_BYTES, "{}", stored.len());
        let faces = &Evidence::from_stored(&stored).unwrap().faces;
        assert!(!faces.is_empty() && faces.len() < 80, "{}", faces.len());
    }

    #[test]
    fn later_evidence_adds_to_earlier() {
        let mut first = evidence(1, 1);
        let mut second = evidence(0, 0);
        second.checkpoints = BTreeMap::from([("goa".to_owned(), "other".to_owned())]);
        first.merge(second);
        assert_eq!((first.faces.len(), first.checkpoints.len()), (1, 2));
    }

    #[test]
    fn corrupt_bytes_are_an_error() {
        let stored = evidence(1, 1).to_stored(true).unwrap();
        for bytes in [&b""[..], b"{}", &stored[..stored.len() / 2], &stored[1..]] {
            assert!(Evidence::from_stored(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn later_evidence_replaces_what_it_is_about_and_keeps_the_rest() {
        let text = |graph: &str, tokens| TextEvidence {
            graph: graph.to_owned(),
            tokens,
            context: 77,
            truncated: false,
        };
        let (mut earlier, mut later) = (evidence(2, 1), evidence(1, 3));
        earlier.texts = vec![text("clip.text", 9), text("pick.text", 9)];
        later.texts = vec![text("pick.text", 11)];
        earlier.merge(later);
        let tokens: Vec<_> = earlier.texts.iter().map(|of| (&*of.graph, of.tokens)).collect();
        assert_eq!(tokens, [("clip.text", 9), ("pick.text", 11)]);
        let mut faces: Vec<_> = earlier.faces.iter().map(|of| of.faces.len()).collect();
        faces.sort_unstable();
        assert_eq!(faces, [1, 3], "one image is new, the other stays");
    }
}
