//! Execution provider of each node of a graph, from ONNX Runtime's profile. A node that falls back
//! to the CPU in the middle of a graph costs two copies and stalls the GPU.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engine::{Engine, EngineConfig, Pack, StartError};

/// Nodes and time by provider in one run of a graph.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The graph's roles, joined by `+`.
    pub graph: String,
    /// Number of nodes and their milliseconds, by provider.
    pub providers: BTreeMap<String, (usize, f64)>,
    /// Number of nodes run by the CPU, by operator.
    pub cpu_graphs: BTreeMap<String, usize>,
}

/// An event in a profile.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    args: Arguments,
}

#[derive(Default, Deserialize)]
struct Arguments {
    #[serde(default)]
    provider: String,
    #[serde(default)]
    op_name: String,
}

/// Runs every graph once with profiling, and returns the providers of its nodes. Profiles are
/// written to `folder`, which must be empty, and removed.
///
/// # Errors
/// The runtime cannot be loaded, or no profile can be written. A graph that does not load has no
/// nodes.
pub fn placement(
    pack: &Pack,
    config: &EngineConfig,
    folder: &Path,
) -> Result<Vec<Placement>, PlacementError> {
    let config = EngineConfig { profile: Some(folder.to_owned()), ..config.clone() };
    let mut found = Vec::new();
    for graph in &pack.graphs {
        let mut one = pack.clone();
        one.graphs.retain(|other| other.role == graph.role);
        Engine::load_each(&one, &config, |spec, backend| {
            if let Ok(mut backend) = backend {
                drop(backend.run(&[spec.sample()]));
            }
        })?;
        let mut placed = Placement { graph: graph.role.clone(), ..Placement::default() };
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            placed.read(&fs::read_to_string(&path)?);
            fs::remove_file(path)?;
        }
        found.push(placed);
    }
    Ok(found)
}

/// Errors of reading the placement.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// The runtime cannot be loaded.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No profile can be written or read.
    #[error("cannot write or read the profile: {0}")]
    Io(#[from] std::io::Error),
}

impl Placement {
    /// Adds the nodes of a profile's last run, since the profile also contains the warm-up.
    fn read(&mut self, text: &str) {
        let events: Vec<Event> = serde_json::from_str(text).unwrap_or_default();
        let begins = events.iter().rposition(|event| event.name == "model_run").map_or(0, |last| {
            events[..last]
                .iter()
                .rposition(|event| event.name == "model_run")
                .map_or(0, |before| before + 1)
        });
        for event in &events[begins..] {
            if event.cat != "Node" || !event.name.ends_with("_kernel_time") {
                continue;
            }
            let of = self.providers.entry(event.args.provider.clone()).or_default();
            of.0 += 1;
            of.1 += event.dur / 1e3;
            if event.args.provider == "CPUExecutionProvider" {
                *self.cpu_graphs.entry(event.args.op_name.clone()).or_default() += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ProviderChoice;

    #[test]
    fn nodes_of_the_last_run_are_counted_by_provider() {
        let node = |provider: &str, op: &str| serde_json::json!({"cat": "Node", "name": "x_kernel_time", "dur": 500.0, "args": {"provider": provider, "op_name": op}});
        let run =
            serde_json::json!({"cat": "Session", "name": "model_run", "dur": 1.0, "args": {}});
        let fence = serde_json::json!({"cat": "Node", "name": "x_fence_before", "dur": 1.0, "args": {"op_name": "Conv"}});
        let (cuda, cpu) =
            (node("CUDAExecutionProvider", "Conv"), node("CPUExecutionProvider", "Shape"));
        let text = serde_json::json!([cuda, run, cuda, fence, cpu, cuda, run]).to_string();
        let mut placed = Placement::default();
        placed.read(&text);
        assert_eq!(
            placed.providers,
            BTreeMap::from([
                ("CUDAExecutionProvider".into(), (2, 1.0)),
                ("CPUExecutionProvider".into(), (1, 0.5))
            ])
        );
        assert_eq!(placed.cpu_graphs, BTreeMap::from([("Shape".into(), 1)]));
    }

    #[test]
    fn a_graph_on_the_cpu_has_all_its_nodes_there() {
        let mut pack = Pack::open(concat!(env!("CARGO_MANIFEST_DIR"), "/packs/demo")).unwrap();
        pack.graphs.retain(|graph| graph.role == "dino.image");
        let config = EngineConfig { provider: ProviderChoice::Cpu, ..EngineConfig::default() };
        let folder = tempfile::tempdir().unwrap();
        let found = placement(&pack, &config, folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(found.len(), 1);
        let providers: Vec<_> = found[0].providers.keys().map(String::as_str).collect();
        assert_eq!(providers, ["CPUExecutionProvider"]);
        assert!(found[0].providers["CPUExecutionProvider"].0 > 10, "{found:?}");
    }
}
