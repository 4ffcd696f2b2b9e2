//! `POST /v1/runs/{id}/import`: import of scores that were computed elsewhere.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::http::{ApiError, Code, Id, Query, body, drain, form};
use crate::api::runs::{find, unknown_run};
use crate::api::state::{App, BUNDLES_AT_ONCE, IMPORTS_AT_ONCE, Shared};
use crate::{
    blocking::blocking,
    clock,
    content::ContentHash,
    metrics,
    pack_id::{PackId, Weights},
    scoring::Metadata,
    store::{AttributeColumn, NewImport, RunRecord, ScoreColumn, ScoreValue},
    submission::Bounds,
    toolkit::{self, Columns, Table},
};

/// Returns the limit of memory for concurrent imports, in bytes: each cell as it is read and as it
/// is stored. A bundle of a submission takes the place of all of them. Bundles that are sent to
/// clients come on top.
#[must_use]
pub fn import_bytes() -> u64 {
    let cell = size_of::<Option<f64>>() + size_of::<ScoreValue>();
    (IMPORTS_AT_ONCE * toolkit::MOST_CELLS * cell) as u64
        + BUNDLES_AT_ONCE as u64 * Bounds::UPLOAD.file
}

/// Reason of a null score for an empty cell of the file.
const NOT_IMPORTED: &str = "not_imported";

/// The source of the scores.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ImportQuery {
    /// Name of the program that computed the scores. They are stored under a pack of this name,
    /// separate from the scores of other packs.
    #[param(example = "stellar-metrics")]
    source: String,
    /// Name of the file, to check it against the columns. Default: no check.
    #[param(example = "identity_preservation.csv")]
    file: Option<String>,
}

/// Outcome of an import.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ImportResponse {
    /// The pack under which the scores are stored.
    pack: PackId,
    /// Codes of the imported metrics.
    metrics: Vec<String>,
    /// Number of rows of the file.
    rows: u64,
    /// Number of samples that were created.
    new_samples: u64,
    /// Number of scores that were written; they replace those of an earlier import of the same
    /// source.
    scores: u64,
}

/// Imports one file of scores as written by the reference toolkit, all or nothing.
///
/// The columns identify the kind of file, and every column is checked. Samples are matched by name
/// and created if missing. If the names follow Stellar's layout (`007-0-12`), their first part is
/// the identity by which intervals are resampled. Importing the same file again is idempotent; a
/// corrected file replaces the earlier scores of the same source.
#[utoipa::path(
    post, path = "/v1/runs/{id}/import", operation_id = "import_scores", tag = "runs",
    params(("id" = Uuid, Path, description = "Id of the run (`run_id`)"), ImportQuery),
    request_body(content = String, content_type = "text/csv", description = "A CSV file of the \
        toolkit"),
    responses(
        (status = 200, description = "Imported", body = ImportResponse),
        (status = 409, description = "The run is finished"),
        (status = 413, description = "The file is too large"),
        (status = 415, description = "The content type is not text/csv"),
        (status = 422, description = "Not a file of the toolkit; the detail says where"),
        (status = 504, description = "The body was not read before the deadline"),
    )
)]
pub(crate) async fn create(
    State(app): Shared,
    id: Result<Id<RunRecord>, ApiError>,
    Query(parameters): Query<ImportQuery>,
    request: Request,
) -> Result<Json<ImportResponse>, ApiError> {
    drain::whole(request, |request| import(&app, id, parameters, request)).await
}

async fn import(
    app: &App,
    id: Result<Id<RunRecord>, ApiError>,
    parameters: ImportQuery,
    request: Request,
) -> Result<Json<ImportResponse>, ApiError> {
    let ImportQuery { source, file } = parameters;
    let source = form::clean_label("source", &source)?;
    app.admission.room()?;
    let run = find(app, id?).await?;
    let work = async {
        let text = body::csv(request, app.limits.request_bytes()).await?;
        let permit = app.admission.enter()?;
        let place = Arc::clone(&app.imports).acquire_owned().await;
        let permit = (permit, place);
        // Large files take a moment to parse.
        let most = app.runs.import_samples();
        let table = blocking(move || toolkit::parse(&text, file.as_deref(), most)).await.map_err(
            |error| {
                let code = match error {
                    toolkit::ToolkitError::TooManyRows(_)
                    | toolkit::ToolkitError::TooManyCells(_) => Code::PayloadTooLarge,
                    _ => Code::InvalidField,
                };
                ApiError::new(code, format!("the file cannot be imported: {error}"))
            },
        )?;
        Ok((permit, table))
    };
    let (_permit, table) = app.before_deadline(work).await?;
    let rows = table.names.len();
    let import = to_import(run.id, &source, table);
    let (pack, metrics) =
        (import.pack.clone(), import.columns.iter().map(|column| column.metric.clone()));
    let metrics = metrics.collect();
    // Outside the deadline: the outcome of a transaction that is cut off is unknown.
    let imported = app.store.import(&import).await?.ok_or_else(unknown_run)?;
    let (samples, scores) = (imported.samples, imported.scores);
    tracing::info!(run = %run.id, source, rows, samples, scores, "imported scores");
    Ok(Json(ImportResponse {
        pack,
        metrics,
        rows: rows as u64,
        new_samples: imported.samples,
        scores: imported.scores,
    }))
}

/// Turns the columns of a file into scores of a pack of their own, identified by the source's name.
fn to_import(run: Uuid, source: &str, table: Table) -> NewImport {
    let digest = ContentHash::of_parts([b"import".as_slice(), source.as_bytes()]).to_hex();
    let (columns, outcomes) = match table.columns {
        Columns::Scores(columns) => {
            let values = |values: Vec<Option<f64>>| values.into_iter().map(score).collect();
            (
                columns.into_iter().map(|(code, list)| column(code, values(list))).collect(),
                BTreeMap::new(),
            )
        }
        Columns::Attributes(attributes) => {
            let outcomes: BTreeMap<String, AttributeColumn> = attributes
                .into_iter()
                .map(|each| {
                    (
                        each.attribute,
                        each.targets.into_iter().zip(each.predictions).map(Some).collect(),
                    )
                })
                .collect();
            let shares = (0..table.names.len())
                .map(|at| share_right(outcomes.values().filter_map(|of| of[at])));
            (vec![column("aps", shares.collect())], outcomes)
        }
    };
    NewImport {
        run,
        created: clock::now(),
        pack: PackId { digest, name: source.to_owned(), weights: Weights::Imported },
        service_version: crate::VERSION.to_owned(),
        contents: Vec::new(),
        metadata: table.names.iter().map(|name| metadata(name)).collect(),
        names: table.names,
        columns,
        outcomes,
    }
}

/// Returns a sample's metadata as far as its name has them: a name in Stellar's layout is identity,
/// photo and number, as in `007-0-12`.
fn metadata(name: &str) -> String {
    let parts: Vec<&str> = name.split('-').collect();
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let identity = match parts[..] {
        [identity, _, _] if parts.iter().all(digits) => Some(identity.to_owned()),
        _ => None,
    };
    let metadata = Metadata { identity, ..Metadata::default() };
    serde_json::to_string(&metadata).expect("plain data always serialises")
}

fn column(code: &str, values: Vec<ScoreValue>) -> ScoreColumn {
    // A metric that this version of the service does not know counts as version 1.
    let metric_version = metrics::find(code).map_or(1, |metric| metric.version);
    let values = values.into_iter().map(Some).collect();
    ScoreColumn { metric: code.to_owned(), metric_version, values }
}

fn score(value: Option<f64>) -> ScoreValue {
    value.map_or_else(|| ScoreValue::Null { reason: NOT_IMPORTED.to_owned() }, ScoreValue::Number)
}

/// Returns `aps` of one sample: the share of correct predictions.
fn share_right(outcomes: impl Iterator<Item = (bool, bool)>) -> ScoreValue {
    let (mut right, mut all) = (0_u32, 0_u32);
    for (target, prediction) in outcomes {
        right += u32::from(target == prediction);
        all += 1;
    }
    score((all > 0).then(|| f64::from(right) / f64::from(all)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> NewImport {
        to_import(Uuid::nil(), "them", toolkit::parse(text, None, 1000).unwrap())
    }

    #[test]
    fn attributes_become_aps_and_its_outcomes() {
        let import = parsed(
            ",name,Young_target,Young_pred,Male_target,Male_pred\n0,a,1,1,-1,1\n1,b,-1,-1,-1,-1\n",
        );
        assert_eq!(import.columns.len(), 1);
        assert_eq!(import.columns[0].metric, "aps");
        assert_eq!(
            import.columns[0].values,
            [0.5, 1.0].map(|value| Some(ScoreValue::Number(value)))
        );
        assert_eq!(import.outcomes["Male"], [Some((false, true)), Some((false, false))]);
    }

    #[test]
    fn an_empty_cell_becomes_a_null_with_its_reason() {
        let import = parsed(",name,dino_fidelity\n0,a,0.5\n1,b,\n");
        let null = ScoreValue::Null { reason: NOT_IMPORTED.to_owned() };
        assert_eq!(import.columns[0].values, [Some(ScoreValue::Number(0.5)), Some(null)]);
        assert!(import.outcomes.is_empty());
    }

    #[test]
    fn only_names_in_the_layout_of_stellar_have_an_identity() {
        assert_eq!(metadata("007-0-12"), r#"{"identity":"007"}"#);
        for name in ["007", "a-0-12", "007-0-12-1", "007--1", "my-own-name"] {
            assert_eq!(metadata(name), "{}", "{name}");
        }
    }

    #[test]
    fn the_source_names_the_pack() {
        let imported = |source| {
            let table =
                toolkit::parse(",name,dino_fidelity\n0,000-0-00,0.5\n", None, 1000).unwrap();
            to_import(Uuid::nil(), source, table)
        };
        let (one, two) = (imported("one").pack, imported("two").pack);
        assert_eq!((one.name.as_str(), one.digest.len()), ("one", 64));
        assert_ne!(one.digest, two.digest);
    }
}
