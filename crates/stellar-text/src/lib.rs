//! Turns prompts into the token ids that the reference implementations feed to their text towers.
//!
//! ```text
//! prompt ── cut      at MAX_CHARS characters, so that work and memory are bounded
//!        ── clean    as the reference does: ftfy, HTML, lower case, accents         (html, ftfy)
//!        ── split    into words by the reference's regular expression (words)
//!        ── encode   each word: byte-level BPE or WordPiece (clip, wordpiece)
//!        ── frame    with the start and end tokens, truncated to the context length
//! ```
//!
//! The ids equal those of the original tokenizers, with one exception: a special token typed by a
//! user (`<|endoftext|>`, `[SEP]`) is text like any other here, while the originals let it end the
//! prompt.

#![forbid(unsafe_code)]

mod clip;
mod ftfy;
mod html;
pub mod relations;
mod tables;
mod unicode;
mod wordpiece;
mod words;

use serde::{Deserialize, Serialize};

pub use clip::ClipTokenizer;
pub use wordpiece::WordPieceTokenizer;

/// Largest number of characters of a prompt that are read; the rest is ignored.
///
/// The longest context has 77 tokens, so only a prompt that begins with thousands of characters
/// that cleaning removes could lose something that a model would see. Some cleaning steps are
/// quadratic in the worst case (`&amp;amp;amp;…`).
pub const MAX_CHARS: usize = 16_384;

/// A prompt as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Ids with the start and end token, not padded; at most the context length.
    pub ids: Vec<i64>,
    /// Number of tokens before truncation, start and end token included. For a prompt longer than
    /// [`MAX_CHARS`] it is a lower bound, the number for its first [`MAX_CHARS`] characters.
    pub count: usize,
    /// True if the model sees less than the whole prompt.
    pub truncated: bool,
}

impl Tokens {
    /// Puts the ids of a text between a start and an end token and truncates them to `context`,
    /// keeping the end token last.
    fn frame(start: u32, body: &[u32], end: u32, context: usize, cut: bool) -> Self {
        let count = body.len() + 2;
        let mut ids: Vec<i64> = [start]
            .iter()
            .chain(body)
            .chain([&end])
            .take(context)
            .map(|&id| i64::from(id))
            .collect();
        if let Some(last) = ids.last_mut() {
            *last = i64::from(end);
        }
        Self { ids, count, truncated: cut || count > context }
    }
}

/// Cleaning of a prompt before it is split into words, named after the tokenizer whose ids it
/// gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cleaning {
    /// Hugging Face's slow `CLIPTokenizer` with ftfy installed: ftfy, then lower case.
    HfSlow,
    /// Hugging Face's `CLIPTokenizerFast`: composed characters, then lower case of each character
    /// by itself.
    HfFast,
    /// `OpenAI`'s `clip.tokenize` and its copies: ftfy, HTML references decoded twice, then lower
    /// case.
    Openai,
    /// `BertTokenizer`, uncased: control characters and accents removed, lower case, CJK characters
    /// separated.
    Bert,
}

/// Error in a tokenizer's file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// A merges file with the wrong number of lines.
    #[error(
        "the merges file has {found} lines, not {expected}: write one merge per line, without a \
            version line"
    )]
    MergeCount {
        /// Lines found.
        found: usize,
        /// Lines expected.
        expected: usize,
    },
    /// A line of the merges file that is not a merge.
    #[error(
        "line {line} of the merges file is not two known tokens separated by a space: {text:?}"
    )]
    Merge {
        /// Line number, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// A vocabulary file without a token that encoding needs.
    #[error("the vocabulary file has no line {0}: WordPiece needs [CLS], [SEP] and [UNK]")]
    MissingToken(&'static str),
    /// A cleaning that the tokenizer does not support.
    #[error("a CLIP tokenizer does not support the cleaning {0:?}: use hf_slow, hf_fast or openai")]
    Cleaning(Cleaning),
    /// The vocabulary is inconsistent.
    #[error("the tokenizer's files are inconsistent: {0}")]
    Model(String),
}

/// Cuts a text to [`MAX_CHARS`] characters. Also returns true if something was cut off.
fn cut(text: &str) -> (&str, bool) {
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => (&text[..end], true),
        None => (text, false),
    }
}
