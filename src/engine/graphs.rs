//! The graphs of a pack: by role, by family and by file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::error::StartError;
use super::lane::Lane;
use super::pack::GraphSpec;
use crate::content::ContentHash;

/// Graphs whose roles have the same first word, such as `faces.pnet` and `faces.embedding`.
pub(super) struct Family {
    /// Hash of the roles and identities of its graphs.
    pub(super) identity: ContentHash,
    /// The lane that counts cache hits and misses of the family's joint features.
    pub(super) lane: Arc<Lane>,
}

/// The graph of one role.
pub(super) struct Graph {
    pub(super) spec: Arc<GraphSpec>,
    /// Hash of weights and preprocessing, a part of the cache key.
    pub(super) identity: ContentHash,
    pub(super) lane: Arc<Lane>,
}

/// Groups graphs into families, by the first word of their roles.
pub(super) fn families(graphs: &HashMap<String, Graph>) -> HashMap<String, Family> {
    let mut members: BTreeMap<&str, BTreeMap<&str, &Graph>> = BTreeMap::new();
    for (role, graph) in graphs {
        let family = role.split_once('.').map_or(role.as_str(), |(family, _)| family);
        members.entry(family).or_default().insert(role, graph);
    }
    let family = |(name, graphs): (&str, BTreeMap<&str, &Graph>)| {
        let (_, first) = graphs.first_key_value()?;
        let lane = Arc::clone(&first.lane);
        let parts =
            graphs.iter().flat_map(|(role, graph)| [role.as_bytes(), graph.identity.as_bytes()]);
        let parts = std::iter::once(b"family".as_slice()).chain(parts);
        Some((name.to_owned(), Family { identity: ContentHash::of_parts(parts), lane }))
    };
    members.into_iter().filter_map(family).collect()
}

/// Groups entries with the same files, which share a lane, in the pack's order.
pub(super) fn by_weights(graphs: &[GraphSpec]) -> Vec<Vec<&GraphSpec>> {
    let mut groups: Vec<Vec<&GraphSpec>> = Vec::new();
    for graph in graphs {
        match groups.iter_mut().find(|group| group[0].weights_id() == graph.weights_id()) {
            Some(group) => group.push(graph),
            None => groups.push(vec![graph]),
        }
    }
    groups
}

/// Merges entries of the same files into one, with all of their outputs and the smallest
/// `max_batch`.
pub(super) fn merge(entries: &[&GraphSpec]) -> Result<GraphSpec, StartError> {
    let mut merged = entries[0].clone();
    for entry in &entries[1..] {
        merged.role = format!("{}+{}", merged.role, entry.role);
        merged.max_batch = merged.max_batch.min(entry.max_batch);
        if entry.inputs != merged.inputs {
            return Err(StartError::Signature {
                graph: merged.role.clone(),
                file: merged.file().to_owned(),
                expected: format!(
                    "{} and {} for the same file",
                    merged.signature(),
                    entry.signature()
                ),
                found: "one signature".into(),
            });
        }
        for output in &entry.outputs {
            if !merged.outputs.iter().any(|have| have.name == output.name) {
                merged.outputs.push(output.clone());
            }
        }
    }
    Ok(merged)
}

/// Hashes weights and preprocessing.
///
/// The same weights with another crop or tokenizer return other features for the same input, so
/// preprocessing is a part of a graph's identity. Faces are stored under the identities of their
/// graphs, so another `Debug` text of these types would lose them: a test compares the digest.
pub(super) fn identity(spec: &GraphSpec) -> ContentHash {
    let before = format!("{:?} {:?} {:?}", spec.geometry, spec.text, spec.labels);
    ContentHash::of_parts([spec.weights_id().as_bytes().as_slice(), before.as_bytes()])
}
