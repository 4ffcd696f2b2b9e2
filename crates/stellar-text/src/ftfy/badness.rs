//! Heuristic that detects mojibake in a text: sequences of characters that do not occur on purpose.
//!
//! The patterns and categories are those of `ftfy.badness` 6.3 (Robyn Speer, Apache-2.0): ids are
//! equal to the reference's only if exactly the same texts are repaired.

use crate::tables::{
    categories, is_python_space,
    mojibake::{
        BAD, BOX, C1, COMMON, CURRENCY, END_PUNCTUATION, KAOMOJI, LAW, LOWER_ACCENTED,
        LOWER_COMMON, NUMERIC, START_PUNCTUATION, UPPER_ACCENTED, UPPER_COMMON,
    },
    properties,
    properties::WORD,
};

/// Class of one character in a pattern.
#[derive(Clone, Copy)]
enum Is {
    /// In one of the categories.
    In(u32),
    /// In one of the categories, or one of the characters.
    InOr(u32, &'static str),
    /// One of the characters.
    Of(&'static str),
    /// `[a-z]`
    Lower,
    /// `[a-zA-Z]`
    Latin,
    /// `[^A-Za-z]`
    NotLatin,
    /// `[a-z.,?!]` or closing punctuation.
    ClauseEnd,
    /// `[A-Za-z ]`
    LatinOrSpace,
    /// `\w`
    Word,
    /// `\s`
    Space,
    /// Anything but a line break.
    Any,
    /// The start of the text; consumes no character.
    Start,
}
use Is::{Any, ClauseEnd, In, InOr, Latin, LatinOrSpace, Lower, NotLatin, Of, Space, Start, Word};

const ACCENTED: u32 = LOWER_ACCENTED | UPPER_ACCENTED;
const PUNCTUATION: u32 = START_PUNCTUATION | END_PUNCTUATION;
const SYMBOL: u32 = BOX | PUNCTUATION | CURRENCY | NUMERIC | LAW;
/// Windows-1252 characters for the second byte of Arabic letters.
const ARABIC_SECOND: Is = InOr(COMMON | CURRENCY | BAD | NUMERIC | START_PUNCTUATION, "ŸŠ®°µ»");

#[rustfmt::skip]
static PATTERNS: &[&[Is]] = &[
    &[In(C1)],
    &[In(BAD | ACCENTED | SYMBOL), In(BAD)],
    &[Latin, In(LOWER_COMMON | UPPER_COMMON), In(BAD)],
    &[In(BAD), In(ACCENTED | SYMBOL)],
    &[In(LOWER_ACCENTED | LOWER_COMMON | BOX | END_PUNCTUATION | CURRENCY | NUMERIC), In(UPPER_ACCENTED)],
    &[In(BOX | END_PUNCTUATION | CURRENCY | NUMERIC), In(LOWER_ACCENTED)],
    &[In(LOWER_ACCENTED | BOX | END_PUNCTUATION), In(CURRENCY)],
    &[Space, In(UPPER_ACCENTED), In(CURRENCY)],
    &[In(UPPER_ACCENTED | BOX), In(NUMERIC | LAW)],
    &[In(ACCENTED | BOX | CURRENCY | END_PUNCTUATION), In(START_PUNCTUATION), In(NUMERIC)],
    &[In(ACCENTED | CURRENCY | NUMERIC | BOX | LAW), In(END_PUNCTUATION), In(START_PUNCTUATION)],
    &[In(CURRENCY | NUMERIC | BOX), In(START_PUNCTUATION)],
    &[Lower, In(UPPER_ACCENTED), In(START_PUNCTUATION | CURRENCY)],
    &[In(BOX), In(KAOMOJI)],
    &[In(ACCENTED | CURRENCY | NUMERIC | PUNCTUATION | LAW), In(BOX)],
    &[In(BOX), In(END_PUNCTUATION)],
    &[In(ACCENTED), In(PUNCTUATION), Word],
    // œ before anything but an unaccented Latin letter
    &[Of("Œœ"), NotLatin],
    // degree signs after capitals
    &[In(UPPER_ACCENTED), Of("°")],
    // Windows-1252 pairs that the rules above miss
    &[Of("ÂÃÎÐ"), InOr(PUNCTUATION, "€œŠš¢£Ÿž\u{a0}\u{ad}®©°·»–—´")],
    &[Of("×"), Of("²³")],
    // Arabic through Windows-1252: the characters are common, so two letters are required
    &[Of("ØÙ"), ARABIC_SECOND, Of("ØÙ"), ARABIC_SECOND],
    // South Asian scripts through Windows-1252
    &[Of("à"), Of("²µ¹¼½¾")],
    // MacRoman
    &[Of("√"), Of("±∂†≠®™´≤≥¥µø")],
    &[Of("≈"), Of("°¢")],
    &[Of("‚"), Of("Ä"), Of("ìîïòôúùû†°¢π")],
    &[Of("‚"), Of("âó"), Of("àä°ê")],
    // Windows-1251: U+2000 and on, then Latin-1 and Cyrillic
    &[Of("в"), Of("Ђ")],
    &[Of("ВГРС"), InOr(C1 | BAD | PUNCTUATION | CURRENCY, "°µ"), Of("ВГРС")],
    &[Of("Г"), Of("ў"), Of("В"), Of("Ђ"), Of("В"), Any, LatinOrSpace],
    // "à", "á" and the no-break space through Windows-1252
    &[Of("Ã"), Of("\u{a0}¡")],
    &[Lower, Of("ÃÂ"), Of(" ")],
    &[Lower, Space, Of("ÃÂ"), Of(" ")],
    &[Start, Of("ÃÂ"), Of(" ")],
    // Â before a character that it encodes as itself
    &[ClauseEnd, Of("Â"), InOr(PUNCTUATION, " ")],
    // Windows-1253: U+2000 and on, then Latin-1 and Greek
    &[Of("β"), Of("€"), Of("™\u{a0}Ά\u{ad}®°")],
    &[Of("ΒΓΞΟ"), InOr(C1 | BAD | PUNCTUATION | CURRENCY, "°"), Of("ΒΓΞΟ")],
    // Windows-1257
    &[Of("ā"), Of("€")],
];

/// Returns true if the text looks like mojibake.
pub(super) fn is_bad(text: &str) -> bool {
    if text.is_ascii() {
        return false;
    }
    let chars: Vec<(char, u32)> = text.chars().map(|c| (c, categories(c))).collect();
    (0..chars.len()).any(|at| {
        // Every pattern has a character beyond ASCII among its first three.
        let near = &chars[at..chars.len().min(at + 3)];
        near.iter().any(|(c, _)| !c.is_ascii())
            && PATTERNS.iter().any(|pattern| matches(pattern, &chars, at))
    })
}

fn matches(pattern: &[Is], chars: &[(char, u32)], start: usize) -> bool {
    let mut at = start;
    for is in pattern {
        if matches!(is, Start) {
            if at != 0 {
                return false;
            }
            continue;
        }
        let Some(&(c, categories)) = chars.get(at) else { return false };
        let found = match *is {
            In(set) => categories & set != 0,
            InOr(set, more) => categories & set != 0 || more.contains(c),
            Of(these) => these.contains(c),
            Lower => c.is_ascii_lowercase(),
            Latin => c.is_ascii_alphabetic(),
            NotLatin => !c.is_ascii_alphabetic(),
            ClauseEnd => {
                c.is_ascii_lowercase() || ".,?!".contains(c) || categories & END_PUNCTUATION != 0
            }
            LatinOrSpace => c.is_ascii_alphabetic() || c == ' ',
            Word => c == '_' || properties(c) & WORD != 0,
            Space => is_python_space(c),
            Any => c != '\n',
            Start => true,
        };
        if !found {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::is_bad;

    #[test]
    fn mojibake_is_distinguished_from_accents_and_symbols() {
        for bad in [
            "schÃ¶n",
            "â€œquotedâ€\u{9d}",
            "Â£5 a",
            "РџСЂРёРІРµС‚",
            "\u{85}",
            "fÃ cil",
            "┬⌐ 2020",
            "Ã la mode",
        ] {
            assert!(is_bad(bad), "{bad}");
        }
        for good in [
            "schön",
            "“quoted”",
            "£5",
            "Привет",
            "œuvre",
            "Ångström",
            "50°C ± 2 µm",
            "¿qué?",
            "ÜBER",
            "",
        ] {
            assert!(!is_bad(good), "{good}");
        }
    }
}
