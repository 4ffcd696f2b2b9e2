//! Statistics of methods from scores of samples: the penalty for metric exploitation, means and
//! their intervals, slices, ranks and comparisons.
//!
//! Mostly pure functions; only `refresh`, `leaderboard` and `common` read from the store. An image
//! that merely copies the reference image scores high in identity, so a sample whose image follows
//! the prompt hardly better than its reference image does is *penalised*: it passes only if
//! `clip_t > clip_n + 2·std(clip_n)`, with the standard deviation taken over the run (ddof 1).

mod alignment;
mod annotators;
mod axis;
mod changes;
mod clusters;
mod common;
mod compare;
mod correlations;
mod differences;
mod distributions;
mod first_places;
mod gallery;
mod labels;
mod leaderboard;
mod matrix;
mod penalty;
mod percentiles;
mod photo_swap;
mod preferences;
mod prompts;
mod published;
mod quantity;
mod query;
mod ranks;
mod reasons;
mod refresh;
mod render;
mod report;
mod rows;
mod slices;
mod study;
mod study_items;
mod tradeoff;
mod voting;

pub use alignment::{JudgedPair, MetricAlignment, SliceAlignment, alignment, judged_pairs};
pub use annotators::{AnnotatorAgreement, annotator_agreement};
pub use axis::{Axis, Cost};
pub use changes::{Changes, GroupBy, GroupDifference, PairDifference, changes};
pub use common::{CommonError, common_key, rows_on_common};
pub use compare::{
    CompareOptions, Comparison, Difference, Finding, SliceComparison, compare, compare_benchmark,
};
pub use correlations::{Cell, Coefficient, FamilyPair, add_intervals, correlations, family_pairs};
pub use differences::{
    DifferenceOptions, SliceDifferences, TauDifference, TauVerdict, tau_differences,
};
pub use distributions::{Distribution, distributions};
pub use first_places::{
    FirstPlaceShare, FirstPlaces, MetricFirstPlaces, PeopleFirstPlaces, first_places,
};
pub use gallery::{
    Gallery, GalleryFilter, GalleryImage, GalleryOptions, GalleryRow, GallerySort, gallery,
};
pub use leaderboard::{LeaderboardPage, leaderboard, leaderboard_rows};
pub use matrix::{Matrix, MatrixCell, MatrixColumn, MatrixRow, matrix};
pub use penalty::Policy;
pub use percentiles::{Place, place};
pub use photo_swap::{NoSwap, PhotoSwap, RunPhotos, SwappedMetric, photo_swap};
pub use preferences::{
    MethodPreference, MethodPreferences, NextPair, method_preferences, next_pairs,
};
pub use prompts::{
    KindStatistics, MOST_KINDS, PromptCounter, PromptText, PublishedFigure, QuantityStatistics,
    Spread, largest_kinds, published_figures,
};
pub use published::{
    Measured, NotComparable, PreferredShare, Published, PublishedAlignment, PublishedDataset,
    PublishedMethod, UserStudy, is_benchmark, names_dataset, not_comparable, published,
};
pub use quantity::Quantity;
pub use query::{Grouping, LeaderboardQuery, Samples, Sort};
pub use ranks::places;
pub use reasons::{NoAlpha, NoCoefficient, NoInterval};
pub use refresh::{refresh_run, refresh_stale, refresh_version};
pub use render::{Caption, csv, latex, markdown};
pub use report::{AttributeOutcomes, Report, ReportError, ReportRow, RunScores, Statistic, report};
pub use rows::{Area, LeaderboardRow, RankedDetail, RankedMetric};
pub use slices::{sample_set, summarise};
pub use study::{
    ShareInterval, StudyAgreement, StudyDifference, StudyMethod, StudyResults, study_results,
};
pub use study_items::{
    MOST_SETS, draw_items, first_item, gold_turn, sets, sets_per_prompt, shown_order,
};
pub use tradeoff::{Estimate, TradeOffPoint, trade_off};
pub use voting::{AnnotatorVoting, Proportion, Voting, voting};
