//! The loop over the steps of an image.

use std::collections::BTreeSet;
use std::sync::Arc;

use stellar_diffusion::{Plan, Sampler, guide, randn, rgb8};

use super::GenerationError;
use super::condition::{Condition, values};
use super::generator::Generator;
use super::picture::{ImageFlag, Picture};
use super::prompt::{Parts, split};
use super::request::{Person, Request, Settings};
use crate::blocking::blocking;
use crate::engine::pack::generator_roles as roles;
use crate::tensor::Tensor;

impl Generator {
    /// Checks a request without computing anything.
    ///
    /// # Errors
    /// What is invalid and what to do.
    pub fn check(&self, request: &Request) -> Result<(), GenerationError> {
        self.ready(request).map(drop)
    }

    /// Checks a request, splits its prompt and plans its steps.
    fn ready(&self, request: &Request) -> Result<(Parts, Plan), GenerationError> {
        request.settings.check(&self.spec)?;
        let steps = request.settings.steps;
        let plan = self.schedule.plan(steps).map_err(|_| {
            let most = self.schedule.train_timesteps;
            GenerationError::request("steps", format!("is {steps}: it must be 1 to {most}"))
        })?;
        let parts = split(&request.prompt)
            .map_err(|problem| GenerationError::request("prompt", problem))?;
        let makes_words = self.engine.graph(roles::WORDS).is_some();
        match &request.person {
            _ if parts.right.is_none() => Ok((parts, plan)),
            Some(Person::Words(_)) => Ok((parts, plan)),
            _ if !makes_words => {
                let problem = "has `{}`, but the pack makes no words of photos: say who it shows, \
                    or use `stellar-score generate --words` with learned words";
                Err(GenerationError::request("prompt", problem))
            }
            None => {
                let problem = "is missing: `{}` in the prompt stands for the person in it; give a \
                    photo, or a prompt without `{}`";
                Err(GenerationError::request("photo", problem))
            }
            Some(Person::Photo(_)) => Ok((parts, plan)),
        }
    }

    /// Generates an image from the noise of its seed. Calls `stepped` after each step with the
    /// number of completed steps.
    ///
    /// The same request gives the same image. Dropping the future stops between two steps.
    ///
    /// # Errors
    /// The request is invalid, a file cannot be decoded, a queue is full, or a graph fails.
    pub async fn generate(
        &self,
        request: &Request,
        stepped: impl Fn(usize),
    ) -> Result<Picture, GenerationError> {
        // Before any work: sizes are bounded from here on.
        self.check(request)?;
        let (seed, length) = (request.settings.seed, self.latents(&request.settings));
        let noise = blocking(move || randn(seed, length)).await;
        let noise = noise.map_err(|error| GenerationError::request("width", error.to_string()))?;
        self.generate_from(request, noise, stepped).await
    }

    /// Returns the number of latents of an image.
    fn latents(&self, settings: &Settings) -> usize {
        let [rows, columns] = self.sides(settings);
        self.spec.latent_channels * rows * columns
    }

    fn sides(&self, settings: &Settings) -> [usize; 2] {
        [settings.height, settings.width].map(|side| side / self.spec.latent_factor)
    }

    /// Like [`generate`](Self::generate), from given noise: channels, rows and columns of the
    /// latents.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), or the noise has another length.
    pub async fn generate_from(
        &self,
        request: &Request,
        noise: Vec<f32>,
        stepped: impl Fn(usize),
    ) -> Result<Picture, GenerationError> {
        let (parts, plan) = self.ready(request)?;
        let settings = &request.settings;
        let expected = self.latents(settings);
        if noise.len() != expected {
            let problem = format!("has {} values, expected {expected}", noise.len());
            return Err(GenerationError::request("noise", problem));
        }
        let _in_use = self.engine.enter()?;
        let mut flags = BTreeSet::new();
        let words = match request.person.as_ref().filter(|_| parts.right.is_some()) {
            Some(Person::Photo(subject)) => {
                if subject.mask.is_none() {
                    flags.insert(ImageFlag::Unmasked);
                }
                Some(self.words(subject).await?)
            }
            Some(Person::Words(words)) => Some(words.clone()),
            None => {
                flags.insert(ImageFlag::NoPlaceholder);
                None
            }
        };
        let with = self.condition(&parts, words.as_ref()).await?;
        if with.truncated {
            flags.insert(ImageFlag::Truncated);
        }
        let without = match (&request.negative_prompt, settings.is_guided()) {
            (_, false) => None,
            (None, true) => Some(with.nothing()),
            (Some(text), true) => {
                let parts = Parts { left: text.clone(), right: None };
                Some(self.condition(&parts, None).await?)
            }
        };
        if without.as_ref().is_some_and(|without| without.truncated) {
            flags.insert(ImageFlag::NegativeTruncated);
        }
        let mut sampler = Sampler::new(Arc::new(plan), noise);
        while let Some(timestep) = sampler.timestep() {
            let [rows, columns] = self.sides(settings);
            let sample = Tensor::F32 {
                shape: vec![self.spec.latent_channels, rows, columns],
                data: sampler.input().into(),
            };
            let noise = self.noise(settings, &sample, timestep, &with, without.as_ref()).await?;
            sampler.advance(noise).map_err(|error| wrong(roles::DENOISER, &error))?;
            stepped(sampler.completed());
        }
        let latents = sampler.into_latents();
        let pixels = self.decode(settings, &latents).await?;
        let Settings { width, height, .. } = *settings;
        Ok(Picture { width, height, pixels, latents, flags })
    }

    /// Predicts the noise of one step. The items with the prompt and without it share a batch.
    async fn noise(
        &self,
        settings: &Settings,
        sample: &Tensor,
        timestep: f32,
        with: &Condition,
        without: Option<&Condition>,
    ) -> Result<Vec<f32>, GenerationError> {
        let (height, width) = (settings.height as f32, settings.width as f32);
        let run = |condition: &Condition| {
            let item = vec![
                sample.clone(),
                Tensor::F32 { shape: vec![], data: [timestep].into() },
                condition.context.clone(),
                condition.pooled.clone(),
                // Size of the original, corner of the crop, size of the result.
                Tensor::F32 {
                    shape: vec![6],
                    data: [height, width, 0.0, 0.0, height, width].into(),
                },
            ];
            self.engine.run(roles::DENOISER, item)
        };
        let Some(without) = without else {
            let found = run(with).await?;
            return values(roles::DENOISER, &found, "noise").map(<[f32]>::to_vec);
        };
        let (with, without) = tokio::try_join!(run(with), run(without))?;
        let mut noise = values(roles::DENOISER, &with, "noise")?.to_vec();
        let without = values(roles::DENOISER, &without, "noise")?;
        guide(&mut noise, without, settings.guidance)
            .map_err(|error| wrong(roles::DENOISER, &error))?;
        Ok(noise)
    }

    /// Decodes latents to bytes.
    async fn decode(
        &self,
        settings: &Settings,
        latents: &[f32],
    ) -> Result<Vec<u8>, GenerationError> {
        let [rows, columns] = self.sides(settings);
        let scaled: Vec<f32> =
            latents.iter().map(|latent| latent / self.spec.scaling_factor).collect();
        let item = Tensor::F32 {
            shape: vec![self.spec.latent_channels, rows, columns],
            data: scaled.into(),
        };
        let found = self.engine.run(roles::DECODER, vec![item]).await?;
        let Settings { width, height, .. } = *settings;
        blocking(move || {
            let planes = values(roles::DECODER, &found, "image")?;
            rgb8(planes, height, width).map_err(|error| wrong(roles::DECODER, &error))
        })
        .await
    }
}

fn wrong(graph: &'static str, error: &dyn std::error::Error) -> GenerationError {
    GenerationError::Output { graph, problem: error.to_string() }
}
