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
mod tests {
    use super::*;

    const CLIP: &str =
        ",name,clip_t,clip_n,clip_i\n0,000-0-00,0.4448,0.161,0.4988\n1,000-0-01,,NaN,-1e-05\n";
    const APS: &str =
        ",name,Young_target,Young_pred,Male_target,Male_pred\n0,a,1,-1,-1,-1\n1,b,1,1,1.0,-1.0\n";

    fn failed(text: &str) -> String {
        parse(text, None, 1000).unwrap_err().to_string()
    }

    #[test]
    fn scores_are_read_by_metric_and_missing_ones_as_none() {
        let table = parse(CLIP, Some("clip_laion_CLIP.csv"), 1000).unwrap();
        assert_eq!(table.names, ["000-0-00", "000-0-01"]);
        let Columns::Scores(scores) = table.columns else { panic!("scores") };
        assert_eq!(scores[0], ("clip_t", vec![Some(0.4448), None]));
        assert_eq!(scores[1], ("clip_n", vec![Some(0.161), None]));
        assert_eq!(scores[2], ("clip_i", vec![Some(0.4988), Some(-1e-5)]));
    }

    #[test]
    fn columns_in_another_order_are_the_same_columns() {
        let text = ",name,human_preference_score_v2,human_preference_score_v1\n0,a,2,1\n";
        let Columns::Scores(scores) = parse(text, None, 1000).unwrap().columns else {
            panic!("scores")
        };
        assert_eq!(scores, [("hpsv1", vec![Some(1.0)]), ("hpsv2", vec![Some(2.0)])]);
    }

    #[test]
    fn attributes_are_read_with_targets_and_predictions() {
        let table = parse(APS, Some("attribute_preservation_syn.csv"), 1000).unwrap();
        let Columns::Attributes(attributes) = table.columns else { panic!("attributes") };
        assert_eq!(attributes[0].attribute, "Young");
        assert_eq!(attributes[0].targets, [true, true]);
        assert_eq!(attributes[1].targets, [false, true]);
        assert_eq!(attributes[1].predictions, [false, false]);
    }

    #[test]
    fn written_tables_are_read_back_unchanged() {
        for text in [CLIP, APS] {
            let table = parse(text, None, 1000).unwrap();
            assert_eq!(parse(&table.write(), None, 1000).unwrap(), table);
        }
        let names = ["a,b", "say \"so\"", "plain"].map(str::to_owned).to_vec();
        let scores = vec![Some(0.1 + 0.2), Some(f64::MIN_POSITIVE), Some(-1e100)];
        let columns = Columns::Scores(vec![("ips", scores)]);
        let table =
            Table { file: File::of_name("identity_preservation.csv").unwrap(), names, columns };
        assert_eq!(parse(&table.write(), None, 1000).unwrap(), table);
    }

    #[test]
    fn written_tables_have_the_toolkits_header_and_index() {
        let table = parse(APS, None, 1000).unwrap();
        assert_eq!(table.write().replace("1.0", "1"), APS.replace("1.0", "1"));
    }

    #[test]
    fn a_table_that_was_saved_without_its_index_is_the_same_table() {
        let with = parse(",name,dino_fidelity\n0,a,1\n1,b,0.5\n", None, 10).unwrap();
        assert_eq!(parse("name,dino_fidelity\na,1\nb,0.5\n", None, 10).unwrap(), with);
        let error = parse("name,dino_fidelity\na,1\nb,high\n", None, 10).unwrap_err().to_string();
        assert!(error.contains("line 3, column `dino_fidelity`"), "{error}");
    }

    #[test]
    fn rows_and_columns_are_counted_while_they_are_read() {
        let rows = ",name,dino_fidelity\n0,a,1\n1,b,1\n2,c,1\n";
        assert_eq!(parse(rows, None, 2).unwrap_err(), ToolkitError::TooManyRows(2));
        assert!(parse(rows, None, 3).is_ok());
        let wide = ",name".to_owned() + &",x_target,x_pred".repeat(200_000) + "\n";
        let rows = ",name,dino_fidelity\n0,a,1\n";
        for (before, line) in [("", 1), ("\n\n", 3), ("\"two\nlines\"", 2), (rows, 3)] {
            let error = parse(&format!("{before}{wide}"), None, 2).unwrap_err();
            assert_eq!(
                error,
                ToolkitError::TooManyColumns(TooWide { line, most: MOST_COLUMNS }),
                "{before:?}"
            );
        }
        let columns: Vec<_> = (0..126).map(|at| format!(",{at}_target,{at}_pred")).collect();
        let cells = ",1".repeat(252);
        let rows = MOST_CELLS / 252;
        let rows: Vec<_> = (0..=rows).map(|at| format!("{at},s{at}{cells}\n")).collect();
        let error = parse(&format!(",name{}\n{}", columns.concat(), rows.concat()), None, 200_000)
            .unwrap_err();
        assert_eq!(error, ToolkitError::TooManyCells(MOST_CELLS));
        assert_eq!(
            parse("name;dino_fidelity\na;1\n", None, 2).unwrap_err(),
            ToolkitError::Semicolons
        );
    }

    #[test]
    fn names_with_control_characters_and_numbers_beyond_all_scores_are_rejected() {
        assert!(failed(",name,dino_fidelity\n0,a\u{1b}[2J,1\n").contains("U+001B"));
        assert!(failed(",name,dino_fidelity\n0,\"a\nb\",1\n").contains("U+000A"));
        for number in ["1e101", "-1e308"] {
            assert!(
                failed(&format!(",name,dino_fidelity\n0,a,{number}\n")).contains("1e100"),
                "{number}"
            );
        }
    }

    #[test]
    fn formulas_are_marked_and_read_back_without_the_mark() {
        let names = ["=HYPERLINK(\"x\")", "@a", "plain"].map(str::to_owned).to_vec();
        let columns = Columns::Scores(vec![("ips", vec![Some(-0.5); 3])]);
        let table =
            Table { file: File::of_name("identity_preservation.csv").unwrap(), names, columns };
        let text = table.write();
        assert!(text.contains("'=HYPERLINK") && text.contains("'@a,-0.5"), "{text}");
        assert_eq!(parse(&text, None, 10).unwrap(), table);
    }

    #[test]
    fn an_attribute_with_a_comma_in_its_name_stays_one_column() {
        let labels = || vec![true];
        let columns = Columns::Attributes(vec![AttributeColumn {
            attribute: "a,b".to_owned(),
            targets: labels(),
            predictions: labels(),
        }]);
        let file = File::of_name("attribute_preservation_syn.csv").unwrap();
        let table = Table { file, names: vec!["x".to_owned()], columns };
        assert_eq!(parse(&table.write(), None, 10).unwrap(), table);
    }

    #[test]
    fn an_invalid_column_is_reported_with_its_file() {
        assert!(failed(",name,clip_t,clip_n\n0,a,1,1\n").contains("`clip_i` is missing"));
        assert!(
            failed(",name,clip_t,clip_n,clip_i,note\n0,a,1,1,1,1\n")
                .contains("`note` does not belong")
        );
        assert!(failed(",name,dino_fidelity,dino_fidelity\n0,a,1,1\n").contains("twice"));
        assert!(failed(",name,Young_target\n0,a,1\n").contains("`Young_pred` is missing"));
        let unknown = failed("name,score\na,1\n");
        assert!(unknown.contains("score") && unknown.contains("object_faithfulness"), "{unknown}");
    }

    #[test]
    fn a_name_that_contradicts_the_columns_is_rejected() {
        let error = parse(CLIP, Some("identity_stability.csv"), 1000).unwrap_err().to_string();
        assert!(
            error.contains("identity_stability.csv") && error.contains("`clip…csv`"),
            "{error}"
        );
    }

    #[test]
    fn an_invalid_cell_is_reported_with_its_line_and_column() {
        let error = failed(",name,dino_fidelity\n0,a,1\n1,b,high\n");
        assert!(
            error.contains("line 3, column `dino_fidelity`") && error.contains("high"),
            "{error}"
        );
        assert!(failed(",name,dino_fidelity\n0,a,inf\n").contains("finite"));
        assert!(failed(",name,Young_target,Young_pred\n0,a,1,0\n").contains("neither 1 nor -1"));
        assert!(failed(",name,dino_fidelity\n0,a,1\n1,a,1\n").contains("\"a\" occurs twice"));
        assert!(failed(",name,dino_fidelity\n0,,1\n").contains("it is empty"));
        assert!(failed(",name,dino_fidelity\n0,a\n").contains("CSV"));
        assert_eq!(parse(",name,dino_fidelity\n", None, 1000).unwrap_err(), ToolkitError::Empty);
    }
}
