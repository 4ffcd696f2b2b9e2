//! Timesteps and noise levels of a number of steps, as diffusers computes them.
//!
//! The source is `scheduling_euler_discrete.py` and `scheduling_lms_discrete.py` of diffusers 0.31.

use serde::Deserialize;

use crate::lms;

/// Method of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `EulerDiscreteScheduler`.
    Euler,
    /// `LMSDiscreteScheduler` of order 4.
    Lms,
}

/// Choice of the timesteps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// Multiples of a whole number, and an offset.
    Leading,
    /// Equal distances from the first to the last timestep.
    Linspace,
}

/// What the model predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise.
    Epsilon,
}

/// A scheduler's configuration and its table of noise levels.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Method of a step.
    pub kind: Kind,
    /// Choice of the timesteps.
    pub spacing: Spacing,
    /// Added to the timesteps of [`Spacing::Leading`].
    pub steps_offset: u32,
    /// Number of timesteps that the model was trained with.
    pub train_timesteps: usize,
    /// What the model predicts.
    pub prediction: Prediction,
    /// √((1 − ᾱ)/ᾱ) of each timestep: standard deviation of the noise for data of deviation one.
    ///
    /// A table and not a formula, since PyTorch's single-precision sums differ from other
    /// libraries' in the last bit.
    pub sigmas: Vec<f32>,
}

/// A schedule that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The file is not the expected JSON.
    #[error("it is not the expected JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The table does not belong to the timesteps.
    #[error("`sigmas` has {found} numbers, expected one for each of {expected} timesteps")]
    Length {
        /// Numbers in the table.
        found: usize,
        /// Timesteps of the training.
        expected: usize,
    },
    /// The table is not that of a diffusion process.
    #[error("`sigmas` must be positive and increase, but number {0} does not")]
    Sigma(usize),
    /// Two steps would have the same noise level, between which this method cannot interpolate.
    #[error(
        "with {steps} steps, two steps have the same noise level, and `lms` needs different ones: \
            use fewer steps"
    )]
    Repeated {
        /// Requested number of steps.
        steps: usize,
    },
    /// The number of steps is out of range.
    #[error("the number of steps is {steps}, expected 1 to {most}")]
    Steps {
        /// Requested number.
        steps: usize,
        /// Largest possible number.
        most: usize,
    },
}

/// The steps of a schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Method of a step.
    pub kind: Kind,
    /// Timestep of each step, descending, as the model reads it.
    pub timesteps: Vec<f32>,
    /// Noise level before each step, and 0 after the last one.
    pub sigmas: Vec<f32>,
    /// Factor of the noise from which the first step begins.
    pub initial: f32,
    /// Weights of the latest predictions in each step, newest first; empty for Euler.
    pub(crate) weights: Vec<Vec<f32>>,
}

impl Schedule {
    /// Parses `scheduler.json` and checks its table.
    ///
    /// # Errors
    /// The text is not the expected JSON, or the table does not belong to it.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let schedule: Self = serde_json::from_str(text)?;
        let (found, expected) = (schedule.sigmas.len(), schedule.train_timesteps);
        if found != expected || found == 0 {
            return Err(ScheduleError::Length { found, expected });
        }
        let mut before = 0.0;
        for (at, &sigma) in schedule.sigmas.iter().enumerate() {
            if sigma <= before {
                return Err(ScheduleError::Sigma(at));
            }
            before = sigma;
        }
        Ok(schedule)
    }

    /// Returns the timesteps and noise levels of a number of steps.
    ///
    /// # Errors
    /// If there are no steps, or more than timesteps.
    pub fn plan(&self, steps: usize) -> Result<Plan, ScheduleError> {
        if steps == 0 || steps > self.train_timesteps {
            return Err(ScheduleError::Steps { steps, most: self.train_timesteps });
        }
        let timesteps: Vec<f32> = match self.spacing {
            Spacing::Leading => {
                let ratio = self.train_timesteps / steps;
                let at = |step: usize| (step * ratio) as f32 + self.steps_offset as f32;
                (0..steps).rev().map(at).collect()
            }
            Spacing::Linspace => linspace(self.train_timesteps - 1, steps),
        };
        let levels = timesteps.iter().map(|&timestep| self.level(timestep));
        let sigmas: Vec<f32> = levels.chain([0.0]).collect();
        if self.kind == Kind::Lms && sigmas.windows(2).any(|pair| pair[0] <= pair[1]) {
            return Err(ScheduleError::Repeated { steps });
        }
        let largest = sigmas[0];
        let initial = match self.spacing {
            Spacing::Leading => (largest * largest + 1.0).sqrt(),
            Spacing::Linspace => largest,
        };
        let weights = match self.kind {
            Kind::Euler => Vec::new(),
            Kind::Lms => (0..steps).map(|step| lms::weights(&sigmas, step)).collect(),
        };
        Ok(Plan { kind: self.kind, timesteps, sigmas, initial, weights })
    }

    /// Interpolates the table in double precision, as `numpy.interp` does.
    fn level(&self, timestep: f32) -> f32 {
        let last = self.sigmas.len() - 1;
        let at = timestep as usize;
        if at >= last {
            return self.sigmas[last];
        }
        let (low, high) = (f64::from(self.sigmas[at]), f64::from(self.sigmas[at + 1]));
        ((high - low) * (f64::from(timestep) - at as f64) + low) as f32
    }
}

/// Returns `numpy.linspace(0, last, steps)` in single precision, descending.
fn linspace(last: usize, steps: usize) -> Vec<f32> {
    if steps == 1 {
        return vec![0.0];
    }
    let last = last as f64;
    let each = last / (steps - 1) as f64;
    // The last number is set, not computed, so that it is exact.
    std::iter::once(last as f32)
        .chain((0..steps - 1).rev().map(|step| (step as f64 * each) as f32))
        .collect()
}

impl Plan {
    /// Returns the number of steps.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: &str, spacing: &str, sigmas: &str) -> String {
        format!(
            r#"{{"kind": "{kind}", "spacing": "{spacing}", "steps_offset": 1, "train_timesteps": 4,
                "prediction": "epsilon", "sigmas": {sigmas}}}"#
        )
    }

    #[test]
    fn timesteps_are_leading_or_equally_spaced() {
        let plan = |spacing, steps| {
            let text = schedule("euler", spacing, "[0.1, 0.2, 0.4, 0.8]");
            Schedule::parse(&text).unwrap().plan(steps).unwrap()
        };
        assert_eq!(plan("leading", 2).timesteps, [3.0, 1.0]);
        assert_eq!(plan("leading", 2).sigmas, [0.8, 0.2, 0.0]);
        assert_eq!([plan("leading", 2).initial].as_slice(), [(0.8_f32 * 0.8 + 1.0).sqrt()]);
        // The first timestep lies behind the table.
        assert_eq!(plan("leading", 4).timesteps, [4.0, 3.0, 2.0, 1.0]);
        assert_eq!(plan("leading", 4).sigmas[..1], [0.8]);
        assert_eq!(plan("linspace", 3).timesteps, [3.0, 1.5, 0.0]);
        assert!((plan("linspace", 3).sigmas[1] - 0.3).abs() < 1e-7);
        assert_eq!([plan("linspace", 3).initial].as_slice(), [0.8]);
        assert_eq!(plan("linspace", 1).timesteps, [0.0]);
    }

    #[test]
    fn steps_of_one_noise_level_are_refused_where_they_would_divide_by_zero() {
        let plan = |kind, steps| {
            let text = schedule(kind, "leading", "[0.1, 0.2, 0.4, 0.8]");
            Schedule::parse(&text).unwrap().plan(steps)
        };
        // Timestep 4 lies behind the table, so it has the level of timestep 3.
        let error = plan("lms", 4).unwrap_err().to_string();
        assert!(error.contains("with 4 steps") && error.contains("fewer steps"), "{error}");
        assert!(plan("lms", 2).is_ok() && plan("euler", 4).is_ok());
    }

    #[test]
    fn unusable_schedules_are_refused_with_the_reason() {
        for (sigmas, reason) in [
            ("[0.1, 0.2]", "has 2 numbers, expected one for each of 4"),
            ("[0.1, 0.2, 0.2, 0.8]", "number 2 does not"),
            ("[0.0, 0.2, 0.3, 0.8]", "number 0 does not"),
            ("[0.1, 0.2, 0.3, -0.4]", "number 3 does not"),
            ("[0.1, 0.2, 0.3, 1e39]", "out of range"),
            ("\"many\"", "not the expected JSON"),
        ] {
            let error = Schedule::parse(&schedule("euler", "leading", sigmas)).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
        let unknown = schedule("ddim", "leading", "[0.1, 0.2, 0.3, 0.4]");
        assert!(Schedule::parse(&unknown).unwrap_err().to_string().contains("ddim"));
    }

    #[test]
    fn the_number_of_steps_has_bounds() {
        let text = schedule("lms", "linspace", "[0.1, 0.2, 0.4, 0.8]");
        let schedule = Schedule::parse(&text).unwrap();
        for steps in [0, 5] {
            let error = schedule.plan(steps).unwrap_err().to_string();
            assert!(error.contains("1 to 4"), "{error}");
        }
        assert_eq!(schedule.plan(4).unwrap().steps(), 4);
    }
}
