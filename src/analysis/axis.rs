//! Axes of a trade-off: metrics, and what a method costs by its card.

use super::ranks::more_is_better;
use crate::card::{self, MethodCard};
use crate::metrics::Metric;

/// What a method costs, as its card declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Seconds for an image.
    PerImage,
    /// Seconds for a subject before its first image.
    PerSubject,
}

impl Cost {
    /// All costs.
    pub const ALL: [Self; 2] = [Self::PerImage, Self::PerSubject];

    /// Returns the word of a query.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::PerImage => "seconds_per_image",
            Self::PerSubject => "seconds_per_subject",
        }
    }

    /// Returns the cost with this word.
    #[must_use]
    pub fn find(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cost| cost.code() == code)
    }

    /// Returns the declared seconds.
    #[must_use]
    pub fn of(self, card: &MethodCard) -> Option<f64> {
        let cost: Option<&card::Cost> = match self {
            Self::PerImage => card.per_image.as_ref(),
            Self::PerSubject => card.per_subject.as_ref(),
        };
        cost.map(|cost| cost.seconds)
    }
}

/// An axis of a trade-off.
#[derive(Debug, Clone, Copy)]
pub enum Axis {
    /// Means of a metric.
    Metric(&'static Metric),
    /// A declared cost; less is better.
    Cost(Cost),
}

impl Axis {
    /// Returns the code of the metric, or the word of the cost.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Metric(metric) => metric.code,
            Self::Cost(cost) => cost.code(),
        }
    }

    /// Returns the name for readers.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            Self::Metric(metric) => metric.guide.label().clone(),
            Self::Cost(Cost::PerImage) => "Seconds per image (declared)".to_owned(),
            Self::Cost(Cost::PerSubject) => "Seconds per subject (declared)".to_owned(),
        }
    }

    /// Returns a short name for heads of columns.
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            Self::Metric(metric) => metric.guide.short,
            Self::Cost(Cost::PerImage) => "s/image",
            Self::Cost(Cost::PerSubject) => "s/subject",
        }
    }

    /// Returns whether less is better.
    #[must_use]
    pub fn is_lower_better(self) -> bool {
        match self {
            Self::Metric(metric) => more_is_better(metric.code) == Some(false),
            Self::Cost(_) => true,
        }
    }
}
