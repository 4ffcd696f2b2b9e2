//! The configured adapters.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::sync::Semaphore;

use super::jobs::Jobs;
use crate::api::http::{ApiError, Code, InPath, not_found};
use crate::{
    config::{Adapter, AdapterReward, Protocol},
    engine::Pack,
    label,
    rewards::Reward,
};

/// The configured adapters.
#[derive(Debug)]
pub(crate) struct Adapters {
    /// Rewards of protocols whose paths name one.
    by_path: HashMap<(Protocol, String), Reward>,
    /// Rewards of protocols whose requests name them.
    by_request: HashMap<Protocol, BTreeMap<String, Reward>>,
    pub(super) jobs: Jobs,
    /// Bodies that are parsed at once: a hostile one takes ten times its size meanwhile.
    pub(super) parsing: Arc<Semaphore>,
}

impl Adapters {
    /// Creates adapters from a configuration that has been checked.
    pub(crate) fn new(configured: &[Adapter], pack: &Pack) -> Self {
        let (mut by_path, mut by_request) = (HashMap::new(), HashMap::new());
        let parse = |text: &str| {
            let reward = Reward::parse(text).expect("the configuration was checked");
            if let Err(error) = reward.check(pack) {
                tracing::warn!(%error, "an adapter will refuse its requests");
            }
            reward
        };
        for adapter in configured {
            match &adapter.reward {
                AdapterReward::One(reward) => {
                    let name = adapter.name.clone().unwrap_or_default();
                    by_path.insert((adapter.protocol, name), parse(reward));
                }
                AdapterReward::Named(rewards) => {
                    let rewards =
                        rewards.iter().map(|(name, reward)| (name.clone(), parse(reward)));
                    by_request.insert(adapter.protocol, rewards.collect());
                }
            }
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let parsing = Arc::new(Semaphore::new(cores));
        Self { by_path, by_request, jobs: Jobs::default(), parsing }
    }

    /// Returns the reward that a path names.
    pub(super) fn one(
        &self,
        protocol: Protocol,
        name: InPath<String>,
    ) -> Result<&Reward, ApiError> {
        let name = name.map(|path| path.0).unwrap_or_default();
        let found = self.by_path.get(&(protocol, name.clone()));
        found.ok_or_else(|| {
            let name: String = label::visible(&name).chars().take(80).collect();
            let of_protocol = self.by_path.keys().filter(|(each, _)| *each == protocol);
            let mut known: Vec<_> = of_protocol.map(|(_, name)| format!("`{name}`")).collect();
            known.sort();
            let known = match known.len() {
                0 => "none are configured".to_owned(),
                _ => format!("configured are {}", known.join(", ")),
            };
            let protocol = protocol.name();
            not_found(&format!(
                "adapter `{name}` for {protocol} ({known}): add [[rewards.adapter]] with protocol = \
                    \"{protocol}\", name and reward to the configuration (docs/REWARDS.md)"
            ))
        })
    }

    /// Returns the rewards that requests of a protocol may name.
    pub(super) fn all(&self, protocol: Protocol) -> Result<&BTreeMap<String, Reward>, ApiError> {
        self.by_request.get(&protocol).ok_or_else(|| {
            let protocol = protocol.name();
            not_found(&format!(
                "adapter for {protocol}: add [[rewards.adapter]] with protocol = \"{protocol}\" and \
                    a table `reward` to the configuration (docs/REWARDS.md)"
            ))
        })
    }
}

/// Returns the reward that a request asks for by name.
pub(super) fn named<'a>(
    configured: &'a BTreeMap<String, Reward>,
    name: &str,
) -> Result<&'a Reward, ApiError> {
    configured.get(name).ok_or_else(|| {
        let name: String = name.chars().take(80).collect();
        let known: Vec<_> = configured.keys().map(String::as_str).collect();
        let problem = format!("unknown reward `{name}`: configured are {}", known.join(", "));
        ApiError::new(Code::MalformedRequest, problem)
    })
}
