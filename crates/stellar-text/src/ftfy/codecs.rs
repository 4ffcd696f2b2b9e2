//! Encodings that turn text into mojibake, and UTF-8 with the deviations that occur in practice.

use crate::tables::mojibake as tables;

/// Single-byte encodings in the order in which they are tried. The sloppy ones map unassigned bytes
/// to their Latin-1 characters.
pub(super) const ENCODINGS: [SingleByte; 10] = [
    SingleByte { kind: Kind::Latin1, high: &[] },
    SingleByte { kind: Kind::Sloppy, high: tables::WINDOWS_1252 },
    SingleByte { kind: Kind::Sloppy, high: tables::WINDOWS_1251 },
    SingleByte { kind: Kind::Sloppy, high: tables::WINDOWS_1250 },
    SingleByte { kind: Kind::Sloppy, high: tables::WINDOWS_1253 },
    SingleByte { kind: Kind::Sloppy, high: tables::WINDOWS_1254 },
    SingleByte { kind: Kind::Sloppy, high: tables::WINDOWS_1257 },
    SingleByte { kind: Kind::Strict, high: tables::ISO_8859_2 },
    SingleByte { kind: Kind::MacRoman, high: tables::MACROMAN },
    SingleByte { kind: Kind::Strict, high: tables::CP437 },
];

/// A single-byte encoding: ASCII below 0x80, a table above.
pub(super) struct SingleByte {
    pub(super) kind: Kind,
    high: &'static [u16],
}

/// Peculiarity of a single-byte encoding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The byte is the code point.
    Latin1,
    /// Byte 0x1A stands for U+FFFD, the trace of a lost byte.
    Sloppy,
    /// A table like any other, but its en dash before a space looks like a damaged UTF-8 sequence.
    MacRoman,
    /// No peculiarity.
    Strict,
}

impl SingleByte {
    /// Encodes a text; `None` if a character is not in the encoding.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|c| self.byte(c)).collect()
    }

    fn byte(&self, c: char) -> Option<u8> {
        match (self.kind, c) {
            (Kind::Latin1, _) => u8::try_from(c as u32).ok(),
            (Kind::Sloppy, '\u{fffd}') => Some(0x1a),
            (Kind::Sloppy, '\u{1a}') => None,
            (_, '\0'..='\u{7f}') => Some(c as u8),
            _ => {
                let code = u16::try_from(c as u32).ok()?;
                self.high.iter().position(|&high| high == code).map(|at| 0x80 + at as u8)
            }
        }
    }
}

/// Decodes C1 control characters as Windows-1252, except those for which it has no character.
pub(super) fn c1_to_windows_1252(c: char) -> char {
    match c {
        '\u{80}'..='\u{9f}' => {
            char::from_u32(u32::from(tables::WINDOWS_1252[c as usize - 0x80])).unwrap_or(c)
        }
        _ => c,
    }
}

/// Decodes UTF-8, or its variants below if a byte occurs that only they use.
pub(super) fn decode_utf8(bytes: &[u8]) -> Option<String> {
    if bytes.contains(&0xed) || bytes.contains(&0xc0) {
        decode_variants(bytes)
    } else {
        decode_strict(bytes)
    }
}

fn decode_strict(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// Decodes UTF-8 in which U+0000 may be C0 80 (Java) and a character beyond U+FFFF may be two
/// encoded surrogates (CESU-8).
fn decode_variants(bytes: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let Some(at) = (0..rest.len()).find(|&at| is_special(&rest[at..])) else {
            out.push_str(std::str::from_utf8(rest).ok()?);
            return Some(out);
        };
        out.push_str(std::str::from_utf8(&rest[..at]).ok()?);
        rest = &rest[at..];
        if rest[0] == 0xc0 {
            if rest.len() < 2 {
                return None;
            }
            out.push('\0');
            rest = &rest[2..];
        } else {
            out.push(surrogate_pair(rest)?);
            rest = &rest[6..];
        }
    }
}

/// Returns true if the reference's pattern for special sequences matches here. Its `$` also matches
/// before a final line break, so a C0 there consumes the line break.
fn is_special(bytes: &[u8]) -> bool {
    let end = |at: usize| at == bytes.len() || (at + 1 == bytes.len() && bytes[at] == b'\n');
    let within = |at: usize, low: u8, high: u8| {
        bytes.get(at).is_some_and(|byte| (low..=high).contains(byte))
    };
    match bytes[0] {
        0xc0 => within(1, 0x80, 0x80) || end(1),
        0xed => end(1) || (within(1, 0xa0, 0xbf) && (within(2, 0x80, 0xbf) || end(2))),
        _ => false,
    }
}

/// Decodes six bytes that encode a high and a low surrogate.
fn surrogate_pair(bytes: &[u8]) -> Option<char> {
    let &[0xed, b1 @ 0xa0..=0xaf, b2 @ 0x80..=0xbf, 0xed, b4 @ 0xb0..=0xbf, b5, ref after @ ..] =
        bytes
    else {
        return None;
    };
    let final_line_break = b5 == b'\n' && after.is_empty();
    if !(0x80..=0xbf).contains(&b5) && !final_line_break {
        return None;
    }
    let bits = |byte: u8, mask: u8| u32::from(byte & mask);
    char::from_u32(
        0x1_0000
            + (bits(b1, 0x0f) << 16)
            + (bits(b2, 0x3f) << 10)
            + (bits(b4, 0x0f) << 6)
            + bits(b5, 0x3f),
    )
}

/// Restores the byte A0 where a program turned it into a space inside a likely UTF-8 sequence.
pub(super) fn restore_a0(bytes: &[u8]) -> Vec<u8> {
    let spaced = space_after_a_grave(bytes);
    let mut out = Vec::with_capacity(spaced.len());
    let mut at = 0;
    while at < spaced.len() {
        let length = altered_length(&spaced[at..]).unwrap_or(0);
        if length == 0 {
            out.push(spaced[at]);
            at += 1;
        } else {
            out.extend(
                spaced[at..at + length].iter().map(|&byte| if byte == b' ' { 0xa0 } else { byte }),
            );
            at += length;
        }
    }
    out
}

/// Keeps the space of "à la", whose mojibake is a C3 before a space, but not inside Portuguese "às"
/// and "àquele".
fn space_after_a_grave(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == 0xc3 && tail.first() == Some(&b' ') {
            let after = &tail[1..];
            if ![&b" "[..], b"quele", b"quela", b"quilo", b"s "]
                .iter()
                .any(|word| after.starts_with(word))
            {
                out.extend_from_slice(b"\xc3\xa0 ");
                rest = after;
                continue;
            }
        }
        out.push(byte);
        rest = tail;
    }
    out
}

/// Returns the length of a UTF-8 sequence at the start in which one A0 became a space, for lead
/// bytes where that is likely.
fn altered_length(bytes: &[u8]) -> Option<usize> {
    let not_85_a0 = |byte: u8| matches!(byte, 0x80..=0x84 | 0x86..=0x9f | 0xa1..=0xbf);
    match *bytes {
        [0xc2 | 0xc3 | 0xc5 | 0xce | 0xd0 | 0xd9, b' ', ..] => Some(2),
        [0xe2 | 0xe3, b' ', last, ..] if not_85_a0(last) => Some(3),
        [0xe0..=0xe3, middle, b' ', ..] if not_85_a0(middle) => Some(3),
        [0xf0, b' ', 0x80..=0xbf, 0x80..=0xbf, ..]
        | [0xf0, 0x80..=0xbf, b' ', 0x80..=0xbf, ..]
        | [0xf0, 0x80..=0xbf, 0x80..=0xbf, b' ', ..] => Some(4),
        _ => None,
    }
}

/// Replaces UTF-8 sequences in which bytes were lost (0x1A, sometimes `?`) by the sequence of
/// U+FFFD.
pub(super) fn replace_lossy(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if let Some(length) = lossy_length(&bytes[at..]) {
            out.extend_from_slice("\u{fffd}".as_bytes());
            at += length;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

fn lossy_length(bytes: &[u8]) -> Option<usize> {
    match *bytes {
        [0xc2..=0xdf, 0x1a, ..] | [0xc2 | 0xc3, b'?', ..] => Some(2),
        [0xed, 0xa0..=0xaf, 0x1a | b'?', 0xed, 0xb0..=0xbf, 0x1a | b'?' | 0x80..=0xbf, ..]
        | [0xed, 0xa0..=0xaf, 0x80..=0xbf, 0xed, 0xb0..=0xbf, 0x1a | b'?', ..] => Some(6),
        [0xe0..=0xef, 0x1a | b'?', 0x1a | 0x80..=0xbf, ..]
        | [0xe0..=0xef, 0x1a | 0x80..=0xbf, 0x1a | b'?', ..] => Some(3),
        [0xf0..=0xf4, 0x1a | b'?', 0x1a | 0x80..=0xbf, 0x1a | 0x80..=0xbf, ..]
        | [0xf0..=0xf4, 0x1a | 0x80..=0xbf, 0x1a | b'?', 0x1a | 0x80..=0xbf, ..]
        | [0xf0..=0xf4, 0x1a | 0x80..=0xbf, 0x1a | 0x80..=0xbf, 0x1a | b'?', ..] => Some(4),
        [0x1a, ..] => Some(1),
        _ => None,
    }
}
