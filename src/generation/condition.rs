//! What the denoiser is told: the prompt with the person's words, as both text towers see it.

use std::convert::Infallible;
use std::sync::Arc;

use super::generator::Generator;
use super::prompt::{Parts, Spliced};
use super::request::Subject;
use super::tower::Tower;
use super::{GenerationError, Words, photo};
use crate::blocking::blocking;
use crate::content::ContentHash;
use crate::engine::FeatureRequest;
use crate::engine::pack::generator_roles as roles;
use crate::tensor::{Features, Tensor};

/// The denoiser's inputs that are the same in all steps.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    /// States of both towers side by side, by position.
    pub(super) context: Tensor,
    /// The second tower's summary of the text.
    pub(super) pooled: Tensor,
    /// Whether a tower sees less than the whole prompt.
    pub(super) truncated: bool,
}

impl Generator {
    /// Returns the words of a photo, cached.
    pub(super) async fn words(&self, subject: &Subject) -> Result<Words, GenerationError> {
        let (photo, mask) = subject.hashes();
        let geometry = self.engine.graph(roles::WORDS).and_then(|graph| graph.geometry);
        let geometry = geometry.ok_or_else(|| GenerationError::Output {
            graph: roles::WORDS,
            problem: "it has no geometry".to_owned(),
        })?;
        let (of, limits, budget) = (subject.clone(), self.limits, self.budget.clone());
        let prepare = async move {
            let permit = budget.take(photo::decode_memory(&of, &limits)?).await;
            let work = move || {
                // Held by the work itself, which continues if the client disconnects.
                let _permit = permit;
                photo::pixels(&of, &limits, &geometry)
            };
            blocking(work).await
        };
        let request = FeatureRequest::new(roles::WORDS, photo, prepare);
        let request = match mask {
            Some(mask) => request.with(mask),
            None => request,
        };
        let features = self.engine.feature(request).await?.features;
        let of = |output| Ok::<_, GenerationError>(values(roles::WORDS, &features, output)?.into());
        Ok(Words { vectors: [of("words_1")?, of("words_2")?], count: self.spec.words })
    }

    /// Reads words from the content of [`WORD_FILES`](super::WORD_FILES): each has one tensor of
    /// 32-bit floats, `[words, width of the tower]`.
    ///
    /// # Errors
    /// A file is not of this form, or its words do not fit the pack.
    pub fn read_words(&self, files: [&[u8]; 2]) -> Result<Words, GenerationError> {
        Words::read(&self.towers, files)
    }

    /// Returns the condition of a prompt.
    pub(super) async fn condition(
        &self,
        parts: &Parts,
        words: Option<&Words>,
    ) -> Result<Condition, GenerationError> {
        let [first, second] = &self.towers;
        let (first, second) = tokio::try_join!(
            self.states(first, parts, words.map(|words| (&words.vectors[0], words.count))),
            self.states(second, parts, words.map(|words| (&words.vectors[1], words.count)))
        )?;
        let truncated = first.1 || second.1;
        let (hidden_1, hidden_2) = (
            values(roles::TEXT_1, &first.0, "hidden")?,
            values(roles::TEXT_2, &second.0, "hidden")?,
        );
        let pooled = values(roles::TEXT_2, &second.0, "pooled")?;
        let widths = self.towers.each_ref().map(|tower| tower.width);
        let positions = hidden_1.chunks_exact(widths[0]).zip(hidden_2.chunks_exact(widths[1]));
        let context: Vec<f32> =
            positions.flat_map(|(first, second)| first.iter().chain(second)).copied().collect();
        Ok(Condition {
            context: Tensor::F32 {
                shape: vec![context.len() / (widths[0] + widths[1]), widths[0] + widths[1]],
                data: context.into(),
            },
            pooled: Tensor::F32 { shape: vec![pooled.len()], data: pooled.into() },
            truncated,
        })
    }

    /// Returns the outputs of a text tower for a prompt, and whether it was cut.
    async fn states(
        &self,
        tower: &Tower,
        parts: &Parts,
        words: Option<(&Arc<[f32]>, usize)>,
    ) -> Result<(Arc<Features>, bool), GenerationError> {
        let words = words.filter(|_| parts.right.is_some());
        let count = words.map_or(0, |(_, count)| count);
        let Spliced { ids, at, eos, truncated } = tower.frame.splice(parts, count);
        let vectors = match words {
            Some((vectors, _)) => Arc::clone(vectors),
            // A graph cannot take an empty list. Position -1 uses none of it.
            None => vec![0.0; tower.width].into(),
        };
        let numbers: Vec<u8> =
            ids.iter().chain([&at, &eos]).flat_map(|id| id.to_le_bytes()).collect();
        let item = vec![
            Tensor::I64 { shape: vec![ids.len()], data: ids.into() },
            Tensor::F32 { shape: vec![vectors.len() / tower.width, tower.width], data: vectors },
            Tensor::I64 { shape: vec![], data: [at].into() },
            Tensor::I64 { shape: vec![], data: [eos].into() },
        ];
        let features = if words.is_some() {
            // A text with the words of a photo would have to be forgotten with the photo, and the
            // images of a dataset have each only once.
            self.engine.run(tower.role, item).await?
        } else {
            let text = ContentHash::of(&numbers);
            let prepare = async move { Ok::<_, Infallible>(item) };
            self.engine.feature(FeatureRequest::new(tower.role, text, prepare)).await?.features
        };
        Ok((features, truncated))
    }
}

impl Condition {
    /// Returns the condition of no text, of the same shape: zeros.
    pub(super) fn nothing(&self) -> Self {
        let zeros = |tensor: &Tensor| Tensor::F32 {
            shape: tensor.shape().to_vec(),
            data: vec![0.0; tensor.len()].into(),
        };
        Self { context: zeros(&self.context), pooled: zeros(&self.pooled), truncated: false }
    }
}

/// Returns an output of a graph.
pub(super) fn values<'a>(
    graph: &'static str,
    features: &'a Features,
    name: &str,
) -> Result<&'a [f32], GenerationError> {
    features.values(name).ok_or_else(|| GenerationError::Output {
        graph,
        problem: format!("it returned no output `{name}`"),
    })
}
