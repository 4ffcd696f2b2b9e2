//! `GET /v1/runs/{a}/compare/{b}/changes`: where two runs differ in one metric.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::http::{ApiError, Code, InPath, Query};
use crate::api::runs::compare::{self, CompareQuery, ComparedRun, Pair};
use crate::api::runs::ranked::Brief;
use crate::api::state::{App, Shared};
use crate::{
    analysis::{self, Changes, CompareOptions, GroupBy, GroupDifference, PairDifference, Policy},
    blocking::blocking,
    metrics::{self, ListError},
    pack_id::PackId,
};

/// Maximum of `limit`.
const MOST: usize = 200;

/// Options of the changes between two runs.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChangesQuery {
    /// Code of the metric.
    #[param(example = "ips")]
    pub(crate) metric: String,
    /// What pairs are grouped by. Default: `identity`.
    #[serde(default)]
    pub(crate) by: GroupBy,
    /// Name or digest of the pack whose scores are compared. Default: the pack of most of A's
    /// scores.
    pub(crate) pack: Option<String>,
    /// The penalty policy, applied to each run separately. Default: `stellar`.
    pub(crate) policy: Option<Policy>,
    /// Coverage of the intervals, 0.5 to 0.999. Default: 0.95.
    #[param(example = 0.95)]
    pub(crate) confidence: Option<f64>,
    /// Groups with fewer pairs are left out. Default: 2.
    pub(crate) min_pairs: Option<usize>,
    /// Number of groups and of pairs at each end, 1 to 200. Default: 20.
    pub(crate) limit: Option<usize>,
}

/// Where two runs differ in one metric.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ChangesResponse {
    /// Run A, which is judged.
    pub(crate) a: ComparedRun,
    /// Run B, the baseline.
    pub(crate) b: ComparedRun,
    /// The pack of all scores.
    pub(crate) pack: PackId,
    /// Code of the metric.
    pub(crate) metric: String,
    /// What pairs are grouped by.
    pub(crate) by: GroupBy,
    /// Pairs in which both samples have a score.
    pub(crate) pairs: usize,
    /// Number of groups with enough pairs, shown or not.
    pub(crate) groups_found: usize,
    /// Groups, from the one in which A is best to the one in which it is worst. Those in the middle
    /// are left out if there are many. Intervals are not corrected for the number of groups: with
    /// 95 % intervals, about 1 of 20 groups without a difference is found to have one.
    pub(crate) groups: Vec<GroupDifference>,
    /// Pairs in which A is better, largest difference first. For a metric without a direction,
    /// larger counts as better.
    pub(crate) gains: Vec<ChangedPair>,
    /// Pairs in which A is worse, largest difference first.
    pub(crate) losses: Vec<ChangedPair>,
}

/// Two samples of the same name.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ChangedPair {
    /// Their scores.
    #[serde(flatten)]
    pub(crate) scores: PairDifference,
    /// The sample of run A; null if it was deleted meanwhile.
    pub(crate) sample_a: Option<Brief>,
    /// The sample of run B; null if it was deleted meanwhile.
    pub(crate) sample_b: Option<Brief>,
}

/// Finds where two runs differ in one metric: by person or prompt, and sample by sample.
///
/// Samples are paired by name, and differences are A − B. The interval of a person resamples their
/// pairs; that of a prompt resamples people. Both are studentised bootstraps. The ends of an
/// ordered list are extreme by selection: their true differences are likely smaller.
#[utoipa::path(
    get, path = "/v1/runs/{a}/compare/{b}/changes", operation_id = "read_changes",
    tag = "analysis",
    params(
        ("a" = Uuid, Path, description = "Id of run A, which is judged"),
        ("b" = Uuid, Path, description = "Id of run B, the baseline"),
        ChangesQuery
    ),
    responses(
        (status = 200, description = "The changes", body = ChangesResponse),
        (status = 409, description = "The runs have no scores of a common pack, no sample names in \
            common, or not both the same version of the metric"),
        (status = 422, description = "Unknown metric"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    runs: InPath<(String, String)>,
    Query(parameters): Query<ChangesQuery>,
) -> Result<Json<ChangesResponse>, ApiError> {
    let (a, b) = runs.map(|Path(runs)| runs).unwrap_or_default();
    let pair = compare::pair(&app, &a, &b, parameters.pack.as_deref()).await?;
    respond(&app, &pair, &parameters).await.map(Json)
}

/// Finds where two runs differ.
pub(crate) async fn respond(
    app: &App,
    pair: &Pair,
    parameters: &ChangesQuery,
) -> Result<ChangesResponse, ApiError> {
    let code = &parameters.metric;
    let metric = metrics::find(code).ok_or_else(|| ListError::unknown(code))?.code;
    let options = parameters.options()?;
    let most = parameters.limit.unwrap_or(20);
    if !(1..=MOST).contains(&most) {
        let problem = format!("limit is {most}: send 1 to {MOST}");
        return Err(ApiError::new(Code::MalformedRequest, problem));
    }
    let prompts = match parameters.by {
        GroupBy::Prompt => app.store.sample_prompts(pair.a.run).await?,
        GroupBy::Identity => BTreeMap::new(),
    };
    let (a, b, by) = (Arc::clone(&pair.a), Arc::clone(&pair.b), parameters.by);
    let found =
        blocking(move || analysis::changes(&a, &b, metric, by, &prompts, &options, most)).await;
    let Some(found) = found else {
        let problem = format!(
            "the two runs do not both have scores of the same version of `{metric}`: choose \
             another metric, or score both runs with the same version"
        );
        return Err(ApiError::new(Code::NothingToCompare, problem));
    };
    let Changes { pairs, groups_found, groups, gains, losses } = found;
    let names: Vec<String> =
        gains.iter().chain(&losses).map(|changed| changed.name.clone()).collect();
    let of_a = app.store.sample_briefs(pair.a.run, &names).await?;
    let of_b = app.store.sample_briefs(pair.b.run, &names).await?;
    let shown = |changed: Vec<PairDifference>| {
        let shown = changed.into_iter().map(|scores| ChangedPair {
            sample_a: of_a.get(&scores.name).cloned().map(Into::into),
            sample_b: of_b.get(&scores.name).cloned().map(Into::into),
            scores,
        });
        shown.collect()
    };
    let [a, b] = pair.named();
    Ok(ChangesResponse {
        a,
        b,
        pack: pair.pack.clone(),
        metric: metric.to_owned(),
        by: parameters.by,
        pairs,
        groups_found,
        groups,
        gains: shown(gains),
        losses: shown(losses),
    })
}

impl ChangesQuery {
    fn options(&self) -> Result<CompareOptions, ApiError> {
        let shared = CompareQuery {
            prompt_kind: None,
            metrics: None,
            pack: None,
            policy: self.policy,
            confidence: self.confidence,
            slices: None,
            min_pairs: Some(self.min_pairs.unwrap_or(2)),
        };
        shared.options()
    }
}
