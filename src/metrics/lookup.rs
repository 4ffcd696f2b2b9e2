//! Finds metrics of the registry by code, family and reading order.

use super::registry::{Metric, REGISTRY};

/// Returns the metric with this code.
#[must_use]
pub fn find(code: &str) -> Option<&'static Metric> {
    REGISTRY.iter().find(|metric| metric.code == code)
}

/// Returns all metrics in the order in which readers meet them: by topic, identity first.
#[must_use]
pub fn in_reading_order() -> Vec<&'static Metric> {
    let mut metrics: Vec<_> = REGISTRY.iter().collect();
    metrics.sort_by_key(|metric| metric.guide.topic);
    metrics
}

/// Returns all metrics by family, each in the order of the registry.
#[must_use]
pub fn by_family() -> Vec<&'static Metric> {
    let mut metrics: Vec<_> = REGISTRY.iter().collect();
    metrics.sort_by_key(|metric| metric.family);
    metrics
}

/// Error in a list of metric codes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A code that no metric has.
    #[error("unknown metric `{code}`: the metrics are {known}")]
    Unknown {
        /// The requested code.
        code: String,
        /// The known codes.
        known: String,
    },
    /// The list has no codes.
    #[error(
        "the list of metrics is empty: omit it to get all, or send codes as in clip_t,aesthetic"
    )]
    Empty,
}

impl ListError {
    /// Returns the error for a code that no metric has.
    #[must_use]
    pub fn unknown(code: &str) -> Self {
        let known: Vec<_> = REGISTRY.iter().map(|metric| metric.code).collect();
        Self::Unknown { code: code.chars().take(80).collect(), known: known.join(", ") }
    }
}

/// Parses a comma-separated list of codes into metrics, each once, in the order of the list.
pub fn parse_list(codes: &str) -> Result<Vec<&'static Metric>, ListError> {
    let mut chosen: Vec<&'static Metric> = Vec::new();
    for code in codes.split(',').map(str::trim).filter(|code| !code.is_empty()) {
        let metric = find(code).ok_or_else(|| ListError::unknown(code))?;
        if !chosen.iter().any(|already| already.code == metric.code) {
            chosen.push(metric);
        }
    }
    if chosen.is_empty() { Err(ListError::Empty) } else { Ok(chosen) }
}

/// Reads codes separated by commas, each once.
///
/// # Errors
/// See [`parse_list`].
pub fn parse_codes(codes: &str) -> Result<Vec<String>, ListError> {
    Ok(parse_list(codes)?.into_iter().map(|metric| metric.code.to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, HashSet},
        sync::Arc,
    };

    use super::*;
    use crate::{
        metrics::{
            AttributeInputs, Family, FeatureSet, FeatureSource, Input, Label, LabelledFace,
            Mapping, Objects, Probes, Relations, Sought, Subject,
        },
        tensor::{Features, Output},
        text::relations::annotated,
    };

    #[test]
    fn codes_are_unique_and_found() {
        let codes: HashSet<_> = REGISTRY.iter().map(|metric| metric.code).collect();
        assert_eq!(codes.len(), REGISTRY.len());
        assert!(codes.iter().all(|code| find(code).is_some()));
        assert!(find("beauty").is_none());
    }

    #[test]
    fn a_family_reads_what_its_name_says() {
        let reads = |metric: &Metric, of: Subject| metric.needs.iter().any(|need| need.of == of);
        for metric in REGISTRY {
            let (text, reference) = (
                reads(metric, Subject::Prompt) || reads(metric, Subject::ImageWithPrompt),
                reads(metric, Subject::References),
            );
            let is = |family| metric.family == family;
            let is_support = metric.direction == super::super::Direction::Support;
            assert_eq!(is(Family::Support), is_support, "{}", metric.code);
            if !is_support {
                assert_eq!(is(Family::TextToImage), text, "{}", metric.code);
                let with_image = is(Family::ImageToImage) || is(Family::Personalised);
                assert!(with_image || !reference, "{}", metric.code);
                assert_eq!(is(Family::Object), reads(metric, Subject::Objects), "{}", metric.code);
                let relations = reads(metric, Subject::Relations);
                assert_eq!(is(Family::Relation), relations, "{}", metric.code);
            }
        }
        assert_eq!(by_family().len(), REGISTRY.len());
        assert!(by_family().is_sorted_by_key(|metric| metric.family));
    }

    #[test]
    fn a_list_names_each_metric_once_in_its_own_order() {
        let codes =
            |list| parse_list(list).map(|chosen| chosen.iter().map(|m| m.code).collect::<Vec<_>>());
        assert_eq!(codes(" clip_i, clip_t ,clip_i").unwrap(), ["clip_i", "clip_t"]);
        assert_eq!(codes("clip_t,beauty"), Err(ListError::unknown("beauty")));
        assert_eq!(codes(" , "), Err(ListError::Empty));
    }

    /// A metric that reads a feature missing from its row panics here.
    #[test]
    fn every_metric_reads_only_what_its_row_names() {
        for metric in REGISTRY {
            let label = Label { text: "dog".into(), truncated: false };
            let objects = Objects { labels: vec![label], size: (1, 1), ..Default::default() };
            let sought = ["riding", "near"].map(|predicate| Sought {
                relation: annotated(&[["person".into(), predicate.into(), "dog".into()]]).remove(0),
                mapping: Ok(Mapping { predicates: vec![0], exact: Some(0), ..Default::default() }),
            });
            let relations = Relations { sought: sought.to_vec(), ..Default::default() };
            let auxiliary = usize::from(metric.needs.iter().any(|need| need.of == Subject::Photos));
            let mut features = FeatureSet::new(1)
                .with_auxiliary(auxiliary)
                .with_objects(Arc::new(objects))
                .with_relations(Arc::new(relations));
            let young = |young| BTreeMap::from([("Young".to_owned(), young)]);
            let labels = [young(true), young(false)];
            let faces = [(&labels[0], [1.0, 0.0]), (&labels[1], [-1.0, 0.0])];
            let faces: Vec<_> = faces
                .iter()
                .map(|(attributes, embedding)| LabelledFace { embedding, attributes, weight: 1.0 })
                .collect();
            for need in metric.needs {
                if need.of == Subject::Dataset {
                    let probes = Arc::new(Probes::fit(&faces).unwrap());
                    features =
                        features.with_attributes(AttributeInputs { probes, targets: young(true) });
                    continue;
                }
                let inputs = match need.of {
                    Subject::Image | Subject::Relations => vec![Input::Image],
                    Subject::Prompt => vec![Input::Prompt],
                    Subject::References => vec![Input::Reference(0)],
                    Subject::Photos => vec![Input::Reference(0), Input::Auxiliary(0)],
                    Subject::ImageWithPrompt => vec![Input::ImageWithPrompt],
                    Subject::Objects => vec![Input::Objects],
                    Subject::Dataset => unreachable!("prepared above"),
                };
                let tensor = |shape| Output { shape, data: vec![0.5] };
                for input in inputs {
                    // Faces of one person, all different.
                    let face = match input {
                        Input::Reference(_) => vec![0.9, 0.5],
                        Input::Auxiliary(_) => vec![0.4, 1.0],
                        _ => vec![1.0, 0.2],
                    };
                    let embedding = if need.source == FeatureSource::Faces {
                        Output { shape: vec![1, 2], data: face }
                    } else {
                        tensor(vec![1])
                    };
                    features.insert(
                        need.source,
                        input,
                        Arc::new(Features::new(vec![
                            ("embedding".into(), embedding),
                            ("aesthetic".into(), tensor(vec![])),
                            ("reward".into(), tensor(vec![])),
                            ("logits".into(), tensor(vec![1, 1])),
                            ("boxes".into(), Output { shape: vec![1, 4], data: vec![0.5; 4] }),
                            ("person".into(), tensor(vec![1])),
                            ("classes".into(), tensor(vec![1, 1])),
                            ("tie".into(), tensor(vec![1, 1])),
                            ("subject".into(), tensor(vec![1, 1])),
                        ])),
                    );
                }
            }
            assert!((metric.compute)(&features).unwrap().value.is_finite(), "{}", metric.code);
        }
    }
}
