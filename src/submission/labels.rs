//! Differences in the texts of a bundle: what no service writes, and a store would refuse.

use super::archive::Bundle;
use crate::label::{self, LabelError};
use crate::pack_id::Weights;

/// Most versions of the service that scored a run.
const MOST_VERSIONS: usize = 16;

/// Most objects and relations of a prompt. A service may allow fewer.
const MOST_WORDS: usize = 4_096;

/// Returns an untrusted name for a message.
#[must_use]
pub fn shown(name: &str) -> String {
    label::visible(name).chars().take(80).collect()
}

/// Returns the differences in the texts of a bundle.
pub(super) fn labels(bundle: &Bundle) -> Vec<String> {
    let facts = &bundle.facts;
    let mut differences = Vec::new();
    let mut check = |what: &str, problem: Option<LabelError>| {
        if let Some(problem) = problem {
            differences.push(format!("{what} of submission.json {problem}"));
        }
    };
    let optional = [("the dataset", &facts.dataset), ("the split", &facts.split)];
    for (what, name) in optional.into_iter().filter_map(|(what, name)| Some((what, name.as_ref()?)))
    {
        check(what, label::clean(name).err());
    }
    check("the program", label::clean(&facts.program).err());
    for version in &facts.service_versions {
        check("a version in service_versions", label::clean(version).err());
    }
    for metric in facts.metrics.keys() {
        check("a metric", label::clean(metric).err());
    }
    if facts.service_versions.len() > MOST_VERSIONS {
        differences.push(format!("service_versions has more than {MOST_VERSIONS} versions"));
    }
    if facts.pack.weights == Weights::Imported {
        differences
            .push("the scores were imported: only computed ones can be submitted".to_owned());
    }
    for sample in &bundle.samples {
        if let Err(problem) = sample.metadata.clone().clean(MOST_WORDS) {
            differences.push(format!("sample {}: {problem}", shown(&sample.name)));
        }
    }
    differences
}
