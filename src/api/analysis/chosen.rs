//! The runs that an analysis shows side by side: those that are named, or the newest of each
//! method.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::api::http::{ApiError, Code, Id};
use crate::api::runs::find;
use crate::api::state::App;
use crate::{
    pack_id::PackId,
    store::{self, Preference, PreferencesQuery, Question, RunData, RunRecord, RunState},
};

/// Maximum number of finished runs that are searched for the newest of each method: over all
/// methods, or of each one that is named.
const SEARCHED: u32 = 200;

/// What is known of the runs to choose.
#[derive(Debug, Default)]
pub(super) struct Choosing<'a> {
    /// Ids of runs, separated by commas.
    pub(super) runs: Option<&'a str>,
    /// Names of methods, separated by commas, if runs are not named.
    pub(super) methods: Option<&'a str>,
    /// Dataset of the runs, if they are not named. Default: that of the newest finished run.
    pub(super) dataset: Option<String>,
    /// Split of the dataset, if runs are not named.
    pub(super) split: Option<&'a str>,
    /// Name or digest of the pack of the scores.
    pub(super) pack: Option<&'a str>,
    /// Maximum number of runs.
    pub(super) most: usize,
}

/// The runs of an analysis and the pack of their scores.
pub(super) struct Chosen {
    pub(super) runs: Vec<RunRecord>,
    pub(super) dataset: Option<String>,
    /// The pack; `None` if no run has scores of it.
    pub(super) pack: Option<PackId>,
    /// Digest of the pack.
    digest: String,
}

impl Choosing<'_> {
    /// Chooses the runs.
    pub(super) async fn choose(self, app: &App) -> Result<Chosen, ApiError> {
        let mut runs: Vec<RunRecord> = Vec::new();
        for id in listed(self.runs) {
            let run = find(app, Id::parse(id)?).await?;
            if runs.iter().all(|each| each.id != run.id) {
                runs.push(run);
            }
            if runs.len() > self.most {
                let problem = format!("runs names more than {} runs: name fewer", self.most);
                return Err(ApiError::new(Code::MalformedRequest, problem));
            }
        }
        let are_named = !runs.is_empty();
        let mut of = self.dataset.clone();
        if !are_named {
            runs = self.newest(app, &mut of).await?;
        }
        let mut packs = Vec::new();
        for run in &runs {
            packs.push(app.store.run_packs(run.id).await?);
        }
        let mut digest = app.digest_of(self.pack).await?;
        let all = || packs.iter().flatten();
        let mut chosen = all().find(|each| each.digest == digest).cloned();
        if self.pack.is_none() && chosen.is_none() {
            chosen = all().next().cloned();
        }
        if let Some(of) = &chosen {
            digest.clone_from(&of.digest);
        }
        if !are_named {
            // Runs without scores of the pack would be columns without dots.
            let mut packs = packs.iter();
            runs.retain(|_| {
                let packs = packs.next().expect("one list a run");
                packs.iter().any(|each| Some(each) == chosen.as_ref())
            });
            runs.truncate(self.most);
            runs.sort_by(|one, other| one.name.method.cmp(&other.name.method));
        }
        Ok(Chosen { runs, dataset: of, pack: chosen, digest })
    }

    /// Returns the newest finished run of each method over the dataset.
    async fn newest(
        &self,
        app: &App,
        dataset: &mut Option<String>,
    ) -> Result<Vec<RunRecord>, ApiError> {
        let wanted: BTreeSet<&str> = listed(self.methods).collect();
        if wanted.len() > self.most {
            let problem = format!("methods names more than {} methods: name fewer", self.most);
            return Err(ApiError::new(Code::MalformedRequest, problem));
        }
        let query = |method: Option<&str>| store::RunsQuery {
            method: method.map(ToOwned::to_owned),
            dataset: dataset.clone(),
            state: Some(RunState::Finished),
            newest_first: true,
            limit: SEARCHED,
            ..store::RunsQuery::default()
        };
        let mut runs = Vec::new();
        if wanted.is_empty() {
            runs = app.store.runs(&query(None)).await?;
        }
        for method in wanted {
            runs.extend(app.store.runs(&query(Some(method))).await?);
        }
        // Ids are in the order of creation.
        runs.sort_by_key(|run| std::cmp::Reverse(run.id));
        runs.retain(|run| self.split.is_none_or(|split| run.facts.split.as_deref() == Some(split)));
        if dataset.is_none() {
            dataset.clone_from(&runs.first().and_then(|run| run.facts.dataset.clone()));
            runs.retain(|run| run.facts.dataset == *dataset);
        }
        let mut methods = BTreeSet::new();
        runs.retain(|run| methods.insert(run.name.method.clone()));
        Ok(runs)
    }
}

impl Chosen {
    /// Reads the runs with their scores of the pack.
    pub(super) async fn data(&self, app: &App) -> Result<Vec<Arc<RunData>>, ApiError> {
        let mut data: Vec<Arc<RunData>> = Vec::new();
        for run in &self.runs {
            // Without a digest, each run would have the scores of a pack of its own.
            data.extend(app.store.run_data(run.id, Some(&self.digest)).await?);
        }
        Ok(data)
    }
}

/// Reads the judgements on a question about any of the runs, each once. They may be about other
/// runs too.
pub(super) async fn judgements(
    app: &App,
    question: &Question,
    runs: &[Arc<RunData>],
    study: Option<Uuid>,
) -> Result<Vec<Preference>, ApiError> {
    let mut judged: BTreeMap<Uuid, Preference> = BTreeMap::new();
    for run in runs {
        let query = PreferencesQuery {
            question: Some(question.clone()),
            run: Some(run.run),
            study,
            ..PreferencesQuery::default()
        };
        let found = app.store.preferences(&query).await?;
        judged.extend(found.into_iter().map(|preference| (preference.id, preference)));
    }
    Ok(judged.into_values().collect())
}

/// Returns the parts of a list that is separated by commas.
pub(super) fn listed(list: Option<&str>) -> impl Iterator<Item = &str> {
    list.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty())
}
