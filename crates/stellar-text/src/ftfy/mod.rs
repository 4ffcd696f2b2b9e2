//! Repairs text as `ftfy.fix_text` 6.3 does with its default configuration.
//!
//! `OpenAI`'s tokenizer, its copies and Hugging Face's slow one clean prompts with Python's ftfy,
//! so the ids depend on it: it decodes mojibake, resolves HTML references and ligatures,
//! straightens quotes and removes control characters. The algorithm is ftfy's (Robyn Speer,
//! Apache-2.0), reduced to what affects its result.

mod badness;
mod codecs;

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use self::{
    badness::is_bad,
    codecs::{ENCODINGS, Kind, c1_to_windows_1252, decode_utf8, replace_lossy, restore_a0},
};
use super::{
    html::unescape_strict,
    tables::{
        categories,
        mojibake::{
            UTF8_CONTINUATION, UTF8_CONTINUATION_STRICT, UTF8_FIRST_OF_2, UTF8_FIRST_OF_3,
            UTF8_FIRST_OF_4,
        },
        properties,
        properties::DECIMAL,
    },
    unicode::nfc,
};

/// Fixes a text line by line.
pub(super) fn fix_text(text: &str) -> Cow<'_, str> {
    if is_plain(text) && !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    // A `<` means that the text is HTML, so references stay as they are from its line on.
    let mut unescape = true;
    for line in text.split_inclusive('\n') {
        unescape &= !line.contains('<');
        out.push_str(&fix_line(line, unescape));
    }
    Cow::Owned(out)
}

/// Returns true for printable ASCII. Nearly every prompt is, and only the HTML step changes it.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Repeats all steps until none changes the line.
fn fix_line(line: &str, unescape: bool) -> String {
    let mut text = line.to_owned();
    loop {
        let unescaped =
            if unescape { unescape_strict(&text) } else { Cow::Borrowed(text.as_str()) };
        let fixed = if is_plain(&unescaped) {
            unescaped.into_owned()
        } else {
            let decoded = fix_encoding(unescaped);
            nfc(&remove_controls(&remove_terminal_escapes(&fix_characters(&decoded)))).into_owned()
        };
        if fixed == text {
            return fixed;
        }
        text = fixed;
    }
}

/// Decodes mojibake repeatedly until nothing more can be decoded.
fn fix_encoding(text: Cow<'_, str>) -> Cow<'_, str> {
    let mut text = text;
    while let Some(fixed) = fix_encoding_once(&text).filter(|fixed| *fixed != text) {
        text = Cow::Owned(fixed);
    }
    text
}

/// Undoes one wrong decoding; `None` if there is nothing to undo.
fn fix_encoding_once(text: &str) -> Option<String> {
    if !is_bad(text) {
        return None;
    }
    for encoding in &ENCODINGS {
        let Some(mut bytes) = encoding.encode(text) else { continue };
        if encoding.kind != Kind::MacRoman {
            bytes = restore_a0(&bytes);
        }
        if encoding.kind == Kind::Sloppy {
            bytes = replace_lossy(&bytes);
        }
        if let Some(decoded) = decode_utf8(&bytes) {
            return Some(decoded);
        }
    }
    let fixed = decode_inconsistent(text);
    if fixed != text {
        return Some(fixed);
    }
    let windows_1252 = || text.chars().map(c1_to_windows_1252).collect::<String>();
    let unassigned = |c: char| matches!(c, '\u{81}' | '\u{8d}' | '\u{8f}' | '\u{90}' | '\u{9d}');
    if text.chars().all(|c| c <= '\u{ff}' && !unassigned(c)) {
        let fixed = windows_1252();
        if fixed != text {
            return Some(fixed);
        }
    }
    text.contains(|c| ('\u{80}'..='\u{9f}').contains(&c)).then(windows_1252)
}

/// Decodes the parts that look like UTF-8 mojibake in a text that fits no single encoding.
fn decode_inconsistent(text: &str) -> String {
    let chars: Vec<(usize, char, u32)> =
        text.char_indices().map(|(at, c)| (at, c, categories(c))).collect();
    let offset = |index: usize| chars.get(index).map_or(text.len(), |&(at, ..)| at);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let after_continuation = at > 0 && chars[at - 1].2 & UTF8_CONTINUATION_STRICT != 0;
        let mut end = at;
        if !after_continuation {
            while let Some(length) = sequence_length(&chars[end..]) {
                end += length;
            }
        }
        if end == at {
            out.push(chars[at].1);
            at += 1;
            continue;
        }
        let part = &text[offset(at)..offset(end)];
        // Recurse only into parts shorter than the text, so that this terminates.
        if part.len() < text.len() && is_bad(part) {
            out.push_str(&fix_encoding(Cow::Borrowed(part)));
        } else {
            out.push_str(part);
        }
        at = end;
    }
    out
}

/// Returns the number of characters at the start that look like one UTF-8 sequence decoded with a
/// single-byte encoding.
fn sequence_length(chars: &[(usize, char, u32)]) -> Option<usize> {
    let &(_, _, first) = chars.first()?;
    [(UTF8_FIRST_OF_2, 2), (UTF8_FIRST_OF_3, 3), (UTF8_FIRST_OF_4, 4)].into_iter().find_map(
        |(lead, length)| {
            let rest = chars.get(1..length)?;
            (first & lead != 0 && rest.iter().all(|&(.., set)| set & UTF8_CONTINUATION != 0))
                .then_some(length)
        },
    )
}

/// Replaces single characters: C1 controls, ligatures, full-width and half-width forms, curly
/// quotes, line breaks.
fn fix_characters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c1_to_windows_1252(c) {
            '\r' => {
                if chars.peek() != Some(&'\n') {
                    out.push('\n');
                }
            }
            '\u{2028}' | '\u{2029}' => out.push('\n'),
            '\u{2bc}' | '\u{2018}'..='\u{201b}' => out.push('\''),
            '\u{201c}'..='\u{201f}' => out.push('"'),
            '\u{3000}' => out.push(' '),
            wide @ '\u{ff01}'..='\u{ffef}' => out.extend(std::iter::once(wide).nfkc()),
            c => match ligature(c) {
                Some(letters) => out.push_str(letters),
                None => out.push(c),
            },
        }
    }
    out
}

/// Returns the letters of a Latin ligature or digraph.
fn ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        // ʼn, whose first character is a curly quote in turn
        'ŉ' => "'n",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

/// Removes escape sequences for terminal colours: ESC, `[`, digits and semicolons, a letter.
fn remove_terminal_escapes(text: &str) -> Cow<'_, str> {
    const START: &str = "\u{1b}[";
    if !text.contains(START) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(START) {
        out.push_str(&rest[..at]);
        let body = &rest[at + START.len()..];
        let command = body.trim_start_matches(|c| c == ';' || properties(c) & DECIMAL != 0);
        if command.starts_with(|c: char| c.is_ascii_alphabetic()) {
            rest = &command[1..];
        } else {
            out.push_str(START);
            rest = body;
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Removes control characters without a visible effect, byte order marks and interlinear
/// annotation.
fn remove_controls(text: &str) -> String {
    text.chars()
        .filter(|c| {
            !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{206a}'..='\u{206f}'
                | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
        })
        .collect()
}
