//! BERT's tokenizer: `WordPiece` encoding of lower-cased words without accents.

use tokenizers::{
    Model,
    models::{bpe::Vocab, wordpiece::WordPiece},
};

use super::{
    TokenizerError, Tokens, cut,
    tables::{
        is_python_space, properties,
        properties::{CONTROL, NONSPACING_MARK, PUNCTUATION},
    },
    unicode::{lower_each, nfc, nfd},
};

/// Longest word that is encoded; a longer one is unknown as a whole.
const MAX_WORD_CHARS: usize = 100;

/// Encodes prompts for BERT towers as the uncased `BertTokenizer` does.
#[derive(Debug, Clone)]
pub struct WordPieceTokenizer {
    model: WordPiece,
    start: u32,
    end: u32,
}

impl WordPieceTokenizer {
    /// Creates the tokenizer from a `vocab.txt`: one token per line, whose id is the line number
    /// from 0.
    pub fn from_vocab(text: &str) -> Result<Self, TokenizerError> {
        let vocab: Vocab = text.lines().map(str::to_owned).zip(0..).collect();
        let id = |token: &'static str| {
            vocab.get(token).copied().ok_or(TokenizerError::MissingToken(token))
        };
        let (start, end, _) = (id("[CLS]")?, id("[SEP]")?, id("[UNK]")?);
        let model = WordPiece::builder()
            .vocab(vocab)
            .unk_token("[UNK]".to_owned())
            .max_input_chars_per_word(MAX_WORD_CHARS)
            .build()
            .map_err(|error| TokenizerError::Model(error.to_string()))?;
        Ok(Self { model, start, end })
    }

    /// Encodes a prompt. One with more than `context` tokens is truncated and still ends with
    /// `[SEP]`.
    #[must_use]
    pub fn encode(&self, text: &str, context: usize) -> Tokens {
        let (text, cut) = cut(text);
        let clean = clean(text);
        let mut ids = Vec::new();
        for word in clean.split(is_python_space) {
            let plain: String =
                nfd(word).chars().filter(|&c| properties(c) & NONSPACING_MARK == 0).collect();
            let mut rest = plain.as_str();
            while let Some(first) = rest.chars().next() {
                let length = if is_punctuation(first) {
                    first.len_utf8()
                } else {
                    rest.find(is_punctuation).unwrap_or(rest.len())
                };
                let piece;
                (piece, rest) = rest.split_at(length);
                // Fails only if the vocabulary lacks the unknown token, which `from_vocab` checked.
                if let Ok(tokens) = self.model.tokenize(piece) {
                    ids.extend(tokens.into_iter().map(|token| token.id));
                }
            }
        }
        Tokens::frame(self.start, &ids, self.end, context, cut)
    }
}

/// Lower-cases, drops control characters, separates CJK characters, and composes.
///
/// Each character is lower-cased by itself, so a final sigma gets no special form.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in lower_each(text).chars() {
        if matches!(c, '\t' | '\n' | '\r') {
            out.push(' ');
        } else if c == '\u{fffd}' || properties(c) & CONTROL != 0 {
        } else if is_cjk(c) {
            out.extend([' ', c, ' ']);
        } else {
            out.push(c);
        }
    }
    nfc(&out).into_owned()
}

/// Returns true for the characters that BERT treats as punctuation: Unicode's, and all of ASCII
/// that is not a letter, digit or space.
fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || properties(c) & PUNCTUATION != 0
}

/// Returns true for characters in one of the blocks of Chinese characters that the original lists.
fn is_cjk(c: char) -> bool {
    matches!(c,
        '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{20000}'..='\u{2a6df}' | '\u{2a700}'..='\u{2b73f}'
        | '\u{2b740}'..='\u{2ceaf}' | '\u{f900}'..='\u{faff}' | '\u{2f800}'..='\u{2fa1f}')
}
