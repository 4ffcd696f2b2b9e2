//! Normalisation and lower case with the Unicode version of the reference environment.
//!
//! Rust's tables are newer. A code point that was unassigned then is inert there: it has no lower
//! case, composes with nothing and ends every context. A text is therefore processed piece by piece
//! between such code points.

use std::borrow::Cow;

use tokenizers::NormalizedString;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::tables::{properties, properties::UNASSIGNED};

fn is_assigned(c: char) -> bool {
    properties(c) & UNASSIGNED == 0
}

/// Applies `change` to the runs of assigned characters.
fn map_assigned(text: &str, change: impl Fn(&str, &mut String)) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(|c| !is_assigned(c)) {
        let inert = piece.chars().next_back().filter(|&c| !is_assigned(c));
        change(&piece[..piece.len() - inert.map_or(0, char::len_utf8)], &mut out);
        out.extend(inert);
    }
    out
}

/// Lower-cases a text as `str.lower` does, including the Greek final sigma.
pub(super) fn lower(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    map_assigned(text, |piece, out| out.push_str(&piece.to_lowercase()))
}

/// Lower-cases each character by itself.
pub(super) fn lower_each(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    map_assigned(text, |piece, out| out.extend(piece.chars().flat_map(char::to_lowercase)))
}

/// Composes characters as the fast tokenizers do. Their tables are even older (U+0EBA did not
/// reorder).
pub(super) fn nfc_of_tokenizers(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut normalized = NormalizedString::from(text);
    normalized.nfc();
    Cow::Owned(normalized.get().to_owned())
}

/// Composes characters (NFC).
pub(super) fn nfc(text: &str) -> Cow<'_, str> {
    if is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    Cow::Owned(map_assigned(text, |piece, out| out.extend(piece.nfc())))
}

/// Decomposes characters (NFD).
pub(super) fn nfd(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(map_assigned(text, |piece, out| out.extend(piece.nfd())))
}

#[cfg(test)]
mod tests {
    use super::{lower, lower_each, nfc};

    #[test]
    fn final_sigma_is_handled_in_whole_texts_only() {
        assert_eq!(lower("ΟΔΟΣ ΑΣΑ"), "οδος ασα");
        assert_eq!(lower_each("ΟΔΟΣ"), "οδοσ");
        assert_eq!(lower("İ"), "i\u{307}");
    }

    #[test]
    fn code_points_assigned_after_the_reference_stay_as_they_are() {
        // U+1C89 is a capital, U+10D69 a combining mark since Unicode 16.
        assert_eq!(lower("AΣ\u{1c89}B"), "aς\u{1c89}b");
        assert_eq!(nfc("e\u{10d69}\u{301}"), "e\u{10d69}\u{301}");
        assert_eq!(nfc("e\u{301}\u{10d69}"), "é\u{10d69}");
    }
}
