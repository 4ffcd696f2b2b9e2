//! Comparison with the toolkit: its images are scored here and compared with the CSV files that it
//! wrote.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
};

use anyhow::Context as _;
use serde::Serialize;

use super::{AllScored, Case, parity::is_single, scored::APS};
use crate::{
    VERSION,
    engine::Pack,
    machine,
    metrics::{self, Flag, Metric, MetricResult, NullReason, SkipReason, choose},
    pack_id::{PackId, Weights},
    read,
    toolkit::{self, Columns, File, Table},
};

#[cfg(test)]
mod tests;
mod tolerances;

pub use tolerances::Tolerances;

/// Maximum number of rows of a file, more than any of the toolkit's files has.
const MOST_ROWS: usize = 200_000;

/// Maximum number of rows listed for one metric, worst first.
const NAMED: usize = 5;

/// Distance from the decision boundary within which rounding may flip a prediction.
const BOUNDARY: f64 = 1e-3;

/// A CSV file of the toolkit.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreFile {
    /// File name.
    pub name: String,
    /// Parsed rows.
    pub table: Table,
}

/// Result of the comparison with the toolkit's files.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolkitCertificate {
    /// Whether every compared row is within its tolerance, and every row has an image.
    pub passed: bool,
    /// The pack.
    pub pack: PackId,
    /// Version of the service.
    pub service_version: &'static str,
    /// CPU architecture and the instruction sets relevant to the graphs.
    pub machine: String,
    /// Number of scored images.
    pub samples: usize,
    /// Results by metric.
    pub metrics: Vec<ToolkitParity>,
    /// Scores that could not be compared, which is a failure.
    pub problems: Vec<String>,
    /// Notes on scores that were not compared, which is not a failure.
    pub notes: Vec<String>,
}

/// One metric's comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolkitParity {
    /// Code of the metric.
    pub metric: String,
    /// Name of the CSV file.
    pub file: String,
    /// Number of rows compared; predictions for `aps`.
    pub rows: usize,
    /// The largest difference.
    pub largest_difference: f64,
    /// The largest difference allowed.
    pub tolerance: f64,
    /// Whether all rows are within the tolerance.
    pub passed: bool,
    /// Number of rows that exceed the tolerance.
    pub failed_rows: usize,
    /// The rows that differ most.
    pub worst: Vec<RowDifference>,
    /// Rows that differ on purpose (docs/METRICS.md) and are not part of the comparison.
    pub left_out: Vec<LeftOutRow>,
}

/// The two numbers of a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowDifference {
    /// The row's name; for `aps` with the attribute.
    pub row: String,
    /// The toolkit's number.
    pub toolkit: f64,
    /// This service's number.
    pub here: f64,
}

impl RowDifference {
    /// Returns the absolute difference.
    #[must_use]
    pub fn size(&self) -> f64 {
        (self.here - self.toolkit).abs()
    }
}

/// A row that was not compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeftOutRow {
    /// The row's name.
    pub row: String,
    /// Reason.
    pub why: &'static str,
}

/// Reads the toolkit's files among CSV files, and returns notes on the other ones.
///
/// # Errors
/// A malformed file of the toolkit, or two files of one kind.
pub fn read_score_files(paths: &[PathBuf]) -> anyhow::Result<(Vec<ScoreFile>, Vec<String>)> {
    let (mut files, mut notes): (Vec<ScoreFile>, Vec<String>) = (Vec::new(), Vec::new());
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if File::of_name(&name).is_none() {
            notes.push(format!(
                "{} does not have the name of a toolkit file, skipped",
                path.display()
            ));
            continue;
        }
        let text = read::text(path).with_context(|| format!("cannot read {}", path.display()))?;
        let table = toolkit::parse(&text, Some(&name), MOST_ROWS)
            .with_context(|| path.display().to_string())?;
        if let Some(other) = files.iter().find(|file| file.table.file == table.file) {
            anyhow::bail!(
                "{name} and {} are two files of one metric: keep only one of them",
                other.name
            );
        }
        files.push(ScoreFile { name, table });
    }
    Ok((files, notes))
}

impl ScoreFile {
    /// Retains only these metrics, and returns whether the file has any of them.
    pub fn keep(&mut self, wanted: &[&'static Metric]) -> bool {
        let is_wanted = |code: &str| wanted.iter().any(|metric| metric.code == code);
        match &mut self.table.columns {
            Columns::Scores(columns) => {
                columns.retain(|(code, _)| is_wanted(code));
                !columns.is_empty()
            }
            Columns::Attributes(_) => is_wanted(APS),
        }
    }

    /// Returns the metrics in the file.
    #[must_use]
    pub fn metrics(&self) -> Vec<&'static Metric> {
        let codes: Vec<&str> = match &self.table.columns {
            Columns::Scores(columns) => columns.iter().map(|(code, _)| *code).collect(),
            Columns::Attributes(_) => vec![APS],
        };
        codes.into_iter().filter_map(metrics::find).collect()
    }
}

/// Compares the files with this service's scores of the samples.
#[must_use]
pub fn compare(
    pack: &Pack,
    cases: &[Case],
    scored: &AllScored,
    files: &[ScoreFile],
    tolerances: &Tolerances,
) -> ToolkitCertificate {
    let here = Here::of(cases, scored);
    let single = is_single(pack);
    let mut found = Found::default();
    found.problems.extend(
        cases.iter().zip(scored).filter_map(|(case, scored)| {
            Some(format!("{}: {}", case.name, scored.as_ref().err()?))
        }),
    );
    if pack.weights == Weights::Demo {
        found.notes.push(
            "the pack has demo weights: its scores agree only with scores of the same weights"
                .to_owned(),
        );
    }
    for file in files {
        found.unmatched(file, &here);
        match &file.table.columns {
            Columns::Scores(columns) => {
                for (code, values) in columns {
                    found.scores(file, code, values, &here, tolerances.of(code, single));
                }
            }
            Columns::Attributes(_) => found.attributes(file, &here),
        }
        found.note_other_clip(pack, file);
    }
    let Found { metrics, problems, notes } = found;
    ToolkitCertificate {
        passed: !metrics.is_empty()
            && problems.is_empty()
            && metrics.iter().all(|metric| metric.passed),
        pack: pack.id(),
        service_version: VERSION,
        machine: machine::description(),
        samples: here.outcomes.len(),
        metrics,
        problems,
        notes,
    }
}

/// Samples with their scores, by name.
struct Here<'a> {
    outcomes: HashMap<&'a str, (&'a Case, &'a BTreeMap<&'static str, MetricResult>)>,
    /// Largest number of labels of any image.
    most_labels: usize,
}

impl<'a> Here<'a> {
    fn of(cases: &'a [Case], scored: &'a AllScored) -> Self {
        let with_scores = cases
            .iter()
            .zip(scored)
            .filter_map(|(case, scored)| Some((case, scored.as_ref().ok()?)));
        Self {
            outcomes: with_scores
                .map(|(case, scored)| (case.name.as_str(), (case, &scored.outcomes)))
                .collect(),
            most_labels: cases.iter().map(labels).max().unwrap_or(0),
        }
    }

    fn get(&self, name: &str, code: &str) -> Option<(&'a Case, &'a MetricResult)> {
        let (case, outcomes) = self.outcomes.get(name)?;
        Some((case, outcomes.get(code)?))
    }
}

fn labels(case: &Case) -> usize {
    choose(&case.metadata.detectables).0.len()
}

#[derive(Default)]
struct Found {
    metrics: Vec<ToolkitParity>,
    problems: Vec<String>,
    notes: Vec<String>,
}

impl Found {
    /// Reports rows without an image, and images without a row.
    fn unmatched(&mut self, file: &ScoreFile, here: &Here<'_>) {
        for name in
            file.table.names.iter().filter(|name| !here.outcomes.contains_key(name.as_str()))
        {
            self.problems.push(format!("{}: row {name:?} has no scored image", file.name));
        }
        let rows: BTreeSet<&str> = file.table.names.iter().map(String::as_str).collect();
        let without = here.outcomes.keys().filter(|name| !rows.contains(**name)).count();
        if without > 0 {
            self.notes.push(format!("{}: {without} images have no row", file.name));
        }
    }

    fn scores(
        &mut self,
        file: &ScoreFile,
        code: &'static str,
        values: &[Option<f64>],
        here: &Here<'_>,
        tolerance: f64,
    ) {
        if values.iter().all(Option::is_none) {
            self.notes.push(format!("{}: no row has a score for {code}", file.name));
            return;
        }
        let (mut rows, mut left_out) = (Vec::new(), Vec::new());
        let mut unavailable = 0;
        for (name, value) in file.table.names.iter().zip(values) {
            let Some((case, outcome)) = here.get(name, code) else { continue };
            let leave = |why| LeftOutRow { row: name.clone(), why };
            match (outcome, value) {
                (Err(NullReason::Unavailable), _) => unavailable += 1,
                (Err(_), None) => {}
                (_, Some(toolkit))
                    if let Some(why) = differs_on_purpose(
                        code,
                        case,
                        outcome,
                        *toolkit,
                        here.most_labels,
                        tolerance,
                    ) =>
                {
                    left_out.push(leave(why));
                }
                (Ok(score), Some(toolkit)) => {
                    rows.push(RowDifference {
                        row: name.clone(),
                        toolkit: *toolkit,
                        here: score.value,
                    });
                }
                (Err(reason), Some(toolkit)) => self.problems.push(format!(
                    "{name}: {code} is null here ({}), but {toolkit} in {}",
                    reason.code(),
                    file.name
                )),
                (Ok(score), None) => self.problems.push(format!(
                    "{name}: {code} is {} here, but empty in {}",
                    score.value, file.name
                )),
            }
        }
        if unavailable > 0 {
            self.notes.push(format!(
                "{code}: not compared with {}, since the pack has no graphs for it",
                file.name
            ));
            return;
        }
        self.push(code, file, rows, left_out, tolerance);
    }

    /// Compares attribute predictions, which must be equal unless rounding may flip them.
    fn attributes(&mut self, file: &ScoreFile, here: &Here<'_>) {
        let Columns::Attributes(columns) = &file.table.columns else { return };
        let (mut rows, mut left_out) = (Vec::new(), Vec::new());
        let sign = |label: bool| if label { 1.0 } else { -1.0 };
        for (at, name) in file.table.names.iter().enumerate() {
            let predictions = match here.get(name, APS) {
                Some((_, Ok(score))) => score.predictions(),
                Some((_, Err(reason))) => {
                    self.problems.push(format!("{name}: aps is null here ({})", reason.code()));
                    continue;
                }
                None => continue,
            };
            for column in columns {
                let row = format!("{name} {}", column.attribute);
                let Some(found) =
                    predictions.iter().find(|found| found.attribute == column.attribute)
                else {
                    continue;
                };
                if found.target != Some(column.targets[at]) {
                    let what = if column.targets[at] { "present" } else { "absent" };
                    self.problems
                        .push(format!("{row}: {what} in {}, but not in its JSON file", file.name));
                    continue;
                }
                match (found.prediction, found.decision) {
                    (None, _) => left_out.push(LeftOutRow {
                        row,
                        why: "the photos do not separate the attribute, so there is no prediction \
                            here",
                    }),
                    (Some(here), Some(decision))
                        if here != column.predictions[at] && decision.abs() <= BOUNDARY =>
                    {
                        left_out.push(LeftOutRow { row, why: "the decision is on the boundary" });
                    }
                    (Some(here), _) => rows.push(RowDifference {
                        row,
                        toolkit: sign(column.predictions[at]),
                        here: sign(here),
                    }),
                }
            }
        }
        self.push(APS, file, rows, left_out, 0.0);
    }

    fn push(
        &mut self,
        code: &str,
        file: &ScoreFile,
        mut rows: Vec<RowDifference>,
        left_out: Vec<LeftOutRow>,
        tolerance: f64,
    ) {
        rows.sort_by(|a, b| b.size().total_cmp(&a.size()));
        let failed_rows = rows.iter().filter(|row| row.size() > tolerance).count();
        if rows.is_empty() {
            self.problems.push(format!("{code}: no rows of {} can be compared", file.name));
        }
        self.metrics.push(ToolkitParity {
            metric: code.to_owned(),
            file: file.name.clone(),
            rows: rows.len(),
            largest_difference: rows.first().map_or(0.0, RowDifference::size),
            tolerance,
            passed: failed_rows == 0 && !rows.is_empty(),
            failed_rows,
            worst: rows.into_iter().take(NAMED).collect(),
            left_out,
        });
    }

    /// Adds a note if the file's name refers to another CLIP model, whose scores are not
    /// comparable.
    fn note_other_clip(&mut self, pack: &Pack, file: &ScoreFile) {
        let Some(graph) = pack.graph("clip.image").filter(|_| file.table.file.prefix == "clip")
        else {
            return;
        };
        if file.table.file.file_name(&graph.source.checkpoint) != file.name {
            self.notes.push(format!(
                "{}: the file name does not match the pack's CLIP, {}; scores of different CLIP \
                    models are not comparable",
                file.name, graph.source.checkpoint
            ));
        }
    }
}

/// Returns the reason if the toolkit's number differs on purpose, as listed in docs/METRICS.md.
fn differs_on_purpose(
    code: &str,
    case: &Case,
    outcome: &MetricResult,
    toolkit: f64,
    most_labels: usize,
    tolerance: f64,
) -> Option<&'static str> {
    use NullReason::{NoDetectables, NoFaceInOtherPhoto, NoFaceInReference};
    let is = |expected: f64| (toolkit - expected).abs() <= tolerance;
    match outcome {
        Ok(score) if is(score.value) => None,
        Err(NoDetectables | NoFaceInReference | NoFaceInOtherPhoto) if toolkit == 0.0 => {
            Some("null here, where the toolkit writes 0")
        }
        Ok(score) if score.flags.contains(&Flag::FacelessPhotos) && is(score.value.min(0.0)) => {
            Some("photos without a face are left out here, but count as 0 in the toolkit")
        }
        Ok(score) if code == "goa" => {
            // A competing label takes boxes away, so it can only lower a score.
            labels_differ(case, most_labels).filter(|_| toolkit < score.value)
        }
        _ => None,
    }
}

fn labels_differ(case: &Case, most_labels: usize) -> Option<&'static str> {
    let detectables = &case.metadata.detectables;
    let (labels, skipped) = choose(detectables);
    let distinct: BTreeSet<&String> = labels.iter().copied().collect();
    // The toolkit recognises roles in lower case only.
    let read_alike = |skipped: &metrics::Skipped| {
        skipped.why == SkipReason::Role && skipped.text.chars().all(|letter| !letter.is_uppercase())
    };
    if distinct.len() < labels.len() || !skipped.iter().all(read_alike) {
        return Some(
            "the toolkit treats labels that are repeated, blank or roles in upper case as further \
                objects",
        );
    }
    (labels.len() < most_labels).then_some(
        "the toolkit pads the labels of an image with blanks, which compete with them in a batch",
    )
}
