//! Reads the parts of a paper from a service, one after the other.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use uuid::Uuid;

use super::{
    board::Board,
    correlations, document, first_places, gallery, matrix,
    options::Options,
    part::{Missing, Part},
    people,
    source::{Answered, Said, Source},
};
use crate::analysis::published_figures;
use crate::api::analysis::alignment::{AlignmentResponse, PreferencesResponse};
use crate::api::analysis::alignment_differences::AlignmentDifferencesResponse;
use crate::api::analysis::correlations::{CorrelationsResponse, MOST_NAMED};
use crate::api::analysis::first_places::{self as first, FirstPlacesResponse};
use crate::api::analysis::gallery::{GalleryResponse, MOST_RUNS};
use crate::api::analysis::leaderboard::Row as BoardRow;
use crate::api::analysis::matrix::MatrixResponse;
use crate::api::datasets::showing::{self, ShownRun};
use crate::api::datasets::statistics::StatisticsResponse;
use crate::api::datasets::{DatasetEntry, DatasetsResponse};
use crate::api::studies::results::ResultsResponse;
use crate::api::studies::{StudiesResponse, StudyResponse};
use crate::client::Client;
use crate::figures::statistics;

/// Rows of the leaderboard: the server's maximum.
const MOST_ROWS: &str = "1000";

/// The question to people about an image as a whole.
const OVERALL: &str = "overall";

/// Studies that are looked at.
const STUDIES: usize = 50;

/// Pauses while runs are summarised, which takes seconds after a change.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSES: usize = 60;

/// A paper that is being put together.
pub(super) struct Paper<'a> {
    source: Source<'a>,
    options: &'a Options,
    pub(super) parts: Vec<Part>,
    pub(super) missing: Vec<Missing>,
}

impl<'a> Paper<'a> {
    /// Begins a paper.
    pub(super) fn new(client: &'a Client, options: &'a Options) -> Self {
        let source = Source { client };
        Self { source, options, parts: Vec::new(), missing: Vec::new() }
    }

    /// Adds a part under a name of its own.
    fn push(&mut self, part: Part) {
        let part = part.renamed(&self.parts);
        self.parts.push(part);
    }

    /// Notes the wanted methods that have no row.
    pub(super) fn unknown_methods(&mut self, all: &Board) {
        for name in &self.options.methods {
            if all.of.rows.iter().all(|row| row.method != *name) {
                let why = "no such method on this server, or no run of it that the other options \
                           select";
                self.missing.push(Missing::new(format!("method {name}"), why));
            }
        }
    }

    /// Reads the benchmarks of all kinds of prompts; all prompts together come last.
    pub(super) async fn boards(&mut self) -> anyhow::Result<Vec<Board>> {
        let mut boards = Vec::new();
        // It is read first: a run that is not summarised yet has a row here, but in no kind.
        let all = self.board(None).await?;
        for kind in &self.options.kinds {
            let board = self.board(Some(kind)).await?;
            if board.of.rows.is_empty() {
                let what = format!("methods over {}", board.title());
                self.missing.push(Missing::new(what, "no run has 5 samples of such prompts"));
                continue;
            }
            boards.push(board);
        }
        boards.push(all);
        Ok(boards)
    }

    async fn board(&mut self, kind: Option<&str>) -> anyhow::Result<Board> {
        let options = self.options;
        let query = [
            ("dataset", options.dataset.as_deref()),
            ("split", options.split.as_deref()),
            ("pack", options.pack.as_deref()),
            ("policy", Some(options.policy.as_str())),
            ("prompt_kind", kind),
            ("by", options.by()),
            ("sort", Some("mean_rank")),
            ("published", Some("true")),
            ("limit", Some(MOST_ROWS)),
        ];
        let mut pauses = 0;
        loop {
            let answer = self.source.get(&["v1", "leaderboard"], &query).await;
            let board = Board::new(kind, answer.context("cannot read the leaderboard")?, options);
            if board.is_pending() && pauses < PAUSES {
                pauses += 1;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            if board.is_pending() {
                let what = format!("intervals and places over {}", board.title());
                let why = "a run has changed and is not summarised yet: repeat the command";
                self.missing.push(Missing::new(what, why));
            }
            if board.of.next.is_some() {
                let what = format!("methods beyond the first {MOST_ROWS}");
                self.missing.push(Missing::new(what, "a table has no more: select some"));
            }
            return Ok(board);
        }
    }

    pub(super) fn tables(&mut self, boards: &[Board]) {
        for board in boards {
            self.push(board.part(self.options));
        }
    }

    /// Reads all datasets of the service.
    pub(super) async fn datasets(&self) -> anyhow::Result<Vec<DatasetEntry>> {
        let mut all: Vec<DatasetEntry> = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let query = [("limit", Some(MOST_ROWS)), ("after", after.as_deref())];
            let page: Answered<DatasetsResponse> =
                self.source.get(&["v1", "datasets"], &query).await?;
            all.extend(page.of.datasets);
            match page.of.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    pub(super) async fn statistics(&mut self, datasets: &[DatasetEntry]) -> anyhow::Result<()> {
        const WHAT: &str = "statistics of the dataset";
        let Some(name) = &self.options.dataset else {
            self.missing.push(Missing::new(WHAT, "no dataset was named"));
            return Ok(());
        };
        if !datasets.iter().any(|of| of.name == *name) {
            let why = "it is not registered: `stellar-score dataset register` sends its prompts";
            self.missing.push(Missing::new(WHAT, why));
            return Ok(());
        }
        let route = ["v1", "datasets", name, "statistics"];
        match self.source.ask::<StatisticsResponse>(&route, &[]).await? {
            Said::Answer(Answered { of, request }) if !of.statistics.is_empty() => {
                let table = statistics::table(&of.statistics);
                let mut part = Part::new("dataset", "Dataset", document::dataset_caption(name))
                    .requested(&request)
                    .latex(&table)
                    .csv(&table);
                for figure in published_figures(name, &of.statistics) {
                    let found = figure.found.map_or("none".to_owned(), |found| found.to_string());
                    part.remarks.push(format!(
                        "different {} of kind {}: {found} found, {} published",
                        figure.quantity.word(),
                        figure.kind,
                        figure.published
                    ));
                }
                self.push(part);
            }
            Said::Answer(_) => {
                self.missing.push(Missing::new(WHAT, "no prompt is registered"));
            }
            Said::Refused(why) => self.missing.push(Missing::new(WHAT, why)),
        }
        Ok(())
    }

    /// Compares the newest run of each method, in each benchmark.
    pub(super) async fn first_places(&mut self, boards: &[Board]) -> anyhow::Result<()> {
        let options = self.options;
        let question = match options.questions.iter().find(|question| *question == OVERALL) {
            None => options.questions.first(),
            overall => overall,
        };
        let question = question.map_or(OVERALL, |question| question);
        for board in boards {
            let chosen = board.of.rows.iter().filter_map(newest).take(first::MOST_RUNS);
            let runs = chosen.map(|run| run.to_string()).collect::<Vec<_>>().join(",");
            let query = [
                ("runs", Some(&*runs)),
                ("kind", board.kind.as_deref()),
                ("pack", options.pack.as_deref()),
                ("question", Some(question)),
            ];
            let what = format!("first places over {}", board.title());
            let route = ["v1", "analysis", "first-places"];
            match self.source.ask::<FirstPlacesResponse>(&route, &query).await? {
                Said::Answer(answer) if answer.of.no_shares.is_none() => {
                    let mut part = first_places::part(&answer, board.kind.as_deref());
                    if board.of.rows.len() > first::MOST_RUNS {
                        let remark = format!("the first {} methods", first::MOST_RUNS);
                        part.remarks.push(remark);
                    }
                    self.push(part);
                }
                Said::Answer(_) => {
                    let why = "fewer than two runs have scores of the same prompts";
                    self.missing.push(Missing::new(what, why));
                }
                Said::Refused(why) => self.missing.push(Missing::new(what, why)),
            }
        }
        Ok(())
    }

    pub(super) async fn matrices(&mut self, all: &Board) -> anyhow::Result<()> {
        let options = self.options;
        let comparable = all.of.rows.iter().filter(|row| row.comparable == Some(true));
        let comparable: BTreeSet<String> = comparable.map(|row| row.method.clone()).collect();
        for metric in &options.by_category {
            let query = [
                ("kind", Some("category")),
                ("metric", Some(&**metric)),
                ("dataset", options.dataset.as_deref()),
                ("split", options.split.as_deref()),
                ("pack", options.pack.as_deref()),
                ("policy", Some(options.policy.as_str())),
                ("by", options.by()),
                ("limit", Some(matrix::MOST_CATEGORIES)),
            ];
            let said = self.source.ask::<MatrixResponse>(&["v1", "analysis", "matrix"], &query);
            let what = format!("{metric} by category");
            match said.await? {
                Said::Answer(answer) => {
                    if let Some(part) = matrix::part(answer, options, &comparable) {
                        self.push(part);
                    } else {
                        let why = "no category has 20 images of a method";
                        self.missing.push(Missing::new(what, why));
                    }
                }
                Said::Refused(why) => self.missing.push(Missing::new(what, why)),
            }
        }
        Ok(())
    }

    pub(super) async fn correlations(&mut self, all: &Board) -> anyhow::Result<()> {
        let runs = all.of.rows.iter().filter_map(newest).take(MOST_NAMED);
        let runs = runs.map(|run| run.to_string()).collect::<Vec<_>>().join(",");
        let query = [("runs", Some(&*runs)), ("pack", self.options.pack.as_deref())];
        let route = ["v1", "analysis", "correlations"];
        match self.source.ask::<CorrelationsResponse>(&route, &query).await? {
            Said::Answer(answer) if answer.of.metrics.len() > 1 => {
                let mut part = correlations::part(&answer);
                part.remarks.push("the newest run of each method".to_owned());
                if all.of.rows.len() > MOST_NAMED {
                    part.remarks.push(format!("the first {MOST_NAMED} methods"));
                }
                self.push(part);
            }
            Said::Answer(_) => {
                let why = "fewer than two metrics have scores";
                self.missing.push(Missing::new("correlations", why));
            }
            Said::Refused(why) => self.missing.push(Missing::new("correlations", why)),
        }
        Ok(())
    }

    pub(super) async fn people(&mut self, all: &Board) -> anyhow::Result<()> {
        let options = self.options;
        let (mut agreement, mut preferred) = (Vec::new(), Vec::new());
        for question in &options.questions {
            let query = [
                ("question", Some(&**question)),
                ("dataset", options.dataset.as_deref()),
                ("pack", options.pack.as_deref()),
            ];
            let route = ["v1", "analysis", "alignment"];
            let what = format!("agreement of metrics with people: {question}");
            match self.source.ask::<AlignmentResponse>(&route, &query).await? {
                Said::Answer(answer) if answer.of.answers > 0 => {
                    let route = ["v1", "analysis", "alignment", "differences"];
                    let differences =
                        self.source.ask::<AlignmentDifferencesResponse>(&route, &query).await?;
                    let differences = match differences {
                        Said::Answer(answer) => Some(answer),
                        Said::Refused(why) => {
                            let what = format!("differences of agreement: {question}");
                            self.missing.push(Missing::new(what, why));
                            None
                        }
                    };
                    agreement.push(people::Agreement { of: answer, differences });
                }
                Said::Answer(_) => self.missing.push(Missing::new(what, "nobody has voted")),
                Said::Refused(why) => self.missing.push(Missing::new(what, why)),
            }
            let route = ["v1", "analysis", "preferences"];
            let what = format!("preferred methods: {question}");
            match self.source.ask::<PreferencesResponse>(&route, &query[..2]).await? {
                Said::Answer(answer) if !answer.of.preferences.methods.is_empty() => {
                    preferred.push(answer);
                }
                Said::Answer(_) => self.missing.push(Missing::new(what, "nobody has voted")),
                Said::Refused(why) => self.missing.push(Missing::new(what, why)),
            }
        }
        let mut parts = Vec::new();
        if !agreement.is_empty() {
            parts.push(people::alignment(&agreement));
        }
        if !preferred.is_empty() {
            parts.push(people::preferences(&preferred));
        }
        if options.is_selective() {
            let remark = "over votes about all methods of the dataset, also those left out";
            for part in &mut parts {
                part.remarks.push(remark.to_owned());
            }
        }
        for part in parts {
            self.push(part);
        }
        self.studies(all).await
    }

    async fn studies(&mut self, all: &Board) -> anyhow::Result<()> {
        let runs: BTreeSet<Uuid> = all.of.rows.iter().flat_map(|row| row.runs.clone()).collect();
        let query = [("limit", Some(MOST_ROWS))];
        let listed = match self.source.ask::<StudiesResponse>(&["v1", "studies"], &query).await? {
            Said::Answer(answer) => answer.of.items,
            Said::Refused(why) => {
                self.missing.push(Missing::new("studies", why));
                return Ok(());
            }
        };
        let about = |study: &&StudyResponse| study.plan.runs.iter().any(|run| runs.contains(run));
        let mut found = Vec::new();
        for study in listed.iter().filter(about).take(STUDIES) {
            let id = study.id.to_string();
            for question in &study.plan.questions {
                let query = [("question", Some(&**question))];
                let route = ["v1", "studies", &id, "results"];
                match self.source.ask::<ResultsResponse>(&route, &query).await? {
                    Said::Answer(answer) if answer.of.results.answers > 0 => found.push(answer),
                    Said::Answer(_) => {}
                    Said::Refused(why) => {
                        let what = format!("study {}: {question}", study.plan.name);
                        self.missing.push(Missing::new(what, why));
                    }
                }
            }
        }
        if found.is_empty() {
            self.missing.push(Missing::new("studies", "none about these runs has answers"));
        } else {
            self.push(people::studies(&found));
        }
        Ok(())
    }

    pub(super) async fn gallery(
        &mut self,
        all: &Board,
        datasets: &[DatasetEntry],
    ) -> anyhow::Result<()> {
        if self.options.gallery == 0 {
            self.missing.push(Missing::new("gallery", "no row was wanted"));
            return Ok(());
        }
        let chosen = all.of.rows.iter().filter_map(newest).take(MOST_RUNS).collect::<Vec<_>>();
        let ids = chosen.iter().map(Uuid::to_string).collect::<Vec<_>>().join(",");
        let limit = self.options.gallery.to_string();
        let query = [
            ("runs", Some(&*ids)),
            ("pack", self.options.pack.as_deref()),
            ("sort", Some("disagreement")),
            ("limit", Some(&*limit)),
        ];
        let said = self.source.ask::<GalleryResponse>(&["v1", "analysis", "gallery"], &query);
        let answer = match said.await? {
            Said::Answer(answer) if !answer.of.rows.is_empty() => answer,
            Said::Answer(_) => {
                let why = "no two runs have samples of the same name";
                self.missing.push(Missing::new("gallery", why));
                return Ok(());
            }
            Said::Refused(why) => {
                self.missing.push(Missing::new("gallery", why));
                return Ok(());
            }
        };
        let withheld = self.withheld(&chosen, datasets).await?;
        let mut part = gallery::part(self.source, &answer, &withheld).await?;
        part.remarks.push("the rows on which the metrics disagree most".to_owned());
        if chosen.len() < all.of.rows.len() {
            let remark = format!("the first {} of {} methods", chosen.len(), all.of.rows.len());
            part.remarks.push(remark);
        }
        self.push(part);
        Ok(())
    }

    /// Returns why images may not be shown to others, by the rule of shared pages.
    async fn withheld(
        &self,
        runs: &[Uuid],
        datasets: &[DatasetEntry],
    ) -> anyhow::Result<gallery::Withheld> {
        let mut shown = Vec::new();
        for run in runs {
            let route = ["v1", "runs", &run.to_string()];
            let about: Answered<RunFacts> = self.source.get(&route, &[]).await?;
            shown.push(ShownRun { method: about.of.method, dataset: about.of.dataset });
        }
        let is_registered = |name: &str| datasets.iter().any(|of| of.name == name);
        let private = datasets.iter().find(|of| !of.redistributable).map(|of| &*of.name);
        let why = showing::reason(&shown, is_registered, private);
        Ok(why.map(|why| format!("images are placeholders: {why}")))
    }
}

/// What the paper needs to know of a run.
#[derive(serde::Deserialize)]
struct RunFacts {
    method: String,
    #[serde(default)]
    dataset: Option<String>,
}

/// Returns the newest run of a row: ids are in the order of creation.
fn newest(row: &BoardRow) -> Option<Uuid> {
    row.runs.iter().max().copied()
}
