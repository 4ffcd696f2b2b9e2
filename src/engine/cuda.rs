//! CUDA: its libraries and the options of its sessions.

use std::path::{Path, PathBuf};

use ort::ep;
use serde::{Deserialize, Serialize};

use super::library;

/// Folder into which `make setup` puts the libraries of NVIDIA's wheels, within a folder of the
/// program.
const FOLDER: &str = ".runtime/cuda";

/// Libraries that ONNX Runtime's CUDA provider links or opens, each before its dependents.
///
/// They are matched by prefix, since the version differs between releases of CUDA. The loader does
/// not search the folders of NVIDIA's wheels, and the provider has no search path of its own.
/// Libraries that are already loaded are found by name.
const LIBRARIES: [&str; 6] = [
    "libcudart.so.",
    "libcublasLt.so.",
    "libcublas.so.",
    "libcurand.so.",
    "libnvrtc.so.",
    "libcudnn.so.",
];

/// The graphs of the face cascade: small networks that the CPU runs while the GPU runs the large
/// graphs.
pub(super) const ON_THE_PROCESSOR: [&str; 3] = ["faces.pnet", "faces.rnet", "faces.onet"];

/// The `[engine.cuda]` table of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CudaConfig {
    /// Whether products of 32-bit floats are rounded to 10 bits of mantissa (TF32). fp32 graphs are
    /// faster, but scores differ from the reference in the third digit.
    pub tf32: bool,
    /// How cuDNN's convolution algorithm is chosen.
    pub conv_search: ConvSearch,
    /// Whether convolutions run with channels last.
    pub prefer_nhwc: bool,
    /// Memory limit of one graph's arena in addition to its weights, in MiB. 0 sets no limit.
    pub lane_memory_mib: usize,
    /// Roles of the graphs that run on the CPU.
    pub cpu_graphs: Vec<String>,
}

impl Default for CudaConfig {
    fn default() -> Self {
        Self {
            tf32: false,
            conv_search: ConvSearch::Heuristic,
            prefer_nhwc: false,
            lane_memory_mib: 0,
            cpu_graphs: ON_THE_PROCESSOR.map(str::to_owned).to_vec(),
        }
    }
}

/// How cuDNN's convolution algorithm is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConvSearch {
    /// By a heuristic, without trying any.
    Heuristic,
    /// By trying all at the first run of each shape.
    Exhaustive,
    /// Always the default algorithm.
    Default,
}

impl CudaConfig {
    /// Returns the execution provider with these options.
    pub(super) fn provider(&self, device: i32) -> ep::CUDA {
        let search = match self.conv_search {
            ConvSearch::Heuristic => ep::cuda::ConvAlgorithmSearch::Heuristic,
            ConvSearch::Exhaustive => ep::cuda::ConvAlgorithmSearch::Exhaustive,
            ConvSearch::Default => ep::cuda::ConvAlgorithmSearch::Default,
        };
        let provider = ep::CUDA::default()
            .with_device_id(device)
            // ONNX Runtime's default is TF32.
            .with_tf32(self.tf32)
            .with_conv_algorithm_search(search)
            .with_prefer_nhwc(self.prefer_nhwc)
            // The default doubles the arena and may take twice the need of the largest batch, per
            // graph.
            .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested);
        match self.lane_memory_mib {
            0 => provider,
            mib => provider.with_memory_limit(mib << 20),
        }
    }
}

/// Loads the CUDA libraries in the program's folders; the loader finds those of the system by
/// itself.
///
/// Returns the loaded files, and the errors for files that failed to load. These are not fatal:
/// ONNX Runtime reports a missing library when a session is created.
pub(super) fn preload(folders: &[PathBuf]) -> (Vec<PathBuf>, Vec<String>) {
    preload_by(folders, |path| ort::util::preload_dylib(path).map_err(|error| error.to_string()))
}

fn preload_by(
    folders: &[PathBuf],
    load: impl Fn(&Path) -> Result<(), String>,
) -> (Vec<PathBuf>, Vec<String>) {
    let mut all = Vec::new();
    for folder in folders {
        library::files_below(&folder.join(FOLDER), library::DEPTH, &mut all);
    }
    all.sort();
    let (mut loaded, mut problems) = (Vec::new(), Vec::new());
    for beginning in LIBRARIES {
        // The newest release by name; versions have equally many digits.
        let Some(path) = all.iter().rfind(|path| name(path).starts_with(beginning)) else {
            continue;
        };
        match load(path) {
            Ok(()) => loaded.push(path.clone()),
            Err(problem) => problems.push(format!("{}: {problem}", path.display())),
        }
    }
    (loaded, problems)
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Returns whether this machine has an NVIDIA driver.
pub(super) fn has_driver() -> bool {
    Path::new("/proc/driver/nvidia/version").exists()
        || Path::new("/dev/nvidiactl").exists()
        || Path::new("/dev/dxg").exists()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;

    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }

    #[test]
    fn libraries_are_loaded_before_their_dependents() {
        let folder = tempfile::tempdir().unwrap();
        let cuda = folder.path().join(FOLDER);
        for file in [
            "nvidia/cudnn/lib/libcudnn.so.9",
            "nvidia/cudnn/lib/libcudnn_ops.so.9",
            "nvidia/cu13/lib/libcublas.so.13",
            "nvidia/cu13/lib/libcublasLt.so.13",
            "nvidia/cu13/lib/libcudart.so.13",
            "nvidia/cu13/lib/libcurand.so.10",
            "nvidia/cu13/lib/libcufft.so.12",
        ] {
            touch(&cuda.join(file));
        }
        let order = RefCell::new(Vec::new());
        let (loaded, problems) = preload_by(&[folder.path().to_owned()], |path| {
            order.borrow_mut().push(name(path).to_owned());
            if name(path).starts_with("libcurand") { Err("is broken".to_owned()) } else { Ok(()) }
        });
        assert_eq!(
            order.into_inner(),
            [
                "libcudart.so.13",
                "libcublasLt.so.13",
                "libcublas.so.13",
                "libcurand.so.10",
                "libcudnn.so.9"
            ]
        );
        assert_eq!(loaded.len(), 4);
        assert!(
            problems.len() == 1 && problems[0].ends_with("libcurand.so.10: is broken"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_broken_library_is_reported_and_a_missing_folder_is_not() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(preload(&[folder.path().to_owned()]), (vec![], vec![]));
        touch(&folder.path().join(FOLDER).join("lib/libcudart.so.13"));
        let (loaded, problems) = preload(&[folder.path().to_owned()]);
        assert!(
            loaded.is_empty() && problems.len() == 1 && problems[0].contains("libcudart.so.13"),
            "{problems:?}"
        );
    }

    #[test]
    fn tf32_is_off_by_default() {
        let config: CudaConfig = toml::from_str("").unwrap();
        assert_eq!(config, CudaConfig::default());
        assert!(!config.tf32);
        let given: CudaConfig =
            toml::from_str("conv_search = \"exhaustive\"\ncpu_graphs = []").unwrap();
        assert_eq!((given.conv_search, given.cpu_graphs.len()), (ConvSearch::Exhaustive, 0));
        assert!(toml::from_str::<CudaConfig>("tf_32 = true").is_err());
    }
}
