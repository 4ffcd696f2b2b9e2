//! CSV (RFC 4180): cells for spreadsheets, and rows from untrusted clients.

use std::borrow::Cow;

use csv_core::{ReadFieldResult, Reader};

/// First characters by which a spreadsheet recognises a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// Returns a CSV cell, quoted if necessary. An apostrophe is put before a field that a spreadsheet
/// would run as a formula, unless the field is a number: names come from untrusted clients.
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

/// Returns the field of a cell written by [`cell`], without the apostrophe before a formula.
#[must_use]
pub fn plain(field: &str) -> &str {
    field.strip_prefix('\'').filter(|rest| is_formula(rest)).unwrap_or(field)
}

/// A row with too many columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} has more than {most} columns")]
pub struct TooWide {
    /// Line number, from 1 as in editors.
    pub line: u64,
    /// Maximum number of columns.
    pub most: usize,
}

/// Refuses a text with a row of more than `most` columns before it is parsed: the `csv` crate
/// stores an offset of 8 bytes for each column of a row, whatever the row's length.
///
/// # Errors
/// The first such row.
pub fn check_width(text: &str, most: usize) -> Result<(), TooWide> {
    let mut reader = Reader::new();
    let (mut rest, mut cell) = (text.as_bytes(), [0; 4096]);
    let mut columns = 0;
    loop {
        let (result, read, _) = reader.read_field(rest, &mut cell);
        rest = &rest[read..];
        match result {
            // An empty input signals the end of the text.
            ReadFieldResult::InputEmpty | ReadFieldResult::OutputFull => {}
            ReadFieldResult::Field { record_end } => {
                columns += 1;
                if columns > most {
                    return Err(TooWide { line: reader.line(), most });
                }
                if record_end {
                    columns = 0;
                }
            }
            ReadFieldResult::End => return Ok(()),
        }
    }
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
    fn the_columns_of_every_row_are_counted() {
        let wide = ",".repeat(300);
        for (text, line) in [
            (wide.clone(), 1),
            (format!("\n\r\n{wide}\n"), 3),
            (format!("\"two\nlines\",name{wide}\n"), 2),
            (format!("a,b\n{wide}"), 2),
            (format!("a,{}{wide}", "x".repeat(10_000)), 1),
        ] {
            assert_eq!(
                check_width(&text, 256),
                Err(TooWide { line, most: 256 }),
                "{}",
                &text[..10]
            );
        }
        let fine = [
            String::new(),
            ",".repeat(255),
            format!("\"{wide}\",b\n"),
            ",\n".repeat(300),
            "\"open".to_owned(),
        ];
        for text in fine {
            assert_eq!(check_width(&text, 256), Ok(()), "{text}");
        }
    }

    #[test]
    fn the_apostrophe_before_a_formula_is_removed_again() {
        for field in ["=1+1", "plain", "'quoted'", "-0.5", "@a"] {
            assert_eq!(plain(&cell(field)), field);
        }
    }
}
