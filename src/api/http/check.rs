//! One check of the probes.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// One check behind a response of `/readyz` or `/startupz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// What is checked: `start`, `engine`, `graphs`, `store`, `disk`, `spool`, `tasks` or `stop`;
    /// while the service starts, `migrations`, `pack` and `graphs`.
    #[schema(example = "disk")]
    pub name: String,
    /// Whether the service can work as far as this check is concerned.
    pub ok: bool,
    /// What is wrong and what to do; missing if the check is ok.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When a probe first found this state.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}
