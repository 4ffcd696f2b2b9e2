//! Statistics over scores: pure functions of numbers, without I/O or clock.
//!
//! Every function is tested against scipy, scikit-learn, statsmodels or the package of its method
//! with fixtures (`scripts/stats_fixtures.py`, `tests/reference/stats.rs`), and documents its
//! result for undefined cases: `None` for a coefficient of constant numbers, an error with the
//! reason for a fit that does not exist. Numbers must be finite; otherwise the result is `None`.

#![forbid(unsafe_code)]

mod agreement;
mod bootstrap;
pub mod cancel;
mod choice;
mod cluster;
mod interval;
mod linear;
mod logistic;
mod multiple;
mod normal;
mod power;
mod proportion;
mod rank;
mod rng;
mod smooth;
mod student;
mod summary;
mod variance;
mod within;

pub use agreement::{Level, krippendorff_alpha, krippendorff_alpha_interval};
pub use bootstrap::{Bootstrap, FEWEST_CLUSTERS, bca, percentile, quantiles};
pub use choice::{Choice, ChoiceError, ChoiceModel, choice_model};
pub use cluster::{ClusterMean, FEW_CLUSTERS, sign_flip_test};
pub use interval::Interval;
pub use logistic::{Logistic, LogisticError, fit_logistic};
pub use multiple::{benjamini_hochberg, holm, holm_of};
pub use normal::{normal_cdf, normal_quantile};
pub use power::{answers_for_share, design_effect, power_for_share};
pub use proportion::{ShareMethod, share_intervals, wilson};
pub use rank::{average_ranks, kendall_tau_b, pearson, roc_auc, spearman};
pub use rng::Rng;
pub use smooth::{ClusterSums, Smooth, SmoothEstimate, TauSums, tau_difference};
pub use student::{student_cdf, student_quantile, student_quantile_between};
pub use summary::{Summary, summarize};
pub use variance::{NestedSums, Variances, variances};
pub use within::{kendall_within, pearson_within, spearman_within};
