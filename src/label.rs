//! Names given by users: of methods, runs, samples, annotators, datasets, people, attributes and
//! labels.
//!
//! A name appears in tables, logs and file names and is compared by its bytes. Invisible characters
//! are refused: names that look alike are equal, and no name changes how the text around it is
//! shown.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_normalization::{UnicodeNormalization as _, is_nfc};

/// Maximum length of a name, in bytes of UTF-8.
pub const MAX_BYTES: usize = 256;

/// Maximum length of an attribute's name, in bytes of UTF-8.
pub const ATTRIBUTE_BYTES: usize = 64;

/// Reason why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Longer than [`MAX_BYTES`], or than the limit of its kind.
    #[error("is longer than {0} bytes: shorten it")]
    TooLong(usize),
    /// Empty or only white space.
    #[error("has no visible character")]
    Empty,
    /// A control character, or a character that changes how others are shown.
    #[error("contains the invisible character U+{0:04X}: remove it")]
    Invisible(u32),
}

/// Returns a name as it is stored: without surrounding white space, in Unicode's composed form
/// (NFC), so that `é` is one letter however it was typed.
///
/// # Errors
/// The reason why the text is not a valid name.
pub fn clean(text: &str) -> Result<String, LabelError> {
    clean_within(text, MAX_BYTES)
}

/// Like [`clean`], with a limit in bytes of its own.
///
/// # Errors
/// The reason why the text is not a valid name.
pub fn clean_within(text: &str, most: usize) -> Result<String, LabelError> {
    // Checked before any pass over the text.
    if text.len() > most {
        return Err(LabelError::TooLong(most));
    }
    let text = text.trim();
    if text.is_empty() {
        return Err(LabelError::Empty);
    }
    check_visible(text)?;
    let text = normal(text).into_owned();
    if text.len() > most { Err(LabelError::TooLong(most)) } else { Ok(text) }
}

/// Returns the form in which names are stored, to look up a name that was typed in another form.
#[must_use]
pub fn normal(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    if is_nfc(text) { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) }
}

/// Returns the forms in which a name may be stored, to look it up: the form of [`normal`] and, if
/// it differs, the text as typed. Names were stored as typed before they were normalised.
pub fn forms(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let normal = normal(text);
    let typed = (normal != text).then_some(Cow::Borrowed(text));
    std::iter::once(normal).chain(typed)
}

/// Refuses invisible characters.
///
/// # Errors
/// The first invisible character.
pub fn check_visible(text: &str) -> Result<(), LabelError> {
    match text.chars().find(|character| is_invisible(*character)) {
        Some(character) => Err(LabelError::Invisible(character.into())),
        None => Ok(()),
    }
}

/// Refuses invisible characters in a text that may have several lines.
///
/// # Errors
/// The first invisible character.
pub fn check_lines(text: &str) -> Result<(), LabelError> {
    text.split(['\n', '\r', '\t']).try_for_each(check_visible)
}

/// Returns an untrusted name for a log line or a terminal, with invisible characters escaped.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if check_visible(text).is_ok() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::new(), |mut shown, character| {
        if is_invisible(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
        shown
    }))
}

/// Returns a text with untrusted names for a log or a terminal. Invisible characters are escaped as
/// in JSON, which leaves JSON valid; characters for which `keep` returns true are not escaped.
pub fn escaped(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let plain = |character: char| !is_invisible(character) || keep(character);
    if text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::new(), |mut shown, character| {
        match character {
            _ if plain(character) => shown.push(character),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(shown, "\\u{unit:04x}");
                }
            }
        }
        shown
    }))
}

/// Returns true for control characters, line and paragraph separators, and the characters of
/// category Cf that no script needs: bidirectional marks, overrides and isolates (UAX #9),
/// invisible operators, tags. The joiners U+200C and U+200D are allowed: Persian and emoji are
/// written with them.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_are_one_name() {
        assert_eq!(clean("Jose\u{301}"), Ok("José".to_owned()));
        assert_eq!(clean("  José\u{a0}"), clean("José"));
    }

    #[test]
    fn a_name_is_looked_up_in_its_normalised_form_and_as_typed() {
        assert_eq!(forms("José").collect::<Vec<_>>(), ["José"]);
        assert_eq!(forms(" Jose\u{301}").collect::<Vec<_>>(), ["José", " Jose\u{301}"]);
    }

    #[test]
    fn invisible_characters_are_refused_and_named_by_code_point() {
        for bad in [
            "a\u{202e}b",
            "a\0b",
            "a\nb",
            "\u{1b}[31mred",
            "a\u{200b}b",
            "a\u{2066}b",
            "\u{feff}x\u{feff}y",
        ] {
            assert!(matches!(clean(bad), Err(LabelError::Invisible(_))), "{bad:?}");
        }
        assert!(clean("a\u{202e}b").unwrap_err().to_string().contains("U+202E"));
        for fine in ["نمی\u{200c}خواهم", "👩\u{200d}🚀", "a b", "a/b", "=1+1", "…"] {
            assert_eq!(clean(fine).as_deref(), Ok(fine));
        }
    }

    #[test]
    fn empty_and_too_long_texts_are_refused() {
        assert_eq!(clean(" \t "), Err(LabelError::Empty));
        assert_eq!(clean(&"a".repeat(257)), Err(LabelError::TooLong(256)));
        // Composition can make a text longer.
        assert!(clean_within(&"\u{0958}".repeat(3), 9).is_err());
    }

    #[test]
    fn invisible_characters_of_untrusted_names_are_escaped() {
        assert_eq!(visible("a\u{1b}[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        assert_eq!(visible("José"), "José");
    }
}
