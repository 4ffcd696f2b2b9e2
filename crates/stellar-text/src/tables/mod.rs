//! Character facts of the reference Python environment, and how to look them up.

pub(super) mod entities;
pub(super) mod mojibake;
pub(super) mod properties;

/// Returns the bits of [`properties`] of a character.
pub(super) fn properties(c: char) -> u16 {
    const ASCII: [u16; 128] = ascii_properties();
    if c.is_ascii() {
        return ASCII[c as usize];
    }
    // The first run starts at 0, so there is always one before.
    let after = properties::RUNS.partition_point(|&(start, _)| start <= c as u32);
    properties::RUNS[after - 1].1
}

const fn ascii_properties() -> [u16; 128] {
    let mut table = [0; 128];
    let (mut run, mut code) = (0, 0);
    while code < table.len() {
        while run + 1 < properties::RUNS.len() && properties::RUNS[run + 1].0 as usize <= code {
            run += 1;
        }
        table[code] = properties::RUNS[run].1;
        code += 1;
    }
    table
}

/// Returns the set of mojibake categories of a character, empty for most.
pub(super) fn categories(c: char) -> u32 {
    // No ASCII character but the space has a category.
    if c.is_ascii() && c != ' ' {
        return 0;
    }
    let table = mojibake::CATEGORIES;
    u16::try_from(c as u32)
        .ok()
        .and_then(|code| table.binary_search_by_key(&code, |&(code, _)| code).ok())
        .map_or(0, |found| table[found].1)
}

/// Finds a name in one of the tables of [`entities`].
pub(super) fn entity(
    table: &'static [(&'static str, &'static str)],
    name: &str,
) -> Option<&'static str> {
    table.binary_search_by_key(&name, |&(name, _)| name).ok().map(|found| table[found].1)
}

/// Whether Python's `str.isspace` and `re`'s `\s` hold: Unicode's white space and the four ASCII separators.
pub(super) fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_shortcut_agrees_with_the_runs() {
        for c in '\0'..='\u{7f}' {
            let after = properties::RUNS.partition_point(|&(start, _)| start <= c as u32);
            assert_eq!(properties(c), properties::RUNS[after - 1].1, "{c:?}");
        }
    }

    #[test]
    fn tables_are_sorted_for_their_searches() {
        assert!(properties::RUNS.is_sorted_by(|a, b| a.0 < b.0));
        assert!(mojibake::CATEGORIES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(entities::HTML5.is_sorted_by(|a, b| a.0 < b.0));
        assert!(entities::UPPER.is_sorted_by(|a, b| a.0 < b.0));
        assert!(mojibake::CATEGORIES.iter().all(|&(code, _)| code == 0x20 || code >= 0x80));
    }

    #[test]
    fn properties_of_new_letters_follow_the_module_that_asks() {
        // U+088F was assigned after Unicode 14.
        assert_eq!(
            properties('\u{88f}') & (properties::LETTER_REGEX | properties::LETTER_ONIG),
            properties::LETTER_REGEX
        );
        assert_ne!(properties('é') & properties::LETTER_ONIG, 0);
        assert_ne!(properties('٣') & properties::DECIMAL, 0);
    }
}
