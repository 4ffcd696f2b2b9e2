//! Loads ONNX Runtime as the engine would, without a pack.

use std::path::PathBuf;

use super::config::{EngineConfig, Provider};
use super::cuda;
use super::error::StartError;
use super::library;
use super::session::Runtime;

/// A runtime that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// File of the library.
    pub library: PathBuf,
    /// The provider that graphs would run on.
    pub provider: Provider,
    /// Whether the machine has an NVIDIA driver.
    pub has_driver: bool,
}

/// Loads the library and checks that the configured provider works.
///
/// # Errors
/// A setting is out of range, there is no library, or it or the provider does not work.
pub fn examine(config: &EngineConfig) -> Result<Examined, StartError> {
    config.validate()?;
    let runtime = Runtime::load(config)?;
    let variable = std::env::var_os(library::VARIABLE);
    let (provider, installed) = (runtime.provider(), crate::installed::folders());
    let has_driver = cuda::has_driver();
    let library = library::find(
        config.library.as_deref(),
        variable,
        &installed,
        provider.is_gpu() || (has_driver && config.provider == super::ProviderChoice::Auto),
    )?;
    Ok(Examined { library, provider, has_driver })
}
