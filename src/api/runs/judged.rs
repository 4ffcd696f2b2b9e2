//! The judged attributes of a run, as they are cached.

use uuid::Uuid;

use crate::metrics::{ATTRIBUTES, AttributePrediction, AttributeSummary, LeftOut};

/// A judged run.
pub(crate) struct JudgedRun {
    pub(crate) auc: Option<f64>,
    pub(crate) faceless_references: usize,
    pub(crate) without_reference: usize,
    pub(crate) unknown_faces: usize,
    pub(crate) attributes: Vec<AttributeSummary>,
    pub(crate) samples: Vec<JudgedSample>,
}

impl JudgedRun {
    /// Returns an estimate of its memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let of_sample = |sample: &JudgedSample| {
            size_of::<JudgedSample>() + sample.name.len() + size_of_val(&*sample.predictions) + 32
        };
        self.samples.iter().map(of_sample).sum()
    }
}

/// A judged sample, in a third of the memory of its entry in a response.
pub(crate) struct JudgedSample {
    pub(crate) id: Uuid,
    pub(crate) name: Box<str>,
    pub(crate) predictions: Box<[Said]>,
}

pub(crate) struct Said {
    pub(crate) attribute: &'static str,
    pub(crate) target: Option<bool>,
    pub(crate) prediction: Option<bool>,
    pub(crate) decision: Option<f64>,
    pub(crate) left_out: Option<LeftOut>,
}

impl JudgedSample {
    pub(crate) fn new(id: Uuid, name: String, predictions: Vec<AttributePrediction>) -> Self {
        let said = predictions.into_iter().filter_map(|each| {
            let attribute = ATTRIBUTES.into_iter().find(|name| *name == each.attribute)?;
            let AttributePrediction { target, prediction, decision, left_out, .. } = each;
            Some(Said { attribute, target, prediction, decision, left_out })
        });
        Self { id, name: name.into(), predictions: said.collect() }
    }
}
