//! One image's way from noise to latents.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::lms::ORDER;
use crate::schedule::{Kind, Plan};

/// Values of another length than the latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("found {found} values, expected {expected}, the number of the latents")]
pub struct LengthError {
    /// Number of values.
    pub found: usize,
    /// Number of latents.
    pub expected: usize,
}

/// Adds the guidance of a prompt: `without + scale · (with − without)`, in place of `with`.
///
/// J. Ho and T. Salimans, *Classifier-Free Diffusion Guidance*, 2022, with diffusers' scale: 1
/// means no guidance.
///
/// # Errors
/// If the two predictions have different lengths.
pub fn guide(with: &mut [f32], without: &[f32], scale: f32) -> Result<(), LengthError> {
    if with.len() != without.len() {
        return Err(LengthError { found: without.len(), expected: with.len() });
    }
    for (with, without) in with.iter_mut().zip(without) {
        *with = without + scale * (*with - without);
    }
    Ok(())
}

/// The latents of one image between two steps.
#[derive(Debug, Clone)]
pub struct Sampler {
    plan: Arc<Plan>,
    step: usize,
    latents: Vec<f32>,
    /// The latest predictions, newest first; for LMS.
    predictions: VecDeque<Vec<f32>>,
}

impl Sampler {
    /// Begins with normal noise, see [`randn`](crate::randn).
    #[must_use]
    pub fn new(plan: Arc<Plan>, mut noise: Vec<f32>) -> Self {
        for value in &mut noise {
            *value *= plan.initial;
        }
        Self { plan, step: 0, latents: noise, predictions: VecDeque::new() }
    }

    /// Returns the timestep of the next step; `None` after the last one.
    #[must_use]
    pub fn timestep(&self) -> Option<f32> {
        self.plan.timesteps.get(self.step).copied()
    }

    /// Returns what the model takes in the next step: latents / √(σ² + 1), of deviation one.
    #[must_use]
    pub fn input(&self) -> Vec<f32> {
        let sigma = self.plan.sigmas[self.step];
        let deviation = (sigma * sigma + 1.0).sqrt();
        self.latents.iter().map(|value| value / deviation).collect()
    }

    /// Completes a step with the noise that the model predicts for [`input`](Self::input).
    ///
    /// After the last step it does nothing.
    ///
    /// # Errors
    /// If the prediction has another length than the latents.
    pub fn advance(&mut self, prediction: Vec<f32>) -> Result<(), LengthError> {
        if prediction.len() != self.latents.len() {
            return Err(LengthError { found: prediction.len(), expected: self.latents.len() });
        }
        if self.step == self.plan.steps() {
            return Ok(());
        }
        match self.plan.kind {
            Kind::Euler => {
                let change = self.plan.sigmas[self.step + 1] - self.plan.sigmas[self.step];
                for (value, noise) in self.latents.iter_mut().zip(&prediction) {
                    *value += noise * change;
                }
            }
            Kind::Lms => {
                self.predictions.push_front(prediction);
                self.predictions.truncate(ORDER);
                let weighted = self.plan.weights[self.step].iter().zip(&self.predictions);
                let weighted: Vec<_> = weighted.collect();
                for (at, value) in self.latents.iter_mut().enumerate() {
                    *value += weighted
                        .iter()
                        .map(|(weight, prediction)| **weight * prediction[at])
                        .sum::<f32>();
                }
            }
        }
        self.step += 1;
        Ok(())
    }

    /// Returns the number of completed steps.
    #[must_use]
    pub fn completed(&self) -> usize {
        self.step
    }

    /// Returns the latents.
    #[must_use]
    pub fn into_latents(self) -> Vec<f32> {
        self.latents
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schedule;

    fn plan(kind: &str, steps: usize) -> Arc<Plan> {
        let text = format!(
            r#"{{"kind": "{kind}", "spacing": "leading", "steps_offset": 0, "train_timesteps": 8,
                "prediction": "epsilon", "sigmas": [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8]}}"#
        );
        Arc::new(Schedule::parse(&text).unwrap().plan(steps).unwrap())
    }

    /// The noise of data that is zero everywhere: the latents over the noise level.
    fn perfect(sampler: &Sampler, plan: &Plan) -> Vec<f32> {
        let sigma = plan.sigmas[sampler.completed()];
        let deviation = (sigma * sigma + 1.0).sqrt();
        sampler.input().iter().map(|value| value * deviation / sigma).collect()
    }

    #[test]
    fn a_perfect_model_of_zeros_ends_at_zero() {
        for kind in ["euler", "lms"] {
            let plan = plan(kind, 8);
            let mut sampler = Sampler::new(Arc::clone(&plan), vec![1.0, -2.0, 0.5]);
            while sampler.timestep().is_some() {
                let noise = perfect(&sampler, &plan);
                sampler.advance(noise).unwrap();
            }
            assert_eq!(sampler.completed(), 8);
            let left = sampler.into_latents();
            assert!(left.iter().all(|value| value.abs() < 1e-4), "{kind}: {left:?}");
        }
    }

    #[test]
    fn the_first_step_of_both_methods_is_the_same() {
        let first = |kind| {
            let mut sampler = Sampler::new(plan(kind, 4), vec![1.0, 2.0]);
            assert_eq!(sampler.timestep(), Some(6.0));
            sampler.advance(vec![0.5, 0.25]).unwrap();
            sampler.into_latents()
        };
        assert_eq!(first("euler"), first("lms"));
    }

    #[test]
    fn a_step_after_the_last_changes_nothing() {
        let mut sampler = Sampler::new(plan("euler", 1), vec![1.0; 2]);
        sampler.advance(vec![1.0; 2]).unwrap();
        let before = sampler.clone().into_latents();
        sampler.advance(vec![1.0; 2]).unwrap();
        assert_eq!((sampler.completed(), sampler.into_latents()), (1, before));
    }

    #[test]
    fn predictions_of_another_length_are_refused() {
        let mut sampler = Sampler::new(plan("euler", 2), vec![1.0; 3]);
        let error = sampler.advance(vec![1.0; 2]).unwrap_err();
        assert_eq!(error, LengthError { found: 2, expected: 3 });
        assert!(guide(&mut [1.0], &[], 5.0).is_err());
    }

    #[test]
    fn guidance_moves_away_from_the_prediction_without_the_prompt() {
        let guided = |scale| {
            let mut with = vec![2.0, 1.0];
            guide(&mut with, &[1.0, 1.0], scale).unwrap();
            with
        };
        assert_eq!(guided(5.0), [6.0, 1.0]);
        assert_eq!(guided(1.0), [2.0, 1.0]);
    }
}
