//! Names that people give: of methods, runs, samples, annotators, datasets, people, attributes and labels.
//!
//! A name is seen in tables, logs and file names and compared by its bytes, so what cannot be seen has no place in it: two names
//! that look alike are one name, and no name changes how the text around it is shown.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_normalization::{UnicodeNormalization as _, is_nfc};

/// The longest name, in bytes of UTF-8.
pub const MAX_BYTES: usize = 256;

/// The longest name of an attribute, in bytes of UTF-8.
pub const ATTRIBUTE_BYTES: usize = 64;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// More than [`MAX_BYTES`], or the bound of its kind.
    #[error("has more than {0} bytes: send less")]
    TooLong(usize),
    /// Nothing but white space.
    #[error("has no visible character")]
    Empty,
    /// A control character, or one that changes how others are shown.
    #[error("has the character U+{0:04X}, which is not seen: leave it out")]
    Invisible(u32),
}

/// A name as it is kept: without white space around it, in Unicode's composed form (NFC), so that `é` is one letter however it
/// was typed.
///
/// # Errors
/// Why the text is no name.
pub fn clean(text: &str) -> Result<String, LabelError> {
    clean_within(text, MAX_BYTES)
}

/// [`clean`] with a bound of its own.
///
/// # Errors
/// Why the text is no name.
pub fn clean_within(text: &str, most: usize) -> Result<String, LabelError> {
    // Before anything walks it.
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

/// The form in which names are stored, for looking one up that was typed in another form.
#[must_use]
pub fn normal(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    if is_nfc(text) { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) }
}

/// The forms in which a name may be stored, for looking one up: as [`normal`] gives it, and, where that differs, as it was typed,
/// which is how names were stored before they were composed.
pub fn forms(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let normal = normal(text);
    let typed = (normal != text).then_some(Cow::Borrowed(text));
    std::iter::once(normal).chain(typed)
}

/// Refuses what is not seen.
///
/// # Errors
/// The first such character.
pub fn check_visible(text: &str) -> Result<(), LabelError> {
    match text.chars().find(|character| is_invisible(*character)) {
        Some(character) => Err(LabelError::Invisible(character.into())),
        None => Ok(()),
    }
}

/// Refuses what is not seen in a text that may have several lines.
///
/// # Errors
/// The first such character.
pub fn check_lines(text: &str) -> Result<(), LabelError> {
    text.split(['\n', '\r', '\t']).try_for_each(check_visible)
}

/// A name that came from elsewhere, for a log line or a terminal: what is not seen is written as its number.
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

/// A text with names that came from elsewhere, for a log or a terminal: what is not seen is escaped as in JSON, which keeps JSON
/// what it is, but for the characters that `keep` takes.
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

/// Control characters, line and paragraph separators, and the characters of category Cf that no script needs: bidirectional
/// marks, overrides and isolates (UAX #9), invisible operators, tags. The joiners U+200C and U+200D stay: Persian and emoji
/// are written with them.
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
    fn a_name_is_looked_up_as_it_is_stored_now_and_as_it_was_typed() {
        assert_eq!(forms("José").collect::<Vec<_>>(), ["José"]);
        assert_eq!(forms(" Jose\u{301}").collect::<Vec<_>>(), ["José", " Jose\u{301}"]);
    }

    #[test]
    fn what_is_not_seen_is_refused_by_its_number() {
        for bad in
            ["a\u{202e}b", "a\0b", "a\nb", "\u{1b}[31mred", "a\u{200b}b", "a\u{2066}b", "\u{feff}x\u{feff}y"]
        {
            assert!(matches!(clean(bad), Err(LabelError::Invisible(_))), "{bad:?}");
        }
        assert!(clean("a\u{202e}b").unwrap_err().to_string().contains("U+202E"));
        for fine in ["نمی\u{200c}خواهم", "👩\u{200d}🚀", "a b", "a/b", "=1+1", "…"] {
            assert_eq!(clean(fine).as_deref(), Ok(fine));
        }
    }

    #[test]
    fn nothing_and_too_much_are_no_names() {
        assert_eq!(clean(" \t "), Err(LabelError::Empty));
        assert_eq!(clean(&"a".repeat(257)), Err(LabelError::TooLong(256)));
        // Composition can make a text longer.
        assert!(clean_within(&"\u{0958}".repeat(3), 9).is_err());
    }

    #[test]
    fn a_foreign_name_is_shown_with_its_numbers() {
        assert_eq!(visible("a\u{1b}[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        assert_eq!(visible("José"), "José");
    }
}
