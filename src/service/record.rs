//! Converts a scored sample to the row that is stored.

use uuid::Uuid;

use crate::{
    VERSION, clock,
    pack_id::PackId,
    scoring::{EncodedImage, MetricScore, Sample, Scorecard},
    store::{Extras, NewSample, NewScore, SampleInputs, ScoreValue},
};

/// Builds the row of a sample without a run, a name and extras, which the caller adds.
///
/// Metrics that the pack or a missing dataset does not allow were not measured, and leave no score.
#[must_use]
pub fn new_sample(sample: &Sample, card: &Scorecard, pack: PackId) -> NewSample {
    let hashes = |images: &[EncodedImage]| images.iter().map(|image| image.hash).collect();
    NewSample {
        id: Uuid::now_v7(),
        created: clock::now(),
        run: None,
        name: None,
        inputs: SampleInputs {
            content: sample.content(),
            prompt: sample.prompt.clone(),
            image: sample.image.hash,
            references: hashes(&sample.references),
            auxiliary: hashes(&sample.auxiliary),
            metadata: serde_json::to_value(&sample.metadata).expect("plain data always serialises"),
        },
        width: sample.image.header.width,
        height: sample.image.header.height,
        pack,
        service_version: VERSION.to_owned(),
        scores: card
            .scores
            .iter()
            .filter(|score| score.outcome.as_ref().err().is_none_or(|reason| reason.was_measured()))
            .map(|MetricScore { metric, outcome }| NewScore {
                metric: metric.code.to_owned(),
                metric_version: metric.version,
                value: match outcome {
                    Ok(score) => ScoreValue::Number(score.value),
                    Err(reason) => ScoreValue::Null { reason: reason.code().to_owned() },
                },
                flags: outcome
                    .iter()
                    .flat_map(|score| &score.flags)
                    .map(|flag| flag.code().to_owned())
                    .collect(),
            })
            .collect(),
        extras: Extras::default(),
    }
}
