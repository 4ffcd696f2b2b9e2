//! What all protocols share: from the head of a request to a column of numbers.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{body::Bytes, extract::Request};

use super::jobs::Column;
use crate::api::http::bodies::{HeldMemory, wait_of};
use crate::api::http::form::{check_prompt, examine};
use crate::api::http::keys::{self, Caller};
use crate::api::http::{ApiError, Code, body};
use crate::api::rewards;
use crate::api::state::App;
use crate::{
    blocking::blocking,
    config::{Limits, Protocol},
    rewards::Reward,
    scoring::{EncodedImage, Metadata, Sample},
};

/// Most images that an error names.
const NAMED_ITEMS: usize = 3;

/// What a request brings along, taken before its body is read.
pub(super) struct Head {
    protocol: Protocol,
    client: Arc<str>,
    pub(super) caller: Option<Caller>,
    /// The body's memory. Images refer to it, so it is held until the response is ready.
    memory: Option<HeldMemory>,
    pub(super) arrived: Instant,
    pub(super) wait: Duration,
}

impl Head {
    pub(super) fn of(request: &Request, app: &App, protocol: Protocol) -> Self {
        let memory = request.extensions().get::<HeldMemory>().cloned();
        Self {
            protocol,
            client: keys::client(request),
            caller: keys::caller(request),
            arrived: memory.as_ref().map_or_else(Instant::now, HeldMemory::arrived),
            memory,
            wait: wait_of(request.headers(), app.rewards.wait_of(protocol)),
        }
    }

    /// Reads the body, and parses it outside the threads of requests.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        app: &App,
        request: Request,
        parse: impl FnOnce(Bytes, &Limits) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let limits = app.limits.clone();
        let bytes = body::any(request, limits.request_bytes()).await?;
        let memory = self.memory.clone();
        let turn = Arc::clone(&app.adapters.parsing).acquire_owned().await;
        blocking(move || {
            // Also if the client leaves meanwhile.
            let (_memory, _turn) = (memory, turn);
            parse(bytes, &limits)
        })
        .await
    }

    /// Scores items for these rewards: a column for each reward, in the order of the items.
    pub(super) async fn score(
        &self,
        app: &Arc<App>,
        rewards: &[Reward],
        samples: Vec<Result<Sample, ApiError>>,
    ) -> Result<Vec<Column>, ApiError> {
        if samples.is_empty() {
            let problem = "there are no images: send at least one";
            return Err(ApiError::new(Code::InvalidField, problem));
        }
        check_count(samples.len(), app.rewards.items)?;
        for reward in rewards {
            reward.check(app.scoring.pack())?;
        }
        if let Some(caller) = &self.caller {
            let of = |sample: &Result<Sample, ApiError>| {
                1 + sample.as_ref().map_or(0, |sample| sample.references.len())
            };
            caller.count_images(samples.iter().map(of).sum());
        }
        let wait = self.wait.saturating_sub(self.arrived.elapsed());
        let (cards, _) = rewards::score(app, &self.client, rewards, samples, wait).await?;
        let of =
            |reward: &Reward| cards.iter().map(|card| outcome(reward, card)).collect::<Column>();
        let columns: Vec<Column> = rewards.iter().map(of).collect();
        let failed =
            (0..cards.len()).filter(|at| columns.iter().any(|column| column[*at].is_err()));
        app.telemetry.adapters.items(self.protocol, cards.len(), failed.count());
        Ok(columns)
    }
}

/// Refuses more images than a request may have.
pub(super) fn check_count(images: usize, most: usize) -> Result<(), ApiError> {
    if images > most {
        let problem = format!("there are more than {most} images: send them in several requests");
        return Err(ApiError::new(Code::InvalidField, problem));
    }
    Ok(())
}

fn outcome(reward: &Reward, card: &rewards::ItemResult) -> Result<f64, String> {
    let card = card.as_ref().map_err(|error| {
        let detail = error.detail();
        detail.strip_prefix("image: ").unwrap_or(detail).to_owned()
    })?;
    match rewards::value(reward, card) {
        Ok((value, _)) if value.is_finite() => Ok(value),
        Ok(_) => Err(format!("`{}` is not a finite number", reward.name)),
        Err(reason) => {
            Err(format!("`{}` is null ({}): {}", reward.name, reason.code(), reason.help()))
        }
    }
}

/// Returns the numbers of a column, for protocols that have nothing but numbers: an item without
/// one is an error of the request, which names the item.
pub(super) fn numbers(column: Column) -> Result<Vec<f64>, ApiError> {
    let failed: Vec<usize> =
        column.iter().enumerate().filter(|(_, each)| each.is_err()).map(|(at, _)| at).collect();
    if failed.is_empty() {
        return Ok(column.into_iter().map_while(Result::ok).collect());
    }
    let named = failed.iter().take(NAMED_ITEMS).filter_map(|at| {
        let problem = column[*at].as_ref().err()?;
        Some(format!("images[{at}]: {problem}"))
    });
    let named = named.collect::<Vec<_>>().join("; ");
    Err(malformed(match failed.len().saturating_sub(NAMED_ITEMS) {
        0 => named,
        others => format!("{named}; and {others} other images"),
    }))
}

pub(super) fn malformed(problem: impl Into<String>) -> ApiError {
    ApiError::new(Code::MalformedRequest, problem)
}

/// An item as protocols have it.
pub(super) struct Item {
    pub(super) image: Result<Bytes, String>,
    pub(super) prompt: Option<String>,
    pub(super) references: Vec<Result<Bytes, String>>,
    pub(super) metadata: Metadata,
}

/// Image files that were examined, by where their bytes are. Several items may share one, and
/// hashing it for each would multiply the work that a small body causes.
#[derive(Default)]
pub(super) struct Examined(HashMap<(usize, usize), EncodedImage>);

impl Examined {
    fn examine(
        &mut self,
        file: Bytes,
        name: &str,
        limits: &Limits,
    ) -> Result<EncodedImage, ApiError> {
        // The map holds the bytes, so no other ones can have their address.
        let place = (file.as_ptr() as usize, file.len());
        if let Some(known) = self.0.get(&place) {
            return Ok(known.clone());
        }
        let image = examine(file, name, limits)?;
        self.0.insert(place, image.clone());
        Ok(image)
    }
}

impl Item {
    pub(super) fn sample(self, limits: &Limits, known: &mut Examined) -> Result<Sample, ApiError> {
        if let Some(prompt) = &self.prompt {
            check_prompt(prompt, limits)?;
        }
        let mut file = |file: Result<Bytes, String>, name: &str| {
            let invalid = |why| ApiError::new(Code::InvalidField, format!("{name}: {why}"));
            known.examine(file.map_err(invalid)?, name, limits)
        };
        let most = limits.references;
        if self.references.len() > most {
            let problem = format!("there are more than {most} reference images: send fewer");
            return Err(ApiError::new(Code::RepeatedField, problem));
        }
        let references = self.references.into_iter().enumerate();
        Ok(Sample {
            image: file(self.image, "image")?,
            prompt: self.prompt,
            references: references
                .map(|(at, image)| file(image, &format!("reference[{at}]")))
                .collect::<Result<_, _>>()?,
            auxiliary: Vec::new(),
            metadata: self.metadata,
            dataset: None,
        })
    }
}

/// Decodes an image in base64.
pub(super) fn base64(text: &str) -> Result<Bytes, String> {
    let why = "it is not base64: send the file's bytes in base64";
    rewards::base64(text).map(Bytes::from).ok_or_else(|| why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_items_are_named_and_the_rest_counted() {
        let failed = |count: usize| -> Column {
            (0..5).map(|at| if at < count { Err("why".to_owned()) } else { Ok(0.5) }).collect()
        };
        assert_eq!(numbers(failed(0)).unwrap(), [0.5; 5]);
        let error = numbers(failed(1)).unwrap_err();
        assert_eq!(error.detail(), "images[0]: why");
        let error = numbers(failed(5)).unwrap_err();
        assert!(error.detail().ends_with("images[2]: why; and 2 other images"), "{error:?}");
    }
}
