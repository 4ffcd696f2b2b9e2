//! A table: as HTML, and as CSV or LaTeX to download.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

use crate::spreadsheet;

/// A table with a name that is unique on its page.
pub(crate) struct Table {
    /// Name in addresses and of files.
    pub(crate) name: &'static str,
    /// Caption, which is also the accessible name.
    pub(crate) caption: String,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
}

/// A column.
#[derive(Default)]
pub(crate) struct Column {
    /// Head in CSV and LaTeX.
    pub(crate) label: String,
    /// Head on the page, if it is more than the label.
    pub(crate) head: Option<Markup>,
    /// Whether the cells are numbers.
    pub(crate) is_number: bool,
    /// Order of the rows by this column, if it is known to the server.
    pub(crate) sorted: Option<Order>,
}

/// Order of rows, first to last.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Ascending,
    Descending,
}

/// A row, with a class for its look.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) class: &'static str,
    pub(crate) cells: Vec<Cell>,
}

/// A cell.
#[derive(Default)]
pub(crate) struct Cell {
    /// Content in CSV: numbers with all digits.
    pub(crate) value: String,
    /// Content on the page; default: the value.
    pub(crate) shown: Option<Markup>,
    /// Content in plain text; default: the value.
    pub(crate) text: Option<String>,
    /// Content in LaTeX; default: the value.
    pub(crate) latex: Option<String>,
    pub(crate) class: &'static str,
    /// Whether the cell names its row.
    pub(crate) is_head: bool,
    /// Whether scripts copy the text as it is shown. The page then does not repeat the value, which
    /// counts in tables of thousands of cells.
    pub(crate) is_as_shown: bool,
}

/// Format of a downloaded table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    Latex,
}

impl Column {
    pub(crate) fn text(label: impl Into<String>) -> Self {
        Self { label: label.into(), ..Self::default() }
    }

    pub(crate) fn number(label: impl Into<String>) -> Self {
        Self { label: label.into(), is_number: true, ..Self::default() }
    }

    pub(crate) fn head(self, head: Markup) -> Self {
        Self { head: Some(head), ..self }
    }
}

impl Cell {
    pub(crate) fn text(value: impl Into<String>) -> Self {
        Self { value: value.into(), ..Self::default() }
    }

    /// A number that may be missing, shown as `shown`.
    pub(crate) fn number(value: Option<f64>, shown: impl Into<String>) -> Self {
        let shown: String = shown.into();
        let value = value.map(|value| value.to_string()).unwrap_or_default();
        Self {
            value,
            shown: Some(html! { (shown) }),
            latex: Some(latex(&shown)),
            text: Some(shown),
            ..Self::default()
        }
    }

    pub(crate) fn shown(self, shown: Markup) -> Self {
        Self { shown: Some(shown), ..self }
    }

    pub(crate) fn class(self, class: &'static str) -> Self {
        Self { class, ..self }
    }

    pub(crate) fn head(self) -> Self {
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
    pub(crate) fn html(&self, csv: &str, latex: &str) -> Markup {
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
    pub(crate) fn bare(&self) -> Markup {
        html! {
            table {
                caption.hidden { (self.caption) }
                thead { tr { @for column in &self.columns { (column.html()) } } }
                tbody { @for row in &self.rows { (row.html(&self.columns)) } }
            }
        }
    }

    /// Renders CSV with a header line.
    pub(crate) fn csv(&self) -> String {
        let heads = self.columns.iter().map(|column| spreadsheet::cell(&column.label));
        let mut text = heads.collect::<Vec<_>>().join(",") + "\r\n";
        for row in &self.rows {
            let cells = row.cells.iter().map(|cell| spreadsheet::cell(&cell.value));
            text.push_str(&cells.collect::<Vec<_>>().join(","));
            text.push_str("\r\n");
        }
        text
    }

    /// Renders a Markdown table.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let heads = self.columns.iter().map(|column| pipe(&column.label)).collect();
        let rule = self
            .columns
            .iter()
            .map(|column| if column.is_number { "---:".to_owned() } else { "---".to_owned() });
        let mut text = line(heads) + &line(rule.collect());
        for row in &self.rows {
            text += &line(row.cells.iter().map(|cell| pipe(cell.plain())).collect());
        }
        text
    }

    /// Renders a LaTeX table for the package `booktabs`.
    pub(crate) fn latex(&self) -> String {
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
            let line = cells.collect::<Vec<_>>().join(" & ");
            // After the end of a row, LaTeX takes these for arguments.
            let guard = if line.starts_with(['[', '*']) { "{}" } else { "" };
            let _ = writeln!(text, "{guard}{line} \\\\");
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
    /// Returns the content as plain text.
    fn plain(&self) -> &str {
        self.text.as_deref().unwrap_or(&self.value)
    }

    fn classes(&self, is_number: bool) -> String {
        let number = if is_number { "number" } else { "" };
        [number, self.class].join(" ").trim().to_owned()
    }
}

/// Escapes the characters that Markdown tables give a meaning to.
fn pipe(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// Escapes the characters that LaTeX gives a meaning to.
pub(crate) fn latex(text: &str) -> String {
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
            // Lines without text would end a paragraph, which a cell cannot contain.
            _ if char.is_control() => escaped.push(' '),
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
        let html = table().html("/x", "/x").into_string();
        assert!(html.contains("&lt;b&gt;=a_b&amp;") && !html.contains("<b>"), "{html}");
        assert_eq!(table().csv(), "method,ips\r\n<b>=a_b&,0.123456\r\n");
        assert!(table().latex().contains("<b>=a\\_b\\& & 0.123 \\\\"), "{}", table().latex());
    }

    #[test]
    fn a_number_keeps_all_its_digits_for_sorting_and_copying() {
        let html = table().html("/x", "/x").into_string();
        assert!(html.contains(r#"<td class="number" data-value="0.123456">0.123</td>"#), "{html}");
    }
}
