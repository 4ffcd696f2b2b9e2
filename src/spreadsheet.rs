//! Cells of CSV files (RFC 4180) that people open in spreadsheets.

use std::borrow::Cow;

/// What a spreadsheet takes for the beginning of a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// A cell in quotes where it needs them. What a spreadsheet would run as a formula gets a quote mark before it, unless it is a
/// number: names come from whoever sends samples.
#[must_use]
pub fn cell(field: &str) -> String {
    let field = match field {
        _ if is_formula(field) => Cow::Owned(format!("'{field}")),
        _ => Cow::Borrowed(field),
    };
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.into_owned()
    }
}

/// A cell that was written by [`cell`], without the mark before a formula.
#[must_use]
pub fn plain(field: &str) -> &str {
    field.strip_prefix('\'').filter(|rest| is_formula(rest)).unwrap_or(field)
}

fn is_formula(field: &str) -> bool {
    field.starts_with(FORMULA) && field.parse::<f64>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_needed_and_never_formulas() {
        for (field, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"so\"", "\"say \"\"so\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("-0.5", "-0.5"),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("@sum", "'@sum"),
            ("-a", "'-a"),
        ] {
            assert_eq!(cell(field), expected);
        }
    }

    #[test]
    fn the_mark_before_a_formula_is_taken_away_again() {
        for field in ["=1+1", "plain", "'quoted'", "-0.5", "@a"] {
            assert_eq!(plain(&cell(field)), field);
        }
    }
}
