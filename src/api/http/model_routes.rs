//! Routes that need models: what they compute, and how long their requests may wait for capacity.

use std::time::Duration;

use axum::{
    extract::{MatchedPath, Request},
    http::Method,
};

use crate::config::{Protocol, Rewards};

/// What a route computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Samples or photos, or a check of health, within the deadline of a request.
    Samples,
    /// Rewards of a batch; the protocol, if they are for an adapter. They first wait for capacity;
    /// then a deadline of their own begins.
    Rewards(Option<Protocol>),
    /// An image.
    Image,
}

/// Routes that need models.
const ROUTES: [(Method, &str, Work); 12] = [
    (Method::POST, "/v1/score", Work::Samples),
    (Method::POST, "/v1/rewards", Work::Rewards(None)),
    (Method::POST, "/v1/generate", Work::Image),
    (Method::POST, "/v1/datasets/{dataset}/photos", Work::Samples),
    (Method::POST, "/rl/pickle/{name}", Work::Rewards(Some(Protocol::Pickle))),
    (Method::POST, "/rl/pickle/{name}/", Work::Rewards(Some(Protocol::Pickle))),
    (Method::POST, "/rl/unirl/score", Work::Rewards(Some(Protocol::Unirl))),
    (Method::GET, "/rl/unirl/health", Work::Samples),
    (Method::POST, "/rl/flow-factory/{name}/compute", Work::Rewards(Some(Protocol::FlowFactory))),
    (Method::POST, "/rl/cosmos/api/reward/enqueue", Work::Rewards(Some(Protocol::Cosmos))),
    (Method::POST, "/score", Work::Samples),
    (Method::POST, "/score/example", Work::Samples),
];

/// Returns what a request computes, if it needs models.
pub(super) fn work(request: &Request) -> Option<Work> {
    let path = request.extensions().get::<MatchedPath>()?.as_str();
    let of = ROUTES.iter().find(|of| of.0 == *request.method() && of.1 == path)?;
    Some(of.2)
}

impl Work {
    /// Returns how long a request may wait for capacity; `None` if it is refused at once.
    pub(super) fn wait(self, rewards: &Rewards) -> Option<Duration> {
        match self {
            Self::Rewards(None) => Some(rewards.wait()),
            Self::Rewards(Some(protocol)) => Some(rewards.wait_of(protocol)),
            Self::Samples | Self::Image => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_route_exists() {
        let document = crate::api::openapi();
        for (method, route, _) in &ROUTES {
            // Pages, and the spelling that one trainer uses (a slash at the end).
            if ["/score", "/score/example", "/rl/pickle/{name}/"].contains(route) {
                continue;
            }
            let item = document.paths.paths.get(*route).expect("the route is documented");
            let operation = if method == Method::GET { &item.get } else { &item.post };
            assert!(operation.is_some(), "{method} {route}");
        }
    }
}
