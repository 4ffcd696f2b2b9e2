//! `[[rewards.adapter]]`: routes for the reward clients of trainers.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::rewards::Reward;

/// Longest name of an adapter or of a reward in it, in bytes.
const NAME_BYTES: usize = 64;

/// An adapter for the reward client of a trainer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adapter {
    /// What the client speaks.
    pub protocol: Protocol,
    /// Name in the path of its routes, for protocols whose requests name no reward.
    #[serde(default)]
    pub name: Option<String>,
    /// What it computes.
    pub reward: AdapterReward,
}

/// What a reward client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Pickles: `flow_grpo`, `verl-omni`, `deepgen`.
    Pickle,
    /// `UniRL`.
    Unirl,
    /// Flow-Factory.
    FlowFactory,
    /// cosmos-rl.
    Cosmos,
}

/// The rewards of an adapter.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a reward is \"metric@scale\", or a table of names with rewards")]
pub enum AdapterReward {
    /// The reward, as `metric` or `metric@scale`.
    One(String),
    /// Rewards by the name that requests have for them.
    Named(BTreeMap<String, String>),
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 4] = [Self::Pickle, Self::Unirl, Self::FlowFactory, Self::Cosmos];

    /// Returns the name in the configuration, in paths and in service metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pickle => "pickle",
            Self::Unirl => "unirl",
            Self::FlowFactory => "flow-factory",
            Self::Cosmos => "cosmos",
        }
    }

    /// Returns whether requests name their rewards. Otherwise the path names the only one.
    #[must_use]
    pub fn names_rewards(self) -> bool {
        matches!(self, Self::Unirl | Self::Cosmos)
    }
}

/// Checks that adapters have distinct routes, and rewards that exist. The error has the position of
/// the adapter, and what is wrong and what to do.
pub(super) fn check(adapters: &[Adapter]) -> Result<(), (usize, String)> {
    let mut routes = BTreeSet::new();
    for (at, adapter) in adapters.iter().enumerate() {
        let refused = |why: String| Err((at, why));
        let protocol = adapter.protocol.name();
        let name = adapter.name.as_deref();
        let names: Vec<(&str, &str)> = match (&adapter.reward, adapter.protocol.names_rewards()) {
            (AdapterReward::One(reward), false) => vec![(name.unwrap_or_default(), reward)],
            (AdapterReward::Named(rewards), true) => {
                rewards.iter().map(|(name, reward)| (&**name, &**reward)).collect()
            }
            (AdapterReward::Named(_), false) => {
                return refused(format!(
                    "`reward` must be one \"metric@scale\": requests of {protocol} name no reward, \
                        so add an adapter for each"
                ));
            }
            (AdapterReward::One(_), true) => {
                return refused(format!(
                    "`reward` must be a table of the names that requests of {protocol} have for \
                        rewards, such as {{ pickscore = \"pick_score@flow_grpo\" }}"
                ));
            }
        };
        match (name, adapter.protocol.names_rewards()) {
            (None, false) => {
                return refused(format!("`name` is missing: the routes of {protocol} contain it"));
            }
            (Some(_), true) => {
                return refused(format!("{protocol} has no `name`: remove it"));
            }
            _ => {}
        }
        if names.is_empty() {
            return refused("`reward` is empty: name at least one".to_owned());
        }
        for (name, reward) in names {
            if !is_name(name) {
                return refused(format!(
                    "the name {name:?} must have 1 to {NAME_BYTES} letters, digits, `-`, `_` or `.`"
                ));
            }
            if let Err(error) = Reward::parse(reward) {
                return refused(error.to_string());
            }
        }
        if !routes.insert((adapter.protocol, name)) {
            return refused(match name {
                Some(name) => format!("{protocol} has two adapters `{name}`: rename one"),
                None => format!("{protocol} has two adapters: put their rewards into one"),
            });
        }
    }
    Ok(())
}

/// Returns whether a name needs no encoding in a path.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let dots = name.bytes().all(|byte| byte == b'.');
    !dots && name.len() <= NAME_BYTES && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::config::Config;

    fn load(text: &str) -> Result<Vec<Adapter>, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let config = Config::load(Some(file.path())).map_err(|error| error.to_string())?;
        Ok(config.rewards.adapter)
    }

    #[test]
    fn adapters_are_off_unless_configured_in_either_form() {
        assert!(load("").unwrap().is_empty());
        let tables = r#"
            [[rewards.adapter]]
            protocol = "pickle"
            name = "pickscore"
            reward = "pick_score@flow_grpo"
            [[rewards.adapter]]
            protocol = "flow-factory"
            name = "pickscore"
            reward = "pick_score"
            [[rewards.adapter]]
            protocol = "unirl"
            reward = { pickscore = "pick_score@flow_grpo", clip = "clip_t@flow_grpo" }
        "#;
        let adapters = load(tables).unwrap();
        let protocols: Vec<_> = adapters.iter().map(|it| it.protocol.name()).collect();
        assert_eq!(protocols, ["pickle", "flow-factory", "unirl"]);
        let inline = "[rewards]\nadapter = [{ protocol = \"cosmos\", reward = { a = \"ips\" } }]";
        assert_eq!(load(inline).unwrap().len(), 1);
    }

    #[test]
    fn wrong_adapters_are_refused_with_their_place_and_what_to_do() {
        let one = |rest: &str| format!("[[rewards.adapter]]\n{rest}");
        let good = "protocol = \"pickle\"\nname = \"a\"\nreward = \"ips\"\n";
        let doubled = format!("{}{}", one(good), one(good));
        let unirl = "protocol = \"unirl\"\nreward = { a = \"ips\" }\n";
        for (text, words) in [
            (doubled, &["rewards.adapter[1]", "two adapters `a`"][..]),
            (format!("{}{}", one(unirl), one(unirl)), &["into one"]),
            (one("protocol = \"pickle\"\nreward = \"ips\""), &["`name` is missing"]),
            (one("protocol = \"pickle\"\nname = \"a/b\"\nreward = \"ips\""), &["\"a/b\""]),
            (one("protocol = \"pickle\"\nname = \"..\"\nreward = \"ips\""), &["\"..\""]),
            (one("protocol = \"pickle\"\nname = \"a\"\nreward = \"nope\""), &["nope"]),
            (
                one("protocol = \"pickle\"\nname = \"a\"\nreward = \"pick_score@nope\""),
                &["rewards.adapter[0]", "pick_score@flow_grpo"],
            ),
            (one("protocol = \"pickle\"\nname = \"a\"\nreward = { a = \"ips\" }"), &["for each"]),
            (one("protocol = \"unirl\"\nreward = \"ips\""), &["must be a table"]),
            (one("protocol = \"unirl\"\nreward = {}"), &["is empty"]),
            (one("protocol = \"cosmos\"\nname = \"a\"\nreward = { a = \"ips\" }"), &["remove it"]),
            (one("protocol = \"http\"\nname = \"a\"\nreward = \"ips\""), &["http", "pickle"]),
            (one("protocol = \"pickle\"\nname = \"a\"\nreward = 3"), &["metric@scale"]),
            (one(&format!("{good}more = 1")), &["more"]),
        ] {
            let error = load(&text).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{text}\n{error}");
        }
    }
}
