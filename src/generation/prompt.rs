//! Prompts: split at the placeholder, and token ids with room for the words of a photo.
//!
//! The ids equal those of diffusers for a prompt whose placeholder is a textual inversion of
//! several vectors, but a prompt that is too long keeps its words and its end token.

use crate::text::{ClipTokenizer, MAX_CHARS};
use crate::toolkit::format_prompt;

/// A prompt, split at its placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    /// The text before the placeholder, or the whole text.
    pub(super) left: String,
    /// The text after it; `None` without a placeholder.
    pub(super) right: Option<String>,
}

/// Splits a prompt at `{}` or `{0}`. Doubled braces become single ones.
///
/// # Errors
/// Why the prompt is not valid: another brace, or several placeholders.
pub(super) fn split(prompt: &str) -> Result<Parts, String> {
    format_prompt(prompt)?;
    let mut parts = vec![String::new()];
    let mut rest = prompt;
    while let Some(at) = rest.find(['{', '}']) {
        let part = parts.last_mut().expect("there is a part from the start on");
        part.push_str(&rest[..at]);
        rest = &rest[at..];
        // `format_prompt` accepts only these four.
        let taken = if rest.starts_with("{{") || rest.starts_with("}}") {
            part.push_str(&rest[..1]);
            2
        } else {
            parts.push(String::new());
            if rest.starts_with("{}") { 2 } else { 3 }
        };
        rest = &rest[taken..];
    }
    parts.last_mut().expect("there is a part from the start on").push_str(rest);
    let several = parts.len() > 2;
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next()) {
        (Some(left), right) if !several => Ok(Parts { left, right }),
        _ => {
            Err("has several placeholders: the person can be inserted once, leave one `{}`".into())
        }
    }
}

/// Token ids of a text tower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spliced {
    /// Ids of the whole context, 0 at the positions of words.
    pub(super) ids: Vec<i64>,
    /// Position of the first word; -1 without words.
    pub(super) at: i64,
    /// Position of the end token.
    pub(super) eos: i64,
    /// Whether the tower sees less than the whole prompt.
    pub(super) truncated: bool,
}

/// How a text tower reads a prompt.
#[derive(Debug)]
pub(super) struct Frame {
    tokenizer: ClipTokenizer,
    context: usize,
    pad: i64,
}

/// SDXL's second tokenizer is padded with `!`, which makes it a special token.
const EXCLAMATION: i64 = 0;

impl Frame {
    /// Creates the frame of a tower whose texts are padded to `context` tokens with `pad`.
    ///
    /// # Errors
    /// If the padding is neither the end token nor `!`, id 0. Any other would be a special token
    /// whose text this does not know.
    pub(super) fn new(tokenizer: ClipTokenizer, context: usize, pad: i64) -> Result<Self, String> {
        let (_, end) = tokenizer.frame_ids();
        if pad != end && pad != EXCLAMATION {
            return Err(format!("`pad` is {pad}, expected the end token {end} or {EXCLAMATION}"));
        }
        Ok(Self { tokenizer, context, pad })
    }

    /// Returns the most words that fit between start and end token.
    pub(super) fn most_words(&self) -> usize {
        self.context.saturating_sub(2)
    }

    /// Encodes a part of a prompt. Also returns true if it was cut.
    ///
    /// If the padding is `!`, every `!` has its id: the original tokenizer neither splits nor
    /// merges special tokens, and reads the text between them by itself.
    fn encode(&self, text: &str) -> (Vec<i64>, bool) {
        if self.pad != EXCLAMATION {
            return self.tokenizer.encode_part(text);
        }
        let end = text.char_indices().nth(MAX_CHARS).map_or(text.len(), |(end, _)| end);
        let mut ids = Vec::new();
        for (nth, part) in text[..end].split('!').enumerate() {
            if nth > 0 {
                ids.push(EXCLAMATION);
            }
            ids.append(&mut self.tokenizer.encode_part(part).0);
        }
        (ids, end < text.len())
    }

    /// Tokenizes both parts of a prompt, with room for `words` between them, padded to the context.
    ///
    /// A prompt that is too long loses the end of its right part, then the end of its left part.
    pub(super) fn splice(&self, parts: &Parts, words: usize) -> Spliced {
        let (start, end) = self.tokenizer.frame_ids();
        let (mut left, mut cut) = self.encode(&parts.left);
        let mut right = Vec::new();
        if let Some(text) = &parts.right {
            let (ids, cut_right) = self.encode(text);
            right = ids;
            cut |= cut_right;
        }
        // A checked pack has room for its words between start and end token.
        let room = self.context.saturating_sub(words + 2);
        let truncated = cut || left.len() + right.len() > room;
        left.truncate(room);
        right.truncate(room - left.len());
        let at = if words > 0 { left.len() as i64 + 1 } else { -1 };
        let mut ids = vec![start];
        ids.append(&mut left);
        ids.resize(ids.len() + words, 0);
        ids.append(&mut right);
        let eos = ids.len() as i64;
        ids.push(end);
        ids.resize(self.context, self.pad);
        Spliced { ids, at, eos, truncated }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use serde_json::Value;

    use super::*;
    use crate::text::Cleaning;

    static CLIP: LazyLock<ClipTokenizer> = LazyLock::new(|| {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/packs/demo/tokenizers/clip-merges.txt");
        ClipTokenizer::from_merges(&std::fs::read_to_string(file).unwrap(), Cleaning::HfSlow)
            .unwrap()
    });

    fn of(prompt: &str, pad: i64) -> Spliced {
        let parts = split(prompt).unwrap();
        let words = if parts.right.is_some() { 5 } else { 0 };
        Frame::new(CLIP.clone(), 77, pad).unwrap().splice(&parts, words)
    }

    #[test]
    fn ids_equal_those_of_diffusers() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/diffusion/splice.json");
        let fixture: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let cases = fixture["cases"].as_array().unwrap();
        assert!(cases.len() > 200);
        for case in cases {
            let prompt = case["prompt"].as_str().unwrap();
            for (key, pad) in [("ids", 49_407), ("ids_2", 0)] {
                // The second tokenizer's ids are only there if they differ.
                let ids = case.get(key).unwrap_or(&case["ids"]).as_array().unwrap();
                let ids: Vec<i64> = ids.iter().map(|id| id.as_i64().unwrap()).collect();
                let found = of(prompt, pad);
                if ids.len() > 75 {
                    assert_eq!((found.eos, found.truncated), (76, true), "{prompt}");
                    continue;
                }
                let at = ids.iter().position(|id| *id == -1).map_or(-1, |at| at as i64 + 1);
                let mut expected = vec![49_406];
                expected.extend(ids.iter().map(|id| (*id).max(0)));
                expected.push(49_407);
                expected.resize(77, pad);
                assert_eq!(found.ids, expected, "{prompt}");
                let eos = ids.len() as i64 + 1;
                assert_eq!((found.at, found.eos, found.truncated), (at, eos, false), "{prompt}");
            }
        }
    }

    #[test]
    fn truncation_keeps_words_and_end_token() {
        // "very" is one token, so is "indeed".
        let long = |left: usize, right: usize| {
            of(&format!("{}{{}}{}", "very ".repeat(left), " indeed".repeat(right)), 0)
        };
        for (left, right, at, truncated) in
            [(10, 60, 11, false), (10, 61, 11, true), (70, 5, 71, true), (200, 200, 71, true)]
        {
            let found = long(left, right);
            assert_eq!((found.at, found.truncated), (at, truncated), "{left} {right}");
            assert_eq!((found.eos, found.ids[76], found.ids.len()), (76, 49_407, 77));
            let words = at as usize..at as usize + 5;
            assert_eq!(found.ids[words], [0; 5], "{left} {right}");
        }
    }

    #[test]
    fn padding_is_that_of_the_tower_and_no_placeholder_has_no_words() {
        let (one, two) = (of("a dog", 49_407), of("a dog", 0));
        assert_eq!((one.at, one.eos), (-1, 3));
        assert_eq!((one.ids[3], one.ids[76], two.ids[3], two.ids[76]), (49_407, 49_407, 49_407, 0));
        let empty = of("", 0);
        assert_eq!((empty.ids[..3].to_vec(), empty.eos), (vec![49_406, 49_407, 0], 1));
    }

    #[test]
    fn exclamation_marks_are_special_where_they_are_the_padding() {
        let ids = |pad| of("wow! hello!!!", pad).ids[1..8].to_vec();
        assert_eq!(ids(49_407), [2781, 256, 3306, 995, 49_407, 49_407, 49_407]);
        assert_eq!(ids(0), [2781, 0, 3306, 0, 0, 0, 49_407]);
        let other = Frame::new(CLIP.clone(), 77, 7).unwrap_err();
        assert!(other.contains("49407 or 0"), "{other}");
    }

    #[test]
    fn prompts_are_split_at_their_placeholder() {
        let parts = |left: &str, right: Option<&str>| {
            Ok(Parts { left: left.to_owned(), right: right.map(str::to_owned) })
        };
        assert_eq!(split("{} as a clown"), parts("", Some(" as a clown")));
        assert_eq!(split("a {0}!"), parts("a ", Some("!")));
        assert_eq!(split("{{{}}}"), parts("{", Some("}")));
        assert_eq!(split("a dog"), parts("a dog", None));
        assert!(split("{0} and {0}").unwrap_err().contains("several placeholders"));
        for wrong in ["{} and {}", "{style}", "an open {"] {
            assert!(split(wrong).unwrap_err().contains("brace"), "{wrong}");
        }
    }
}
