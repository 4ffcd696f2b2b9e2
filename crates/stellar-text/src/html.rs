//! HTML character references as Python's `html.unescape` and ftfy's stricter reading decode them.

use std::borrow::Cow;

use super::tables::{
    entities::{HTML5, UPPER},
    entity,
};

/// Longest run of characters after `&` that can be a name of the HTML standard.
const MAX_NAME: usize = 32;

/// Decodes all references as `html.unescape` does, including names without a semicolon, even at the
/// start of a longer word.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find('&') else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len());
    out.push_str(&text[..first]);
    let mut rest = &text[first..];
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let body = &rest[at + 1..];
        let used = numeric(body, &mut out).or_else(|| named(body, &mut out));
        if used.is_none() {
            out.push('&');
        }
        rest = &body[used.unwrap_or(0)..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Decodes the references that end in a semicolon, as `ftfy.fixes.unescape_html` does, including
/// upper-cased names of Latin letters.
pub(super) fn unescape_strict(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let used = strict(&rest[1..], &mut out);
        if used.is_none() {
            out.push('&');
        }
        rest = &rest[1 + used.unwrap_or(0)..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Decodes `body` (after the `&`) if it starts with `#?[0-9A-Za-z]{1,24};`. Returns the number of
/// bytes used.
fn strict(body: &str, out: &mut String) -> Option<usize> {
    let hash = usize::from(body.starts_with('#'));
    let length = body[hash..].bytes().take_while(u8::is_ascii_alphanumeric).count();
    let end = hash + length + 1;
    if !(1..=24).contains(&length) || body.as_bytes().get(end - 1) != Some(&b';') {
        return None;
    }
    let reference = &body[..end];
    if let Some(value) = entity(HTML5, reference).or_else(|| entity(UPPER, reference)) {
        out.push_str(value);
        return Some(end);
    }
    // A reference that decodes only in part, or to a semicolon, is left unchanged.
    let start = out.len();
    match numeric(reference, out) {
        Some(used) if used == end && !out[start..].contains(';') => Some(end),
        _ => {
            out.truncate(start);
            None
        }
    }
}

/// Decodes `#[0-9]+;?` or `#[xX][0-9a-fA-F]+;?` at the start of `body`. Returns the number of bytes
/// used.
fn numeric(body: &str, out: &mut String) -> Option<usize> {
    let body = body.strip_prefix('#')?;
    let (radix, digits) = match body.strip_prefix(['x', 'X']) {
        Some(digits) => (16, digits),
        None => (10, body),
    };
    let length = digits.bytes().take_while(|&digit| char::from(digit).is_digit(radix)).count();
    if length == 0 {
        return None;
    }
    let code = digits[..length].bytes().fold(0_u32, |code, digit| {
        code.saturating_mul(radix).saturating_add(char::from(digit).to_digit(radix).unwrap_or(0))
    });
    out.extend(code_point(code));
    let semicolon = usize::from(digits.as_bytes().get(length) == Some(&b';'));
    Some(1 + usize::from(radix == 16) + length + semicolon)
}

/// Returns the character of a numeric reference; `None` if the HTML standard forbids the code
/// point.
fn code_point(code: u32) -> Option<char> {
    /// Characters of 0x80 to 0x9F in the HTML standard: Windows-1252, or the control itself if that
    /// has no character.
    const C1: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž',
        '\u{8f}', '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}',
        'ž', 'Ÿ',
    ];
    match code {
        0 => Some('\u{fffd}'),
        0x80..=0x9f => Some(C1[code as usize - 0x80]),
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => None,
        _ if code <= 0x10_ffff && code & 0xfffe == 0xfffe => None,
        _ => Some(char::from_u32(code).unwrap_or('\u{fffd}')),
    }
}

/// Decodes the longest name at the start of `body`. Returns the number of bytes used.
fn named(body: &str, out: &mut String) -> Option<usize> {
    let mut end = 0;
    for c in body.chars().take(MAX_NAME) {
        if matches!(c, '\t' | '\n' | '\x0c' | ' ' | '<' | '&' | '#' | ';') {
            break;
        }
        end += c.len_utf8();
    }
    if end == 0 {
        return None;
    }
    let semicolon = usize::from(body.as_bytes().get(end) == Some(&b';'));
    let word = &body[..end + semicolon];
    // No name has a single character, so the search stops at two.
    let lengths =
        word.char_indices().map(|(at, _)| at).chain([word.len()]).skip(2).collect::<Vec<_>>();
    for &length in lengths.iter().rev() {
        if let Some(value) = entity(HTML5, &word[..length]) {
            out.push_str(value);
            out.push_str(&word[length..]);
            return Some(word.len());
        }
    }
    out.push('&');
    out.push_str(word);
    Some(word.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_decode_as_in_html_unescape() {
        for (text, expected) in [
            ("a & b", "a & b"),
            ("&amp;lt;", "&lt;"),
            ("&ampamp;", "&amp;"),
            ("&notit;", "¬it;"),
            ("&notin;", "∉"),
            ("&#65;&#x41;&#X41", "AAA"),
            ("&#0;&#xD800;&#x110000;&#99999999999999999999;", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("&#128;&#x81;&#1;&#xfffe;|", "€\u{81}|"),
            ("&#;&#x;&;&", "&#;&#x;&;&"),
            ("&unknown;&lt", "&unknown;<"),
        ] {
            assert_eq!(unescape(text), expected, "{text}");
        }
    }

    #[test]
    fn strict_reading_needs_the_semicolon() {
        for (text, expected) in [
            ("this&not that", "this&not that"),
            ("P&EACUTE;REZ &nTILDE;", "PÉREZ &nTILDE;"),
            ("BUNDESSTRA&SZLIG;E", "BUNDESSTRASSE"),
            ("&#59;&#12a;&#1;|", "&#59;&#12a;|"),
            ("&&amp;amp;", "&&amp;"),
        ] {
            assert_eq!(unescape_strict(text), expected, "{text}");
        }
    }
}
