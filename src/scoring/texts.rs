//! Turns prompts into token tensors with the tokenizer that the manifest names for each text graph.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::try_join_all;
use tokio::sync::Semaphore;

use crate::{
    content::ContentHash,
    engine::{
        Engine, EngineError, Feature, FeatureRequest, Pack, PackError, TextSpec, TokenizerKind,
        pack::Dim,
    },
    tensor::Tensor,
    text::{ClipTokenizer, Tokens, WordPieceTokenizer},
};

/// Role of the graph whose tokenizer counts the tokens of prompts: that of `clip_t`.
const PROMPT: &str = "clip.text";

/// Lengths to which token ids are padded, so that prompts of similar length share a batch and a
/// short prompt does not pay for the model's full context. Padding after the end token has no
/// effect in a causal text tower.
const LENGTHS: [usize; 4] = [16, 24, 32, 48];

/// Upper limit on the texts of all requests that are pending in one text tower, so that a long list
/// does not fill its queue.
const WAITING: usize = 64;

/// Tokenizers of a pack by the role of the text graph.
#[derive(Debug)]
pub struct Texts {
    by_role: HashMap<String, Encoder>,
}

#[derive(Debug)]
enum Tokenizer {
    Clip(ClipTokenizer),
    WordPiece(WordPieceTokenizer),
}

/// Tokenizer and input layout of one text graph.
#[derive(Debug)]
struct Encoder {
    tokenizer: Arc<Tokenizer>,
    spec: TextSpec,
    /// True if the graph accepts ids of any length up to its context, false if it needs exactly its
    /// context.
    any_length: bool,
}

/// A prompt tokenised for one graph.
#[derive(Debug, Clone)]
pub(super) struct EncodedText {
    pub(super) tokens: Tokens,
    pub(super) context: usize,
    pad: i64,
    any_length: bool,
}

impl Texts {
    /// Loads each tokenizer that the pack's graphs name, once.
    ///
    /// # Errors
    /// A file of a tokenizer is missing or invalid.
    pub fn load(pack: &Pack) -> Result<Self, PackError> {
        let mut loaded: HashMap<_, Arc<Tokenizer>> = HashMap::new();
        let mut by_role = HashMap::new();
        for graph in &pack.graphs {
            let Some(text) = &graph.text else { continue };
            let key = (text.tokenizer.clone(), text.cleaning);
            let tokenizer = if let Some(tokenizer) = loaded.get(&key) {
                Arc::clone(tokenizer)
            } else {
                let (kind, content) = pack.read_tokenizer(&text.tokenizer)?;
                let invalid = |problem| pack.invalid_tokenizer(&text.tokenizer, problem);
                let tokenizer = Arc::new(match kind {
                    TokenizerKind::ClipBpe => Tokenizer::Clip(
                        ClipTokenizer::from_merges(&content, text.cleaning)
                            .map_err(|e| invalid(e.to_string()))?,
                    ),
                    TokenizerKind::Wordpiece => Tokenizer::WordPiece(
                        WordPieceTokenizer::from_vocab(&content)
                            .map_err(|e| invalid(e.to_string()))?,
                    ),
                });
                loaded.insert(key, Arc::clone(&tokenizer));
                tokenizer
            };
            let ids = graph.inputs.iter().find(|input| input.name == "input_ids");
            let any_length = ids.is_some_and(|ids| ids.shape == [Dim::Dynamic]);
            by_role
                .insert(graph.role.clone(), Encoder { tokenizer, spec: text.clone(), any_length });
        }
        Ok(Self { by_role })
    }

    /// Returns the number of tokens of a prompt for `clip_t`, without the start and the end token;
    /// `None` if the pack has no such graph.
    #[must_use]
    pub fn prompt_tokens(&self, prompt: &str) -> Option<usize> {
        Some(self.encode(PROMPT, prompt)?.tokens.count - 2)
    }

    /// Tokenises `prompt` for the text graph of this role; `None` if the role has no tokenizer.
    pub(super) fn encode(&self, role: &str, prompt: &str) -> Option<EncodedText> {
        let Encoder { tokenizer, spec, any_length } = self.by_role.get(role)?;
        let tokens = match &**tokenizer {
            Tokenizer::Clip(clip) => clip.encode(prompt, spec.context),
            Tokenizer::WordPiece(bert) => bert.encode(prompt, spec.context),
        };
        Some(EncodedText { tokens, context: spec.context, pad: spec.pad, any_length: *any_length })
    }
}

impl EncodedText {
    /// Content hash of the tokens: prompts that clean to the same tokens share their features.
    pub(super) fn hash(&self) -> ContentHash {
        let bytes: Vec<u8> = self.tokens.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        ContentHash::of_parts([b"tokens".as_slice(), &bytes])
    }

    /// Returns the ids, padded to the next common length, or to the context if the graph needs it.
    pub(super) fn ids(&self) -> Tensor {
        let mut ids = self.tokens.ids.clone();
        let common = LENGTHS.into_iter().find(|length| self.any_length && *length >= ids.len());
        ids.resize(common.unwrap_or(self.context).min(self.context), self.pad);
        Tensor::I64 { shape: vec![ids.len()], data: ids.into() }
    }

    /// Requests the outputs of a text graph for the tokens.
    pub(super) fn request<'a>(&self, role: &'a str) -> FeatureRequest<'a> {
        let ids = vec![self.ids()];
        FeatureRequest::new(role, self.hash(), async move { Ok::<_, EngineError>(ids) })
    }

    /// Returns the mask: 1 for every token of the prompt and 0 for the padding up to the context.
    pub(super) fn mask(&self) -> Tensor {
        let mut mask = vec![1; self.tokens.ids.len()];
        mask.resize(self.context, 0);
        Tensor::I64 { shape: vec![mask.len()], data: mask.into() }
    }
}

/// Computes the features of many short texts with one text graph.
#[derive(Clone)]
pub(super) struct Embedder {
    engine: Arc<Engine>,
    role: &'static str,
    room: Arc<Semaphore>,
}

impl Embedder {
    pub(super) fn new(engine: Arc<Engine>, role: &'static str) -> Self {
        let room = WAITING.min(engine.queue_capacity());
        Self { engine, role, room: Arc::new(Semaphore::new(room)) }
    }

    /// Returns the feature of each text, in the given order.
    pub(super) async fn embed(&self, texts: Vec<EncodedText>) -> Result<Vec<Feature>, EngineError> {
        try_join_all(texts.into_iter().map(|text| self.feature(text))).await
    }

    async fn feature(&self, text: EncodedText) -> Result<Feature, EngineError> {
        let _place = self.room.acquire().await.expect("the semaphore is never closed");
        self.engine.feature(text.request(self.role)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(count: usize) -> EncodedText {
        EncodedText {
            tokens: Tokens { ids: vec![7; count.min(77)], count, truncated: count > 77 },
            context: 77,
            pad: 49407,
            any_length: true,
        }
    }

    fn length(count: usize) -> usize {
        encoded(count).ids().len()
    }

    #[test]
    fn ids_are_padded_to_the_next_common_length() {
        assert_eq!([2, 16, 17, 48, 49, 77, 500].map(length), [16, 16, 24, 48, 77, 77, 77]);
    }

    #[test]
    fn a_graph_of_fixed_length_gets_its_whole_context_and_a_mask() {
        let text = EncodedText { context: 35, any_length: false, ..encoded(4) };
        assert_eq!(text.ids().len(), 35);
        let Tensor::I64 { data, .. } = text.mask() else { panic!("masks are integers") };
        assert_eq!((data.len(), data.iter().sum::<i64>()), (35, 4));
    }

    #[test]
    fn the_hash_depends_on_the_tokens_and_not_on_the_padding() {
        assert_eq!(encoded(5).hash(), EncodedText { pad: 0, ..encoded(5) }.hash());
        assert_ne!(encoded(5).hash(), encoded(6).hash());
    }
}
