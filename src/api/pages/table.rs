//! A table: as HTML, and as CSV or LaTeX to download.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

use super::address::Address;
use crate::spreadsheet;

/// A table with a name that is unique on its page.
pub(super) struct Table {
    /// Name in addresses and of files.
    pub(super) name: &'static str,
    /// Caption, which is also the accessible name.
    pub(super) caption: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
}

/// A column.
#[derive(Default)]
pub(super) struct Column {
    /// Head in CSV and LaTeX.
    pub(super) label: String,
    /// Head on the page, if it is more than the label.
    pub(super) head: Option<Markup>,
    /// Whether the cells are numbers.
    pub(super) is_number: bool,
    /// Order of the rows by this column, if it is known to the server.
    pub(super) sorted: Option<Order>,
}

/// Order of rows, first to last.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Ascending,
    Descending,
}

/// A row, with a class for its look.
#[derive(Default)]
pub(super) struct Row {
    pub(super) class: &'static str,
    pub(super) cells: Vec<Cell>,
}

/// A cell.
#[derive(Default)]
pub(super) struct Cell {
    /// Content in CSV: numbers with all digits.
    pub(super) value: String,
    /// Content on the page; default: the value.
    pub(super) shown: Option<Markup>,
    /// Content in LaTeX; default: the value.
    pub(super) latex: Option<String>,
    pub(super) class: &'static str,
    /// Whether the cell names its row.
    pub(super) is_head: bool,
    /// Whether scripts copy the text as it is shown. The page then does not repeat the value, which
    /// counts in tables of thousands of cells.
    pub(super) is_as_shown: bool,
}

/// Format of a downloaded table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Csv,
    Latex,
}

impl Column {
    pub(super) fn text(label: impl Into<String>) -> Self {
        Self { label: label.into(), ..Self::default() }
    }

    pub(super) fn number(label: impl Into<String>) -> Self {
        Self { label: label.into(), is_number: true, ..Self::default() }
    }

    pub(super) fn head(self, head: Markup) -> Self {
        Self { head: Some(head), ..self }
    }
}

impl Cell {
    pub(super) fn text(value: impl Into<String>) -> Self {
        Self { value: value.into(), ..Self::default() }
    }

    /// A number that may be missing, shown as `shown`.
    pub(super) fn number(value: Option<f64>, shown: impl Into<String>) -> Self {
        let shown: String = shown.into();
        let value = value.map(|value| value.to_string()).unwrap_or_default();
        Self {
            value,
            shown: Some(html! { (shown) }),
            latex: Some(latex(&shown)),
            ..Self::default()
        }
    }

    pub(super) fn shown(self, shown: Markup) -> Self {
        Self { shown: Some(shown), ..self }
    }

    pub(super) fn class(self, class: &'static str) -> Self {
        Self { class, ..self }
    }

    pub(super) fn head(self) -> Self {
        Self { is_head: true, ..self }
    }
}

impl From<Vec<Cell>> for Row {
    fn from(cells: Vec<Cell>) -> Self {
        Self { class: "", cells }
    }
}

impl Table {
    /// Renders the table with its tools. `csv` and `latex` are the addresses of the downloads.
    pub(super) fn html(&self, csv: &Address, latex: &Address) -> Markup {
        html! {
            div.table data-table=(self.name) {
                div.tools {
                    input.filter type="search" hidden placeholder="Filter rows"
                        aria-label=(format!("Filter the rows of: {}", self.caption));
                    span.spacer {}
                    button.copy type="button" hidden { "Copy" }
                    a download href=(csv) { "CSV" }
                    a download href=(latex) { "LaTeX" }
                }
                div.scroll tabindex="0" role="region" aria-label=(self.caption) { (self.bare()) }
            }
        }
    }

    /// Renders the table without tools, for documents without links and scripts.
    pub(super) fn bare(&self) -> Markup {
        html! {
            table {
                caption.hidden { (self.caption) }
                thead { tr { @for column in &self.columns { (column.html()) } } }
                tbody { @for row in &self.rows { (row.html(&self.columns)) } }
            }
        }
    }

    /// Renders CSV with a header line.
    pub(super) fn csv(&self) -> String {
        let heads = self.columns.iter().map(|column| spreadsheet::cell(&column.label));
        let mut text = heads.collect::<Vec<_>>().join(",") + "\r\n";
        for row in &self.rows {
            let cells = row.cells.iter().map(|cell| spreadsheet::cell(&cell.value));
            text.push_str(&cells.collect::<Vec<_>>().join(","));
            text.push_str("\r\n");
        }
        text
    }

    /// Renders a LaTeX table for the package `booktabs`.
    pub(super) fn latex(&self) -> String {
        let align = self.columns.iter().map(|column| if column.is_number { 'r' } else { 'l' });
        let heads = self.columns.iter().map(|column| latex(&column.label));
        let mut text = format!(
            "% Needs \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{}}}\n\\toprule\n{} \\\\\n\\midrule\n",
            align.collect::<String>(),
            heads.collect::<Vec<_>>().join(" & ")
        );
        for row in &self.rows {
            let cells = row
                .cells
                .iter()
                .map(|cell| cell.latex.clone().unwrap_or_else(|| latex(&cell.value)));
            let _ = writeln!(text, "{} \\\\", cells.collect::<Vec<_>>().join(" & "));
        }
        text.push_str("\\bottomrule\n\\end{tabular}\n");
        text
    }
}

impl Column {
    fn html(&self) -> Markup {
        let sort = self.sorted.map(|order| match order {
            Order::Ascending => "ascending",
            Order::Descending => "descending",
        });
        // The label is what scripts copy.
        let value = self.head.is_some().then_some(&self.label);
        html! {
            th scope="col" class=[self.is_number.then_some("number")] aria-sort=[sort]
                data-value=[value] {
                @if let Some(head) = &self.head { (head) } @else { (self.label) }
            }
        }
    }
}

impl Row {
    fn html(&self, columns: &[Column]) -> Markup {
        html! {
            tr class=[(!self.class.is_empty()).then_some(self.class)] {
                @for (cell, column) in self.cells.iter().zip(columns) {
                    @let class = cell.classes(column.is_number);
                    @let class = (!class.is_empty()).then_some(class);
                    // The value is what scripts sort by and copy.
                    @let value = (cell.shown.is_some() && !cell.is_as_shown).then_some(&cell.value);
                    @let content = cell.shown.clone().unwrap_or_else(|| html! { (cell.value) });
                    @if cell.is_as_shown && !cell.is_head && class.is_none() {
                        // The end tag is optional, and a table may have thousands of such cells.
                        (PreEscaped("<td>")) (content)
                    } @else if cell.is_head {
                        th scope="row" class=[class] data-value=[value] { (content) }
                    } @else {
                        td class=[class] data-value=[value] { (content) }
                    }
                }
            }
        }
    }
}

impl Cell {
    fn classes(&self, is_number: bool) -> String {
        let number = if is_number { "number" } else { "" };
        [number, self.class].join(" ").trim().to_owned()
    }
}

/// Escapes the characters that LaTeX gives a meaning to.
pub(super) fn latex(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => escaped.extend(['\\', char]),
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            '\\' => escaped.push_str("\\textbackslash{}"),
            '−' => escaped.push_str("$-$"),
            '±' => escaped.push_str("$\\pm$"),
            '↑' => escaped.push_str("$\\uparrow$"),
            '↓' => escaped.push_str("$\\downarrow$"),
            _ => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            name: "methods",
            caption: "Methods".to_owned(),
            columns: vec![Column::text("method"), Column::number("ips")],
            rows: vec![
                vec![Cell::text("<b>=a_b&").head(), Cell::number(Some(0.123_456), "0.123")].into(),
            ],
        }
    }

    #[test]
    fn names_stay_text_in_every_format() {
        let address = Address::new("/x");
        let html = table().html(&address, &address).into_string();
        assert!(html.contains("&lt;b&gt;=a_b&amp;") && !html.contains("<b>"), "{html}");
        assert_eq!(table().csv(), "method,ips\r\n<b>=a_b&,0.123456\r\n");
        assert!(table().latex().contains("<b>=a\\_b\\& & 0.123 \\\\"), "{}", table().latex());
    }

    #[test]
    fn a_number_keeps_all_its_digits_for_sorting_and_copying() {
        let address = Address::new("/x");
        let html = table().html(&address, &address).into_string();
        assert!(html.contains(r#"<td class="number" data-value="0.123456">0.123</td>"#), "{html}");
    }
}
