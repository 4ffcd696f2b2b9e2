//! Texts in LaTeX.

use std::fmt::Write as _;

use crate::figures::table::latex;

/// Letters that pdfTeX sets in the encoding T1, beside ASCII and the letters of Latin-1.
const KNOWN: &str = "ĂăĄąĆćČčĎďĐđĘęĚěĞğİıŁłŃńŇňŐőŒœŔŕŘřŚśŞşŠšŤťŮůŰűŸŹźŻżŽž–—‘’“”…€";

/// Returns a LaTeX file that every engine can read. What pdfTeX has no letter for becomes
/// `\letter{CODE}{LETTER}`, which `paper.tex` defines: pdfTeX sets the code, other engines the
/// letter. Signs that change the direction of text are never in the file.
pub(super) fn portable(tex: &str) -> String {
    let mut text = String::with_capacity(tex.len());
    for char in tex.chars() {
        match char {
            '\n' | ' '..='~' => text.push(char),
            _ if char.is_control() => {}
            '×' | '÷' => wrapped(&mut text, char, Some(char)),
            'À'..='ÿ' => text.push(char),
            _ if KNOWN.contains(char) => text.push(char),
            '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => wrapped(&mut text, char, None),
            _ => wrapped(&mut text, char, Some(char)),
        }
    }
    text
}

fn wrapped(text: &mut String, char: char, shown: Option<char>) {
    let _ = write!(text, "\\letter{{{:04X}}}{{", u32::from(char));
    text.extend(shown);
    text.push('}');
}

/// Returns a text in bold.
pub(super) fn bold(tex: &str) -> String {
    format!("\\textbf{{{tex}}}")
}

/// Returns a text in small print.
pub(super) fn small(tex: &str) -> String {
    format!("{{\\scriptsize {tex}}}")
}

/// Returns an interval in small print.
pub(super) fn interval(low: &str, high: &str) -> String {
    small(&format!("[{}, {}]", latex(low), latex(high)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_without_a_glyph_have_their_code() {
        assert_eq!(portable("Müller – Łódź"), "Müller – Łódź");
        assert_eq!(portable("中x"), "\\letter{4E2D}{中}x");
        assert_eq!(portable("a\u{202e}b\u{7}c"), "a\\letter{202E}{}bc");
    }
}
