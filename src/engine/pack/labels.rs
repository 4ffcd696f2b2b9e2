//! Class and predicate names of a scene graph, from a file listed in the graph's entry.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::spec::{Dim, GraphSpec, TensorSpec};
use crate::tensor::Dtype;

/// Names for the outputs of a scene graph, from a JSON object in the pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// Object names, in the order of the class probabilities. One further column means "nothing".
    pub classes: Vec<String>,
    /// Predicate names, in the order of the relation probabilities. One further column means "no
    /// relation".
    pub predicates: Vec<String>,
}

/// The form in which a scene graph returns relations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SceneForm {
    /// Objects, and the probability of each predicate for every pair of objects (EGTR).
    Pairs,
    /// Triplets of subject, predicate and object (`RelTR`).
    Triplets,
}

impl Labels {
    /// Parses and checks a labels document.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let labels: Self = serde_json::from_str(text)
            .map_err(|error| format!("not a labels document: {error}"))?;
        for (what, names) in [("classes", &labels.classes), ("predicates", &labels.predicates)] {
            if names.is_empty() {
                return Err(format!("`{what}` is empty"));
            }
            let mut seen = HashSet::new();
            if let Some(name) =
                names.iter().find(|name| name.trim().is_empty() || !seen.insert(*name))
            {
                return Err(format!("`{what}` has `{name}` twice, or it is blank"));
            }
        }
        Ok(labels)
    }
}

impl SceneForm {
    const PAIRS: [(&'static str, usize); 4] =
        [("classes", 2), ("boxes", 2), ("relation", 3), ("connectivity", 2)];
    const TRIPLETS: [(&'static str, usize); 5] = [
        ("subject", 2),
        ("object", 2),
        ("predicate", 2),
        ("subject_boxes", 2),
        ("object_boxes", 2),
    ];

    /// Determines the form of a graph from the names and ranks of its outputs.
    ///
    /// # Errors
    /// The outputs have neither form.
    pub fn of(graph: &GraphSpec) -> Result<Self, String> {
        let has = |names: &[(&str, usize)]| {
            names.iter().all(|(name, rank)| {
                output(graph, name).is_some_and(|found| found.shape.len() == *rank)
            })
        };
        match (has(&Self::PAIRS), has(&Self::TRIPLETS)) {
            (true, _) => Ok(Self::Pairs),
            (_, true) => Ok(Self::Triplets),
            _ => {
                let found: Vec<_> = graph.outputs.iter().map(ToString::to_string).collect();
                let form = |names: &[(&str, usize)]| {
                    let each = |(name, rank): &(&str, usize)| format!("{name} of rank {rank}");
                    names.iter().map(each).collect::<Vec<_>>().join(", ")
                };
                Err(format!(
                    "a scene graph returns either {} or {}, found {}",
                    form(&Self::PAIRS),
                    form(&Self::TRIPLETS),
                    found.join(" and ")
                ))
            }
        }
    }
}

/// Checks that the outputs of a graph are consistent with each other and with its labels.
pub(super) fn check(graph: &GraphSpec, labels: &Labels) -> Result<(), String> {
    let (classes, predicates) = (labels.classes.len(), labels.predicates.len());
    let form = SceneForm::of(graph)?;
    let checks: &[(&str, &[usize], usize)] = match form {
        SceneForm::Pairs => &[("classes", &[1], classes), ("relation", &[2], predicates)],
        SceneForm::Triplets => &[
            ("subject", &[1], classes),
            ("object", &[1], classes),
            ("predicate", &[1], predicates),
        ],
    };
    for (name, axes, names) in checks {
        let spec = output(graph, name).ok_or_else(|| format!("no output `{name}`"))?;
        for &axis in *axes {
            if spec.shape[axis] != Dim::Fixed(*names) && spec.shape[axis] != Dim::Fixed(names + 1) {
                return Err(format!(
                    "the labels have {names} names for the last dimension of {spec}"
                ));
            }
        }
    }
    // All outputs must have the same number of objects or triplets.
    let (boxes, same): (&[&str], &[(&str, &[usize])]) = match form {
        SceneForm::Pairs => (
            &["boxes"],
            &[("classes", &[0]), ("boxes", &[0]), ("relation", &[0, 1]), ("connectivity", &[0, 1])],
        ),
        SceneForm::Triplets => (
            &["subject_boxes", "object_boxes"],
            &[
                ("subject", &[0]),
                ("object", &[0]),
                ("predicate", &[0]),
                ("subject_boxes", &[0]),
                ("object_boxes", &[0]),
            ],
        ),
    };
    for name in boxes {
        if let Some(spec) = output(graph, name).filter(|spec| spec.shape[1] != Dim::Fixed(4)) {
            return Err(format!("boxes have 4 numbers, found {spec}"));
        }
    }
    let lengths: HashSet<Dim> = same
        .iter()
        .filter_map(|(name, axes)| Some((output(graph, name)?, axes)))
        .flat_map(|(spec, axes)| axes.iter().map(|&axis| spec.shape[axis]))
        .collect();
    if lengths.len() != 1 || lengths.contains(&Dim::Dynamic) {
        let found: Vec<_> = graph.outputs.iter().map(ToString::to_string).collect();
        return Err(format!(
            "all outputs of a scene graph have the same, fixed number of queries, found {}",
            found.join(" and ")
        ));
    }
    Ok(())
}

fn output<'a>(graph: &'a GraphSpec, name: &str) -> Option<&'a TensorSpec> {
    graph.outputs.iter().find(|output| output.name == name && output.dtype == Dtype::F32)
}
