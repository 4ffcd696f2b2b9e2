//! The toolkit's CSV files: a parser that checks every column, and a writer.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use super::{FILES, File};
use crate::{
    label,
    spreadsheet::{self, TooWide},
};

/// One file, with a row for each sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Kind of file.
    pub file: &'static File,
    /// Names of the samples, without duplicates, in row order.
    pub names: Vec<String>,
    /// Values of the samples.
    pub columns: Columns,
}

/// Values of each sample; every list is in row order.
#[derive(Debug, Clone, PartialEq)]
pub enum Columns {
    /// Scores by the code of our metric; an empty cell or `nan` is `None`.
    Scores(Vec<(&'static str, Vec<Option<f64>>)>),
    /// Targets and predictions of facial attributes.
    Attributes(Vec<AttributeColumn>),
}

/// Targets and predictions of one attribute, sample by sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributeColumn {
    /// CelebA's name of the attribute.
    pub attribute: String,
    /// True where the subject has the attribute: `1` in the file, otherwise `-1`.
    pub targets: Vec<bool>,
    /// True where the generated image was found to show the attribute.
    pub predictions: Vec<bool>,
}

/// Reason why a file is not one of the toolkit's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolkitError {
    /// The file is not CSV, or its rows have different lengths.
    #[error("the file is not the expected CSV: {0}")]
    Csv(String),
    /// The columns do not belong to any kind of file.
    #[error(
        "the columns {found} do not match any file that the toolkit writes: after an unnamed index \
            and `name` it \
         writes {}",
        all_columns()
    )]
    UnknownColumns {
        /// Columns of the header.
        found: String,
    },
    /// Some columns of a kind of file are missing or invalid.
    #[error("columns of `{prefix}…csv`: {problem}")]
    Columns {
        /// Kind of file that it seems to be.
        prefix: &'static str,
        /// The missing, duplicate or unexpected column.
        problem: String,
    },
    /// The name belongs to another kind of file than the columns.
    #[error(
        "the file is named {name}, but its columns are those of `{prefix}…csv`: rename it, or send \
            the right one"
    )]
    Name {
        /// Name of the file.
        name: String,
        /// Kind of file that the columns belong to.
        prefix: &'static str,
    },
    /// A cell has an invalid value.
    #[error("line {line}, column `{column}`: {problem}")]
    Cell {
        /// Line number, from 1 as in editors.
        line: u64,
        /// Name of the column.
        column: String,
        /// Description of the problem.
        problem: String,
    },
    /// The file has only a header.
    #[error("the file has no rows: nothing was scored")]
    Empty,
    /// The file has more rows than are imported at once.
    #[error("the file has more than {0} rows: send it in parts")]
    TooManyRows(usize),
    /// The file has more columns than any of the toolkit's files.
    #[error("{0}, which is more than any file of the toolkit has")]
    TooManyColumns(#[from] TooWide),
    /// The file has more cells (rows × columns) than are read.
    #[error("the file has more than {0} cells: import it in several files of fewer rows")]
    TooManyCells(usize),
    /// The columns are separated by semicolons, as spreadsheets do where the comma is the decimal
    /// mark.
    #[error("the columns are separated by semicolons: save the file with commas")]
    Semicolons,
}

fn all_columns() -> String {
    let list = |file: &File| {
        if file.is_attributes() {
            return "<attribute>_target and <attribute>_pred".to_owned();
        }
        file.scores.iter().map(|(column, _)| *column).collect::<Vec<_>>().join(" ")
    };
    FILES.iter().map(list).collect::<Vec<_>>().join(", ")
}

/// Maximum number of columns of a file. The attributes of `CelebA` have 80, and each column becomes
/// a list.
const MOST_COLUMNS: usize = 256;

/// Maximum number of cells of a file: the maximum number of rows with 20 columns, or 50,000 rows
/// with the 80 columns of `CelebA`'s attributes.
pub const MOST_CELLS: usize = 4_000_000;

/// The largest magnitude of a score. Sums of squares of such numbers are still finite.
const MOST_SCORE: f64 = 1e100;

/// Parses a file of at most `most_rows` rows. The kind of file follows from its columns, and
/// `file_name`, if given, must agree.
///
/// # Errors
/// The column, row or cell that the toolkit would not have written, with its location.
pub fn parse(text: &str, file_name: Option<&str>, most_rows: usize) -> Result<Table, ToolkitError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    spreadsheet::check_width(text, MOST_COLUMNS)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let csv_error = |error: csv::Error| ToolkitError::Csv(error.to_string());
    let mut header: Vec<String> =
        reader.headers().map_err(csv_error)?.iter().map(str::to_owned).collect();
    if matches!(&header[..], [only] if only.contains(';')) {
        return Err(ToolkitError::Semicolons);
    }
    // Saved with `index=False`: the same table without its first column.
    let index = usize::from(header.first().is_none_or(|column| column != "name"));
    if index == 0 {
        header.insert(0, String::new());
    }
    let file = kind(&header)?;
    if let Some(name) = file_name.filter(|name| File::of_name(name) != Some(file)) {
        return Err(ToolkitError::Name { name: name.to_owned(), prefix: file.prefix });
    }
    let mut names = Vec::new();
    let mut cells: Vec<Vec<Option<f64>>> = vec![Vec::new(); header.len() - 2];
    let mut seen = HashSet::new();
    for row in reader.records() {
        let row = row.map_err(csv_error)?;
        let line = row.position().map_or(0, csv::Position::line);
        let wrong = |column: &str, problem: String| ToolkitError::Cell {
            line,
            column: column.to_owned(),
            problem,
        };
        if names.len() == most_rows {
            return Err(ToolkitError::TooManyRows(most_rows));
        }
        if (names.len() + 1) * cells.len() > MOST_CELLS {
            return Err(ToolkitError::TooManyCells(MOST_CELLS));
        }
        if row[index].is_empty() {
            return Err(wrong(
                "name",
                "it is empty, but every score belongs to a sample".to_owned(),
            ));
        }
        let name = label::clean(spreadsheet::plain(&row[index]))
            .map_err(|problem| wrong("name", problem.to_string()))?;
        if !seen.insert(name.clone()) {
            return Err(wrong("name", format!("{name:?} occurs twice")));
        }
        names.push(name);
        for (at, column) in header.iter().enumerate().skip(2) {
            let text = &row[at - 1 + index];
            let cell = number(text).map_err(|problem| wrong(column, problem))?;
            if file.is_attributes() && !matches!(cell, Some(1.0 | -1.0)) {
                return Err(wrong(column, format!("{:?} is neither 1 nor -1", shown(text))));
            }
            cells[at - 2].push(cell);
        }
    }
    if names.is_empty() {
        return Err(ToolkitError::Empty);
    }
    Ok(Table { file, names, columns: sort_out(file, &header[2..], cells) })
}

/// Parses a finite number; `None` for the values that pandas writes and reads as missing.
fn number(cell: &str) -> Result<Option<f64>, String> {
    let cell = cell.trim();
    if cell.is_empty() || cell.eq_ignore_ascii_case("nan") {
        return Ok(None);
    }
    match cell.parse::<f64>() {
        Ok(value) if value.abs() <= MOST_SCORE => Ok(Some(value)),
        Ok(value) if value.is_finite() => {
            Err(format!("{cell} is beyond ±{MOST_SCORE:e}, too large for a score"))
        }
        _ => Err(format!("{:?} is not a finite number", shown(cell))),
    }
}

/// Returns the beginning of a cell, for an error message.
fn shown(cell: &str) -> String {
    cell.chars().take(40).collect()
}

/// Returns the kind of file that has these columns.
fn kind(header: &[String]) -> Result<&'static File, ToolkitError> {
    let found = || ToolkitError::UnknownColumns { found: shown_columns(header) };
    // pandas gives the index this name when it writes a frame that it read with its index as a
    // column.
    let is_index = |column: &String| column.is_empty() || column == "Unnamed: 0";
    if header.len() < 3 || !is_index(&header[0]) || header[1] != "name" {
        return Err(found());
    }
    let columns = &header[2..];
    let fits = |column: &String, file: &File| match file.scores {
        [] => attribute(column).is_some(),
        scores => scores.iter().any(|(name, _)| name == column),
    };
    let file = FILES
        .iter()
        .find(|file| columns.iter().any(|column| fits(column, file)))
        .ok_or_else(found)?;
    let wrong = |problem| ToolkitError::Columns { prefix: file.prefix, problem };
    let mut seen = HashSet::new();
    for column in columns {
        if !fits(column, file) {
            return Err(wrong(format!("`{}` does not belong to this file", shown(column))));
        }
        if !seen.insert(column.as_str()) {
            return Err(wrong(format!("`{column}` occurs twice")));
        }
    }
    let mut expected: Vec<String> =
        file.scores.iter().map(|(name, _)| (*name).to_owned()).collect();
    expected.extend(
        columns
            .iter()
            .filter_map(|column| attribute(column))
            .flat_map(|name| [format!("{name}_target"), format!("{name}_pred")]),
    );
    match expected.iter().find(|column| !seen.contains(column.as_str())) {
        Some(missing) => Err(wrong(format!("`{missing}` is missing"))),
        None => Ok(file),
    }
}

/// Returns the first columns, shortened, for an error message.
fn shown_columns(header: &[String]) -> String {
    let columns: Vec<_> = header.iter().take(20).map(|column| shown(column)).collect();
    format!("{columns:?}{}", if header.len() > 20 { " …" } else { "" })
}

fn attribute(column: &str) -> Option<&str> {
    let name = column.strip_suffix("_target").or_else(|| column.strip_suffix("_pred"))?;
    label::clean_within(name, label::ATTRIBUTE_BYTES)
        .is_ok_and(|clean| clean == name)
        .then_some(name)
}

fn sort_out(file: &'static File, columns: &[String], cells: Vec<Vec<Option<f64>>>) -> Columns {
    let mut by_name: BTreeMap<&str, Vec<Option<f64>>> =
        columns.iter().map(String::as_str).zip(cells).collect();
    if !file.is_attributes() {
        let take = |(column, code): &(&'static str, &'static str)| {
            (*code, by_name.remove(column).expect("the columns were checked"))
        };
        return Columns::Scores(file.scores.iter().map(take).collect());
    }
    let names = columns.iter().filter_map(|column| column.strip_suffix("_target"));
    let mut labels = |column: String| {
        let cells = by_name.remove(column.as_str()).expect("the columns were checked");
        cells.into_iter().map(|cell| cell == Some(1.0)).collect()
    };
    let take = |name: &str| AttributeColumn {
        attribute: name.to_owned(),
        targets: labels(format!("{name}_target")),
        predictions: labels(format!("{name}_pred")),
    };
    Columns::Attributes(names.map(take).collect())
}

impl Table {
    /// Returns the file's text as pandas writes it: an unnamed index from 0, then `name`, then the
    /// columns.
    #[must_use]
    pub fn write(&self) -> String {
        let mut text = String::from(",name");
        // An attribute of another program may have a comma in its name.
        let columns: Vec<Box<dyn Fn(usize) -> String + '_>> = match &self.columns {
            Columns::Scores(scores) => {
                let number =
                    |value: &Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
                scores
                    .iter()
                    .map(|(code, values)| {
                        let column = self.file.scores.iter().find(|(_, of)| of == code);
                        let _ = write!(text, ",{}", column.map_or(*code, |(name, _)| name));
                        Box::new(move |row: usize| number(&values[row]))
                            as Box<dyn Fn(usize) -> String>
                    })
                    .collect()
            }
            Columns::Attributes(attributes) => attributes
                .iter()
                .flat_map(|each| {
                    [(each, "target", &each.targets), (each, "pred", &each.predictions)]
                })
                .map(|(each, suffix, values)| {
                    let _ = write!(
                        text,
                        ",{}",
                        spreadsheet::cell(&format!("{}_{suffix}", each.attribute))
                    );
                    Box::new(move |row: usize| (if values[row] { "1" } else { "-1" }).to_owned())
                        as Box<dyn Fn(usize) -> String>
                })
                .collect(),
        };
        text.push('\n');
        for (row, name) in self.names.iter().enumerate() {
            let _ = write!(text, "{row},{}", spreadsheet::cell(name));
            for column in &columns {
                let _ = write!(text, ",{}", column(row));
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests;
