//! Prompts: split at the placeholder, and token ids with room for the words of a photo.
//!
//! The ids equal those of diffusers for a prompt whose placeholder is a textual inversion of
//! several vectors, but a prompt that is too long keeps its words and its end token.

use crate::text::ClipTokenizer;
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
        _ => Err("has several placeholders: the person can be inserted once, leave one `{}`".into()),
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

/// Tokenizes both parts of a prompt, with room for `words` between them, padded to `context`.
///
/// A prompt that is too long loses the end of its right part, then the end of its left part.
pub(super) fn splice(
    tokenizer: &ClipTokenizer,
    parts: &Parts,
    words: usize,
    context: usize,
    pad: i64,
) -> Spliced {
    let (start, end) = tokenizer.frame_ids();
    let (mut left, mut cut) = tokenizer.encode_part(&parts.left);
    let (mut right, words) = match &parts.right {
        Some(right) => {
            let (right, cut_right) = tokenizer.encode_part(right);
            cut |= cut_right;
            (right, words)
        }
        None => (Vec::new(), 0),
    };
    // A checked pack has room for its words between start and end token.
    let room = context.saturating_sub(words + 2);
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
    ids.resize(context, pad);
    Spliced { ids, at, eos, truncated }
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
        splice(&CLIP, &split(prompt).unwrap(), 5, 77, pad)
    }

    #[test]
    fn ids_equal_those_of_diffusers() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/diffusion/splice.json");
        let fixture: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let cases = fixture["cases"].as_array().unwrap();
        assert!(cases.len() > 200);
        for case in cases {
            let prompt = case["prompt"].as_str().unwrap();
            let ids: Vec<i64> =
                case["ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
            let found = of(prompt, 49_407);
            let words = ids.iter().position(|id| *id == -1);
            if ids.len() <= 75 {
                let mut expected = vec![49_406];
                expected.extend(ids.iter().map(|id| (*id).max(0)));
                expected.resize(77, 49_407);
                assert_eq!(found.ids, expected, "{prompt}");
                assert_eq!(found.at, words.map_or(-1, |at| at as i64 + 1), "{prompt}");
                assert_eq!((found.eos, found.truncated), (ids.len() as i64 + 1, false), "{prompt}");
            } else {
                assert_eq!((found.eos, found.truncated), (76, true), "{prompt}");
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
