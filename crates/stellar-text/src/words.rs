//! Splits cleaned text into the words that CLIP's byte-pair encoding works on.
//!
//! The originals use `'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`. This hand-written
//! version is linear and pins the Unicode versions of the two regular expression engines that run
//! the pattern.

use super::tables::{
    properties,
    properties::{LETTER_ONIG, LETTER_REGEX, NUMBER_ONIG, NUMBER_REGEX},
};

/// The regular expression engine whose reading of the pattern is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    /// Python's `regex` with IGNORECASE.
    Regex,
    /// Oniguruma in the fast tokenizers.
    Onig,
}

/// Class of a character in the pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    Other,
    /// White space, which is part of no word.
    Space,
}

impl Engine {
    fn class(self, c: char) -> Class {
        let (letter, number) = match self {
            Self::Regex => (LETTER_REGEX, NUMBER_REGEX),
            Self::Onig => (LETTER_ONIG, NUMBER_ONIG),
        };
        let properties = properties(c);
        if properties & letter != 0 {
            Class::Letter
        } else if properties & number != 0 {
            Class::Number
        } else if c.is_whitespace() || (self == Self::Regex && c == '\u{345}') {
            // U+0345 folds to a letter without being one: with IGNORECASE, `regex` puts it in no
            // class.
            Class::Space
        } else {
            Class::Other
        }
    }

    /// Returns the length of a contraction at the start of a lower-cased text.
    fn contraction(self, text: &str) -> Option<usize> {
        let after = text.strip_prefix('\'')?;
        // With IGNORECASE, the long s is an s.
        let folded = (self == Self::Regex).then_some("ſ");
        ["s", "t", "re", "ve", "m", "ll", "d"]
            .into_iter()
            .chain(folded)
            .find(|end| after.starts_with(end))
            .map(|end| 1 + end.len())
    }

    /// Returns the words of a lower-cased text in order.
    pub(super) fn words(self, text: &str) -> impl Iterator<Item = &str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            rest = rest.trim_start_matches(|c| self.class(c) == Class::Space);
            let first = rest.chars().next()?;
            let length = self.contraction(rest).unwrap_or_else(|| {
                let class = self.class(first);
                match class {
                    Class::Number => first.len_utf8(),
                    _ => rest.find(|c| self.class(c) != class).unwrap_or(rest.len()),
                }
            });
            let word;
            (word, rest) = rest.split_at(length);
            Some(word)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Engine;

    #[test]
    fn words_are_letters_single_digits_contractions_and_the_rest() {
        for (text, expected) in [
            ("a photo", &["a", "photo"][..]),
            ("don't we've 'll's", &["don", "'t", "we", "'ve", "'ll", "'s"]),
            ("1990s", &["1", "9", "9", "0", "s"]),
            ("high_quality!!' s", &["high", "_", "quality", "!!'", "s"]),
            ("'ſ ''s", &["'ſ", "''", "s"]),
            ("\u{a0}x\u{3000}y\u{2028}", &["x", "y"]),
            ("a\u{345}b \u{345}", &["a", "b"]),
            ("e\u{301}", &["e", "\u{301}"]),
            (" ", &[]),
        ] {
            assert_eq!(Engine::Regex.words(text).collect::<Vec<_>>(), expected, "{text:?}");
        }
    }

    #[test]
    fn onig_neither_folds_the_long_s_nor_drops_the_iota_subscript() {
        assert_eq!(
            Engine::Onig.words("'ſ a\u{345}b").collect::<Vec<_>>(),
            ["'", "ſ", "a", "\u{345}", "b"]
        );
    }
}
