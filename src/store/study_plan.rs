//! What a study asks: the runs, the prompts, the questions and the form of its items.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Form of the items of a study.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StudyForm {
    /// Two images: which one is better?
    #[default]
    Pairs,
    /// `k` images: which one is the best?
    BestOf,
}

/// State of a study.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StudyState {
    /// Nobody is asked yet.
    Draft,
    /// Annotators are asked.
    Open,
    /// Nobody is asked any more.
    Closed,
}

impl StudyState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Draft, Self::Open, Self::Closed];

    /// Returns the word that is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// The prompts of a study: samples of the same name in all of its runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PromptSelection {
    /// Dataset that all runs must be over.
    #[schema(max_length = 256, example = "Stellar-T")]
    pub dataset: Option<String>,
    /// Split that all runs must be over.
    #[schema(max_length = 256)]
    pub split: Option<String>,
    /// Only prompts of this kind (`metadata.prompt_kind`).
    #[schema(max_length = 256)]
    pub kind: Option<String>,
    /// Only these people (`metadata.identity`). Default: all.
    #[schema(max_items = 1000)]
    pub people: Option<Vec<String>>,
    /// Only samples of these names. Default: all that the runs have in common.
    #[schema(max_items = 10000)]
    pub names: Option<Vec<String>>,
    /// Number of prompts to draw at random, by the seed of the study. Default: all.
    #[schema(minimum = 1, maximum = 10000)]
    pub sample: Option<u32>,
}

/// An item with a known right answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GoldItem {
    /// Name of the samples.
    #[schema(max_length = 256)]
    pub name: String,
    /// Runs of the images, as many as other items have. They need not be runs of the study.
    #[schema(min_items = 2, max_items = 8)]
    pub runs: Vec<Uuid>,
    /// The run whose image is the right answer.
    pub right: Uuid,
}

/// Items with known right answers, mixed in to find annotators who answer at random.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GoldPlan {
    /// 1 to 100 items. Annotators are asked the first question of the study about them. Their
    /// names are used for no other items, unless `prompts.names` has them.
    #[schema(min_items = 1, max_items = 100)]
    pub items: Vec<GoldItem>,
    /// Smallest share of right answers: annotators below it are left out. Default: 0.7.
    #[serde(default = "GoldPlan::share")]
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub share: f64,
    /// Answers to gold items before anybody is left out, at most the number of gold items.
    /// Default: 3, or the number of gold items if there are fewer.
    #[schema(minimum = 1, maximum = 100)]
    pub least: Option<u32>,
    /// One of so many items of an annotator is a gold item. Default: 10.
    #[serde(default = "GoldPlan::every")]
    #[schema(minimum = 2, maximum = 100)]
    pub every: u32,
}

impl GoldPlan {
    fn share() -> f64 {
        0.7
    }

    fn every() -> u32 {
        10
    }

    /// Returns the answers to gold items before anybody is left out.
    #[must_use]
    pub fn least(&self) -> u32 {
        self.least.unwrap_or_else(|| self.items.len().min(3) as u32)
    }
}

/// What a study asks, and how often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "stellar-best-of-four", "title": "Which of four images?",
    "runs": ["0197a7c6-6f00-7000-8000-000000000001", "0197a7c6-6f00-7000-8000-000000000002",
             "0197a7c6-6f00-7000-8000-000000000003", "0197a7c6-6f00-7000-8000-000000000004"],
    "form": "best_of", "k": 4, "questions": ["overall"], "prompts": {"sample": 60},
    "answers_per_item": 5, "quota": 30}))]
pub struct StudyPlan {
    /// Name, unique in the service.
    #[schema(max_length = 256)]
    pub name: String,
    /// Title for people. Default: the name.
    #[serde(default)]
    #[schema(max_length = 256)]
    pub title: String,
    /// 2 to 20 runs whose images are compared, one of each method.
    #[schema(min_items = 2, max_items = 20)]
    pub runs: Vec<Uuid>,
    /// The prompts. Default: all that the runs have in common.
    #[serde(default)]
    pub prompts: PromptSelection,
    /// 1 to 8 questions, in the order in which they are asked about an item. Default: `overall`.
    #[serde(default = "StudyPlan::questions")]
    #[schema(min_items = 1, max_items = 8)]
    pub questions: Vec<String>,
    /// Form of the items.
    #[serde(default)]
    pub form: StudyForm,
    /// Images of an item of the form `best_of`, 2 to 8. Default: 4, or the number of runs if there
    /// are fewer.
    #[schema(minimum = 2, maximum = 8)]
    pub k: Option<u32>,
    /// Items for each prompt: sets of `k` of the runs, which are all used equally often. Default:
    /// all pairs of runs for `pairs`, 1 for `best_of`.
    #[schema(minimum = 1, maximum = 1000)]
    pub sets_per_prompt: Option<u32>,
    /// Wanted answers to each question about each item, by different annotators. Default: 3.
    #[serde(default = "StudyPlan::answers_per_item")]
    #[schema(minimum = 1, maximum = 1000)]
    pub answers_per_item: u32,
    /// Maximum number of items of an annotator, gold items included. Default: 1000.
    #[schema(minimum = 1, maximum = 1000)]
    pub quota: Option<u32>,
    /// Seed of the drawn prompts, of the order of the items and of the positions of images.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 4_294_967_295_u32)]
    pub seed: u32,
    /// Whether "equally good" is an answer; only pairs can have it. Default: false.
    #[serde(default)]
    pub ties: bool,
    /// Whether "cannot tell" is an answer. It is stored and counts for no image. Default: true.
    #[serde(default = "StudyPlan::cannot_tell")]
    pub cannot_tell: bool,
    /// Items with known right answers.
    pub gold: Option<GoldPlan>,
    /// Text that annotators accept before they begin. Default: that of `/vote`.
    #[schema(max_length = 4000)]
    pub consent: Option<String>,
    /// Code that annotators are shown at the end, for a platform that has one code for all.
    /// Default: a code of their own.
    #[schema(max_length = 64)]
    pub completion_code: Option<String>,
}

/// Items of an annotator if a study has no quota.
const QUOTA: u32 = 1_000;

impl StudyPlan {
    fn questions() -> Vec<String> {
        vec!["overall".to_owned()]
    }

    fn answers_per_item() -> u32 {
        3
    }

    fn cannot_tell() -> bool {
        true
    }

    /// Returns all runs whose images are shown: gold items may have others than the study.
    #[must_use]
    pub fn all_runs(&self) -> BTreeSet<Uuid> {
        let gold = self.gold.iter().flat_map(|gold| &gold.items).flat_map(|item| &item.runs);
        self.runs.iter().chain(gold).copied().collect()
    }

    /// Returns the number of images of an item.
    #[must_use]
    pub fn images(&self) -> usize {
        match self.form {
            StudyForm::Pairs => 2,
            StudyForm::BestOf => self.k.map_or(4.min(self.runs.len()), |k| k as usize),
        }
    }

    /// Returns the maximum number of items of an annotator.
    #[must_use]
    pub fn most_items(&self) -> usize {
        self.quota.unwrap_or(QUOTA) as usize
    }
}
