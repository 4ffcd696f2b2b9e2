//! `GET /v1/datasets/{dataset}/composition`: what the prompts of a dataset ask for.

use std::collections::{BTreeMap, BTreeSet};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::datasets::find;
use crate::api::http::{ApiError, InPath};
use crate::api::state::{App, Shared};
use crate::content::ContentHash;
use crate::store::{DatasetRecord, PromptQuery, PromptRecord};

/// Prompts per statement.
const PROMPTS_PER_QUERY: u32 = 1_000;

/// Maximum length of each list; the most frequent ones remain.
const MOST_LABELS: usize = 1_000;

/// What the prompts of a dataset ask for.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"dataset": "stellar", "prompts": 3, "people": 2, "templates": 2,
    "kinds": [{"label": "T", "prompts": 3}], "without_kind": 0,
    "categories": [{"label": "sports", "prompts": 2}], "without_category": 1,
    "objects": [{"label": "horse", "prompts": 2}], "without_objects": 1,
    "relations": [{"label": "person riding horse", "prompts": 2}], "without_relations": 1}))]
pub(crate) struct CompositionResponse {
    /// Name of the dataset.
    pub(crate) dataset: String,
    /// Number of prompts.
    pub(crate) prompts: usize,
    /// Number of people that prompts are for.
    pub(crate) people: usize,
    /// Number of different texts, with `{}` for the person.
    pub(crate) templates: usize,
    /// Prompts by kind, the most frequent first; as all lists, at most 1000 labels.
    pub(crate) kinds: Vec<LabelCount>,
    /// Prompts without a kind.
    pub(crate) without_kind: usize,
    /// Prompts by category. A prompt may have several.
    pub(crate) categories: Vec<LabelCount>,
    /// Prompts without a category.
    pub(crate) without_category: usize,
    /// Prompts by object that they name.
    pub(crate) objects: Vec<LabelCount>,
    /// Prompts that name no object.
    pub(crate) without_objects: usize,
    /// Prompts by relation that they name: subject, predicate and object.
    pub(crate) relations: Vec<LabelCount>,
    /// Prompts that name no relation.
    pub(crate) without_relations: usize,
}

/// Number of prompts with a label.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct LabelCount {
    /// The label.
    pub(crate) label: String,
    /// Number of prompts.
    pub(crate) prompts: usize,
}

/// Counts what the prompts of a dataset ask for: kinds, categories, objects and relations.
#[utoipa::path(
    get, path = "/v1/datasets/{dataset}/composition", operation_id = "read_composition",
    tag = "datasets",
    params(("dataset" = String, Path, description = "Name of the dataset")),
    responses(
        (status = 200, description = "The counts", body = CompositionResponse),
        (status = 404, description = "No such dataset"),
    )
)]
pub(crate) async fn read(
    State(app): Shared,
    name: InPath<String>,
) -> Result<Json<CompositionResponse>, ApiError> {
    let dataset = find(&app, name).await?;
    respond(&app, &dataset).await.map(Json)
}

/// Counts what the prompts of a dataset ask for.
pub(crate) async fn respond(
    app: &App,
    dataset: &DatasetRecord,
) -> Result<CompositionResponse, ApiError> {
    let mut counts = Counts::default();
    let mut after = None;
    loop {
        let query = PromptQuery { after, limit: PROMPTS_PER_QUERY, ..PromptQuery::default() };
        let prompts = app.store.prompts(dataset.id, &query).await?;
        for (_, prompt) in &prompts {
            counts.add(prompt);
        }
        if prompts.len() < PROMPTS_PER_QUERY as usize {
            break;
        }
        after = prompts.into_iter().last().map(|(cursor, _)| cursor);
    }
    Ok(counts.response(dataset.name.clone()))
}

/// Number of prompts by label, and without any.
#[derive(Default)]
struct Labels {
    with: BTreeMap<String, usize>,
    without: usize,
}

impl Labels {
    /// Counts a prompt once for each of its labels.
    fn add(&mut self, labels: impl Iterator<Item = String>) {
        let labels: BTreeSet<String> = labels.collect();
        self.without += usize::from(labels.is_empty());
        for label in labels {
            *self.with.entry(label).or_default() += 1;
        }
    }

    /// Returns the labels, the most frequent first, and the number of prompts without any.
    fn list(self) -> (Vec<LabelCount>, usize) {
        let labels = self.with.into_iter().map(|(label, prompts)| LabelCount { label, prompts });
        let mut labels: Vec<_> = labels.collect();
        labels.sort_by(|a, b| b.prompts.cmp(&a.prompts).then_with(|| a.label.cmp(&b.label)));
        labels.truncate(MOST_LABELS);
        (labels, self.without)
    }
}

#[derive(Default)]
struct Counts {
    prompts: usize,
    people: BTreeSet<String>,
    templates: BTreeSet<[u8; 32]>,
    kinds: Labels,
    categories: Labels,
    objects: Labels,
    relations: Labels,
}

impl Counts {
    fn add(&mut self, prompt: &PromptRecord) {
        self.prompts += 1;
        if !self.people.contains(&prompt.identity) {
            self.people.insert(prompt.identity.clone());
        }
        self.templates.insert(*ContentHash::of(prompt.text.as_bytes()).as_bytes());
        self.kinds.add(prompt.kind.iter().cloned());
        self.categories.add(prompt.facts.categories.iter().cloned());
        self.objects.add(prompt.facts.detectables.iter().cloned());
        self.relations.add(prompt.facts.relations.iter().map(|relation| relation.join(" ")));
    }

    fn response(self, dataset: String) -> CompositionResponse {
        let (kinds, without_kind) = self.kinds.list();
        let (categories, without_category) = self.categories.list();
        let (objects, without_objects) = self.objects.list();
        let (relations, without_relations) = self.relations.list();
        CompositionResponse {
            dataset,
            prompts: self.prompts,
            people: self.people.len(),
            templates: self.templates.len(),
            kinds,
            without_kind,
            categories,
            without_category,
            objects,
            without_objects,
            relations,
            without_relations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::PromptFacts;

    #[test]
    fn a_prompt_counts_once_for_each_of_its_labels() {
        let prompt = |identity: &str, text: &str, objects: &[&str]| PromptRecord {
            identity: identity.to_owned(),
            text: text.to_owned(),
            kind: Some("T".to_owned()),
            facts: PromptFacts {
                detectables: objects.iter().map(|&object| object.to_owned()).collect(),
                ..PromptFacts::default()
            },
        };
        let mut counts = Counts::default();
        for prompt in [
            prompt("0", "{} and horses", &["horse", "horse"]),
            prompt("1", "{} and horses", &["horse"]),
            prompt("1", "{} with a cat", &["cat", "horse"]),
            prompt("1", "{}", &[]),
        ] {
            counts.add(&prompt);
        }
        let found = counts.response("D".to_owned());
        assert_eq!((found.prompts, found.people, found.templates), (4, 2, 3));
        let objects: Vec<_> =
            found.objects.iter().map(|of| (of.label.as_str(), of.prompts)).collect();
        assert_eq!(objects, [("horse", 3), ("cat", 1)]);
        assert_eq!((found.without_objects, found.without_relations), (1, 4));
    }
}
