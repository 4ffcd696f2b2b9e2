//! CLIP's tokenizer: byte-level byte-pair encoding of lower-cased words.

use std::sync::Arc;

use tokenizers::{
    Model,
    models::bpe::{BPE, Vocab},
};

use super::{
    Cleaning, TokenizerError, Tokens, cut,
    ftfy::fix_text,
    html::unescape,
    unicode::{lower, lower_each, nfc_of_tokenizers},
    words::Engine,
};

/// Number of merges of CLIP's vocabulary: 49,408 entries less 256 bytes, 256 bytes that end a word
/// and two special tokens.
const MERGES: usize = 48_894;
/// Suffix of a token that ends a word.
const WORD_END: &str = "</w>";

/// Encodes prompts for CLIP text towers.
#[derive(Debug, Clone)]
pub struct ClipTokenizer {
    model: Arc<ByteBpe>,
    cleaning: Cleaning,
}

/// Encoding of single words, shared by all cleanings.
#[derive(Debug)]
struct ByteBpe {
    bpe: BPE,
    /// The character that stands for each byte in the merges file.
    bytes: [char; 256],
    start: u32,
    end: u32,
}

impl ClipTokenizer {
    /// Creates the tokenizer from CLIP's merges, one per line in order of rank. They determine the
    /// whole vocabulary.
    pub fn from_merges(merges: &str, cleaning: Cleaning) -> Result<Self, TokenizerError> {
        Self { model: Arc::new(ByteBpe::from_merges(merges)?), cleaning }.with_cleaning(cleaning)
    }

    /// Returns a tokenizer with another cleaning that shares this one's vocabulary in memory.
    pub fn with_cleaning(&self, cleaning: Cleaning) -> Result<Self, TokenizerError> {
        match cleaning {
            Cleaning::Bert => Err(TokenizerError::Cleaning(cleaning)),
            Cleaning::HfSlow | Cleaning::HfFast | Cleaning::Openai => {
                Ok(Self { model: Arc::clone(&self.model), cleaning })
            }
        }
    }

    /// Encodes a prompt. One with more than `context` tokens is truncated and still ends with the
    /// end token.
    #[must_use]
    pub fn encode(&self, text: &str, context: usize) -> Tokens {
        let (ids, cut) = self.body(text);
        Tokens::frame(self.model.start, &ids, self.model.end, context, cut)
    }

    /// Encodes a part of a prompt, without start and end token. Also returns true if it has more
    /// than [`MAX_CHARS`](super::MAX_CHARS) characters, of which only the first are encoded.
    ///
    /// As in the original tokenizer with an added token, the parts before and after it are cleaned
    /// and encoded separately.
    #[must_use]
    pub fn encode_part(&self, text: &str) -> (Vec<i64>, bool) {
        let (ids, cut) = self.body(text);
        (ids.into_iter().map(i64::from).collect(), cut)
    }

    /// Returns the ids of the start and the end token.
    #[must_use]
    pub fn frame_ids(&self) -> (i64, i64) {
        (self.model.start.into(), self.model.end.into())
    }

    /// Returns the ids of a text, and whether it was cut.
    fn body(&self, text: &str) -> (Vec<u32>, bool) {
        let (text, cut) = cut(text);
        let (clean, engine) = clean(text, self.cleaning);
        let mut ids = Vec::new();
        let mut letters = String::new();
        for word in engine.words(&clean) {
            self.model.encode_word(word, &mut letters, &mut ids);
        }
        (ids, cut)
    }
}

/// Cleans and lower-cases a text.
///
/// The originals also strip it and collapse white space to single spaces, which does not change the
/// words.
fn clean(text: &str, cleaning: Cleaning) -> (String, Engine) {
    match cleaning {
        // Unlike lower case of single characters, that of a whole text handles the Greek final
        // sigma.
        Cleaning::HfSlow => (lower(&fix_text(text)), Engine::Regex),
        Cleaning::Openai => (lower(&unescape(&unescape(&fix_text(text)))), Engine::Regex),
        Cleaning::HfFast | Cleaning::Bert => (lower_each(&nfc_of_tokenizers(text)), Engine::Onig),
    }
}

impl ByteBpe {
    fn from_merges(text: &str) -> Result<Self, TokenizerError> {
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() != MERGES {
            return Err(TokenizerError::MergeCount { found: lines.len(), expected: MERGES });
        }
        let (bytes, order) = byte_characters();
        let mut vocab: Vocab = order.iter().map(char::to_string).zip(0..).collect();
        vocab.extend(order.iter().map(|c| format!("{c}{WORD_END}")).zip(256..));
        let mut merges = Vec::with_capacity(lines.len());
        for (index, line) in lines.into_iter().enumerate() {
            let known = line
                .split_once(' ')
                .filter(|&(left, right)| vocab.contains_key(left) && vocab.contains_key(right));
            let Some((left, right)) = known else {
                return Err(TokenizerError::Merge {
                    line: index + 1,
                    text: line.chars().take(80).collect(),
                });
            };
            vocab.insert(format!("{left}{right}"), 512 + index as u32);
            merges.push((left.to_owned(), right.to_owned()));
        }
        let bpe = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .end_of_word_suffix(WORD_END.to_owned())
            .cache_capacity(0)
            .build()
            .map_err(|error| TokenizerError::Model(error.to_string()))?;
        let start = 512 + MERGES as u32;
        Ok(Self { bpe, bytes, start, end: start + 1 })
    }

    /// Appends the ids of one word; `letters` is scratch space.
    fn encode_word(&self, word: &str, letters: &mut String, ids: &mut Vec<u32>) {
        letters.clear();
        letters.extend(word.bytes().map(|byte| self.bytes[usize::from(byte)]));
        // Fails only for a token outside the vocabulary, and there is none: it has all 256 bytes.
        if let Ok(tokens) = self.bpe.tokenize(letters) {
            ids.extend(tokens.into_iter().map(|token| token.id));
        }
    }
}

/// Returns the character of each byte, and all characters in the order of their ids.
///
/// Bytes that are printable in Latin-1 stand for themselves and come first. The others follow from
/// U+0100 on, so that a merges file has neither white space nor control characters.
fn byte_characters() -> ([char; 256], Vec<char>) {
    let prints = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut bytes = ['\0'; 256];
    let mut order = Vec::with_capacity(256);
    for byte in (0..=u8::MAX).filter(prints) {
        bytes[usize::from(byte)] = char::from(byte);
        order.push(char::from(byte));
    }
    for (byte, c) in (0..=u8::MAX).filter(|byte| !prints(byte)).zip('\u{100}'..) {
        bytes[usize::from(byte)] = c;
        order.push(c);
    }
    (bytes, order)
}
