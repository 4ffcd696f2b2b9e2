//! The judgements that an analysis is about.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::api::http::ApiError;
use crate::api::state::App;
use crate::store::{Preference, PreferencesQuery, Question};

/// Selects judgements on a question.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) question: Question,
    pub(crate) annotator: Option<String>,
    pub(crate) study: Option<Uuid>,
    pub(crate) dataset: Option<String>,
    pub(crate) run: Option<Uuid>,
    /// Kind of the prompts.
    pub(crate) kind: Option<String>,
}

impl Selection {
    /// Reads the judgements that count, or those that do not.
    pub(crate) async fn read(
        &self,
        app: &App,
        uncounted: bool,
    ) -> Result<Vec<Preference>, ApiError> {
        let query = PreferencesQuery {
            question: Some(self.question.clone()),
            annotator: self.annotator.clone(),
            study: self.study,
            dataset: self.dataset.clone(),
            run: self.run,
            uncounted,
            ..PreferencesQuery::default()
        };
        let mut found = app.store.preferences(&query).await?;
        if let Some(kind) = &self.kind {
            let runs: BTreeSet<Uuid> = found.iter().flat_map(|of| of.judgement.runs()).collect();
            let of_kind = app.store.samples_of_kind(&runs, kind).await?;
            found.retain(|of| {
                let mut runs = of.judgement.runs().into_iter();
                runs.any(|run| of_kind.contains(&(run, of.name.clone())))
            });
        }
        Ok(found)
    }
}
