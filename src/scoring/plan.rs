//! Plans the features of a sample that a set of metrics needs: each (source, input) pair once.

use super::{MetricScore, Sample};
use crate::metrics::{
    self, FeatureSet, FeatureSource, Input, Metric, NullReason, Relations, Subject,
};

/// The work of one request.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Source and input of every feature to compute, in the order of responses.
    pub(super) features: Vec<(FeatureSource, Input)>,
    /// Every requested metric, with the reason if it cannot be computed.
    pub(super) metrics: Vec<(&'static Metric, Option<NullReason>)>,
}

impl Plan {
    /// Returns true if a computable metric needs this part of the sample.
    pub(super) fn measures(&self, subject: Subject) -> bool {
        let about = |metric: &Metric| metric.needs.iter().any(|need| need.of == subject);
        self.metrics.iter().any(|(metric, obstacle)| obstacle.is_none() && about(metric))
    }

    /// Applies the metrics to the computed features.
    pub(super) fn apply(&self, features: &FeatureSet) -> Vec<MetricScore> {
        let score = |&(metric, obstacle): &(&'static Metric, Option<NullReason>)| MetricScore {
            metric,
            outcome: obstacle.map_or_else(|| (metric.compute)(features), Err),
        };
        self.metrics.iter().map(score).collect()
    }
}

/// Plans `metrics` for `sample` with these relations. `available` returns true if the pack has the
/// graphs of a source.
pub(super) fn plan(
    sample: &Sample,
    metrics: &[&'static Metric],
    relations: &Relations,
    available: impl Fn(FeatureSource) -> bool,
) -> Plan {
    let mut plan = Plan::default();
    for &metric in metrics {
        let obstacle = if metric.needs.iter().all(|need| available(need.source)) {
            metric.needs.iter().find_map(|need| lacks(sample, relations, need.of))
        } else {
            Some(NullReason::Unavailable)
        };
        if obstacle.is_none() {
            for need in metric.needs.iter().filter(|need| need.of != Subject::Dataset) {
                let inputs = inputs(sample, need.of).into_iter();
                plan.features.extend(inputs.map(|input| (need.source, input)));
            }
        }
        plan.metrics.push((metric, obstacle));
    }
    // Objects of relations are located by their words if the pack can do that.
    if relations.grounded && plan.measures(Subject::Relations) {
        plan.features.push((FeatureSource::Objects, Input::Objects));
    }
    plan.features.sort_unstable_by_key(|&(source, input)| (source.name(), input));
    plan.features.dedup();
    plan
}

/// Returns the reason if the sample has nothing to measure for `subject`.
fn lacks(sample: &Sample, relations: &Relations, subject: Subject) -> Option<NullReason> {
    let there = match subject {
        Subject::Dataset => sample.dataset.is_some(),
        Subject::Relations if relations.sought.is_empty() => false,
        Subject::Relations => {
            return (!relations.any_mapped()).then_some(NullReason::NoMappedRelations);
        }
        subject => !inputs(sample, subject).is_empty(),
    };
    (!there).then(|| subject.missing())
}

/// Returns the inputs that graphs are run on. A dataset has none: its photos were processed at
/// enrolment.
fn inputs(sample: &Sample, subject: Subject) -> Vec<Input> {
    match subject {
        Subject::Image | Subject::Relations => vec![Input::Image],
        Subject::Dataset => Vec::new(),
        Subject::Prompt => sample.prompt.iter().map(|_| Input::Prompt).collect(),
        Subject::ImageWithPrompt => sample.prompt.iter().map(|_| Input::ImageWithPrompt).collect(),
        Subject::Objects => {
            let (labels, _) = metrics::choose(&sample.metadata.detectables);
            labels.first().map(|_| Input::Objects).into_iter().collect()
        }
        Subject::References => (0..sample.references.len()).map(Input::Reference).collect(),
        Subject::Photos => {
            let references = (0..sample.references.len()).map(Input::Reference);
            references.chain((0..sample.auxiliary.len()).map(Input::Auxiliary)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics::{Mapping, REGISTRY, Sought, Unmapped},
        scoring::sample::tests::sample,
        text::relations::annotated,
    };

    fn all() -> Vec<&'static Metric> {
        REGISTRY.iter().collect()
    }

    fn plan(
        sample: &Sample,
        metrics: &[&'static Metric],
        available: impl Fn(FeatureSource) -> bool,
    ) -> Plan {
        super::plan(sample, metrics, &Relations::default(), available)
    }

    fn obstacle(plan: &Plan, code: &str) -> Option<NullReason> {
        plan.metrics.iter().find(|(metric, _)| metric.code == code).unwrap().1
    }

    #[test]
    fn a_feature_that_several_metrics_need_is_planned_once() {
        let plan = plan(&sample(Some("a person"), 1), &all(), |_| true);
        let of_clip: Vec<_> =
            plan.features.iter().filter(|(source, _)| source.name().starts_with("clip.")).collect();
        assert_eq!(
            of_clip,
            [
                &(FeatureSource::Image("clip.image"), Input::Image),
                &(FeatureSource::Image("clip.image"), Input::Reference(0)),
                &(FeatureSource::Text("clip.text"), Input::Prompt)
            ]
        );
    }

    #[test]
    fn a_missing_input_gives_a_reason_and_plans_no_features() {
        let plan = plan(&sample(None, 0), &all(), |_| true);
        assert_eq!(obstacle(&plan, "clip_t"), Some(NullReason::NoPrompt));
        assert_eq!(obstacle(&plan, "clip_i"), Some(NullReason::NoReference));
        assert_eq!(obstacle(&plan, "aesthetic"), None);
        assert_eq!(obstacle(&plan, "rfs"), Some(NullReason::NoRelations));
        assert!(!plan.features.contains(&(FeatureSource::Text("clip.text"), Input::Prompt)));
    }

    #[test]
    fn an_empty_prompt_is_a_prompt() {
        let plan = plan(&sample(Some(""), 0), &all(), |_| true);
        assert_eq!(obstacle(&plan, "clip_t"), None);
    }

    #[test]
    fn only_mapped_relations_run_the_scene_graph() {
        let sample = sample(Some("a person riding a horse"), 0);
        let relation = annotated(&[["person".into(), "riding".into(), "horse".into()]]).remove(0);
        let with = |mapping, grounded| {
            let sought = vec![Sought { relation: relation.clone(), mapping }];
            super::plan(
                &sample,
                &all(),
                &Relations { sought, grounded, ..Relations::default() },
                |_| true,
            )
        };
        let unmapped = with(Err(Unmapped::Predicate), true);
        assert_eq!(obstacle(&unmapped, "rfs"), Some(NullReason::NoMappedRelations));
        let asked = |plan: &Plan| {
            [(FeatureSource::Relations, Input::Image), (FeatureSource::Objects, Input::Objects)]
                .map(|feature| plan.features.contains(&feature))
        };
        assert_eq!(asked(&unmapped), [false, false]);
        assert_eq!(asked(&with(Ok(Mapping::default()), false)), [true, false]);
        assert_eq!(asked(&with(Ok(Mapping::default()), true)), [true, true]);
    }

    #[test]
    fn a_pack_without_a_graph_makes_its_metrics_unavailable_and_leaves_the_others() {
        let plan =
            plan(&sample(Some("a person"), 1), &all(), |source| source.name() != "clip_l.image");
        assert_eq!(obstacle(&plan, "aesthetic"), Some(NullReason::Unavailable));
        assert_eq!(obstacle(&plan, "clip_t"), None);
    }
}
