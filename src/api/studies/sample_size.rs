//! `GET /v1/analysis/sample-size`: the answers that a study needs, and what they cost.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::http::{ApiError, Code, Query};
use crate::stats::{answers_for_share, design_effect};

/// What a study shall tell.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SampleSizeQuery {
    /// Images of an item, 2 to 8. Default: 2.
    #[param(minimum = 2, maximum = 8)]
    pub(crate) k: Option<u32>,
    /// First-choice share to tell from chance, 1/k. Send this or `difference`.
    #[param(minimum = 0.0, maximum = 1.0, example = 0.35)]
    pub(crate) share: Option<f64>,
    /// Difference in strength of two methods to tell from 0, where all others are as strong as the
    /// mean of the two: at most 10.
    #[param(minimum = 0.0, maximum = 10.0)]
    pub(crate) difference: Option<f64>,
    /// Level of the two-sided test. Default: 0.05.
    #[param(minimum = 0.0, maximum = 1.0)]
    pub(crate) alpha: Option<f64>,
    /// Probability with which the difference is found. Default: 0.8.
    #[param(minimum = 0.0, maximum = 1.0)]
    pub(crate) power: Option<f64>,
    /// Answers about one item, 1 to 1000. Default: 1.
    #[param(minimum = 1, maximum = 1000)]
    pub(crate) answers_per_item: Option<u32>,
    /// Correlation of answers about one item, 0 to 1. Default: 0.2.
    #[param(minimum = 0.0, maximum = 1.0)]
    pub(crate) correlation: Option<f64>,
    /// Price of an answer, in any currency.
    #[param(minimum = 0.0, maximum = 1_000_000.0)]
    pub(crate) price: Option<f64>,
    /// Seconds that an answer takes.
    #[param(minimum = 0.0, maximum = 86_400.0)]
    pub(crate) seconds: Option<f64>,
}

/// The answers that a study needs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SampleSizeResponse {
    /// Share without a difference.
    pub(crate) chance: f64,
    /// Share that is to be told from it.
    pub(crate) share: f64,
    /// Part of the answers that say something about it: 1 for a share; for a difference, those in
    /// which one of the two methods is chosen.
    pub(crate) informative: f64,
    /// Answers if all of them were independent.
    pub(crate) independent_answers: u64,
    /// Factor for several answers about one item: 1 + (answers per item − 1) · correlation.
    pub(crate) design_effect: f64,
    /// Answers that are needed, to each question.
    pub(crate) answers: u64,
    /// Items that are needed.
    pub(crate) items: u64,
    /// Time of all answers in minutes.
    pub(crate) minutes: Option<f64>,
    /// Price of all answers.
    pub(crate) cost: Option<f64>,
    /// The formula, with its source.
    pub(crate) formula: String,
}

const FORMULA: &str = "n = ((z(1 − α/2) √(p0 (1 − p0)) + z(power) √(p (1 − p))) / (p − p0))² · \
    (1 + (m − 1) ρ): J. L. Fleiss, B. Levin and M. C. Paik, Statistical Methods for Rates and \
    Proportions, 2003, section 2.5; L. Kish, Survey Sampling, 1965, section 5.4";

/// Computes how many answers a study needs to tell a share from chance, or two methods from each
/// other.
#[utoipa::path(
    get, path = "/v1/analysis/sample-size", operation_id = "read_sample_size", tag = "studies",
    params(SampleSizeQuery),
    responses(
        (status = 200, description = "The answers that are needed", body = SampleSizeResponse),
        (status = 422, description = "No number of answers suffices, or a parameter is invalid"),
    )
)]
pub(crate) async fn read(
    Query(parameters): Query<SampleSizeQuery>,
) -> Result<Json<SampleSizeResponse>, ApiError> {
    respond(&parameters).map(Json)
}

/// Computes how many answers a study needs.
pub(crate) fn respond(of: &SampleSizeQuery) -> Result<SampleSizeResponse, ApiError> {
    let k = within("k", of.k.map(f64::from), 2.0, 2.0, 8.0)?;
    let alpha = within("alpha", of.alpha, 0.05, 0.0, 1.0)?;
    let power = within("power", of.power, 0.8, 0.0, 1.0)?;
    let per_item =
        within("answers_per_item", of.answers_per_item.map(f64::from), 1.0, 1.0, 1_000.0)?;
    let correlation = within("correlation", of.correlation, 0.2, 0.0, 1.0)?;
    let price = within("price", of.price, 0.0, 0.0, 1e6)?;
    let seconds = within("seconds", of.seconds, 0.0, 0.0, 86_400.0)?;
    let (chance, share, informative) = match (of.share, of.difference) {
        (Some(share), None) => (1.0 / k, within("share", Some(share), 0.0, 0.0, 1.0)?, 1.0),
        (None, Some(difference)) => {
            let difference = within("difference", Some(difference), 0.0, 0.0, 10.0)?;
            let both = (difference / 2.0).exp() + (-difference / 2.0).exp();
            (0.5, 1.0 / (1.0 + (-difference).exp()), both / (both + (k - 2.0)))
        }
        _ => {
            let problem = "send either `share` or `difference`";
            return Err(ApiError::new(Code::InvalidField, problem));
        }
    };
    let needed = answers_for_share(chance, share, alpha, power);
    let needed = needed.map(|answers| answers / informative);
    let effect = design_effect(per_item, correlation);
    let total = needed.map(|answers| (answers * effect).ceil()).filter(|answers| *answers < 1e12);
    let (Some(needed), Some(answers)) = (needed, total) else {
        let problem = format!(
            "no number of answers tells a share of {share} from {chance} with level {alpha} and \
             power {power}: shares must be between 0 and 1 and differ, level and power between 0 \
             and 1, and the power more than half the level"
        );
        return Err(ApiError::new(Code::InvalidField, problem));
    };
    Ok(SampleSizeResponse {
        chance,
        share,
        informative,
        independent_answers: needed.ceil() as u64,
        design_effect: effect,
        answers: answers as u64,
        items: (answers / per_item).ceil() as u64,
        minutes: of.seconds.map(|_| answers * seconds / 60.0),
        cost: of.price.map(|_| answers * price),
        formula: FORMULA.to_owned(),
    })
}

/// Returns a parameter, or its default; refuses one out of its range.
fn within(
    name: &str,
    value: Option<f64>,
    default: f64,
    least: f64,
    most: f64,
) -> Result<f64, ApiError> {
    let value = value.unwrap_or(default);
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    let problem = format!("`{name}` is not a number from {least} to {most}");
    Err(ApiError::new(Code::InvalidField, problem))
}
