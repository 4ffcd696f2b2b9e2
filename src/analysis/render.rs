//! A run's report as text: CSV, Markdown or LaTeX.

use std::fmt::Write as _;

use super::{Policy, Report, ReportRow};
use crate::metrics::{self, Direction};
use crate::spreadsheet;
use crate::stats::FEW_CLUSTERS;

/// Caption of a table, in addition to its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caption {
    /// Method and run.
    pub run: String,
    /// The pack of the scores, with a note if it is a demo pack.
    pub pack: String,
    /// Identifier of the set of samples: equal for tables over the same samples.
    pub sample_set: String,
    /// Samples of the run that failed.
    pub failed: u64,
    /// Pending samples.
    pub pending: u64,
}

/// Renders CSV with one line per metric. Numbers have all digits; an empty cell is null.
#[must_use]
pub fn csv(report: &Report) -> String {
    let mut text = String::from(
        "metric,mean,std,low,high,clusters,n,coverage,samples,penalised,undecided,policy\n",
    );
    let number = |number: Option<f64>| number.map(|number| number.to_string()).unwrap_or_default();
    for row in &report.rows {
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{},{},{}",
            spreadsheet::cell(&row.metric),
            number(row.mean),
            number(row.std),
            number(row.low),
            number(row.high),
            row.clusters,
            row.n,
            row.coverage,
            report.samples,
            report.penalised.map(|count| count.to_string()).unwrap_or_default(),
            report.undecided,
            policy(report.policy),
        );
    }
    text
}

/// Renders a Markdown table with a heading and a caption.
#[must_use]
pub fn markdown(report: &Report, caption: &Caption) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('|', "\\|");
    let mut text = format!(
        "# {}\n\n{}\n\n| metric | | mean | std | 95 % interval | n | coverage \
            |\n|---|---|---|---|---|---|---|\n",
        escape(&caption.run),
        escape(&facts(report, caption))
    );
    for row in &report.rows {
        let interval = match (row.low, row.high) {
            (Some(low), Some(high)) => format!("{low:.4} to {high:.4}"),
            _ => "–".to_owned(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {interval} | {} | {:.1} % |",
            escape(&row.metric),
            match direction(&row.metric) {
                Some(Direction::HigherIsBetter) => "↑",
                Some(Direction::LowerIsBetter) => "↓",
                _ => "",
            },
            rounded(row.mean, "–"),
            rounded(row.std, "–"),
            row.n,
            row.coverage * 100.0,
        );
    }
    text
}

/// Renders a LaTeX table for the package `booktabs`.
#[must_use]
pub fn latex(report: &Report, caption: &Caption) -> String {
    let mut text = format!(
        "% {}\n% {}\n\\begin{{tabular}}{{lrrrrr}}\n\\toprule\n\
         Metric & Mean & Std & 95\\,\\% interval & $n$ & Coverage \\\\\n\\midrule\n",
        one_line(&caption.run),
        one_line(&facts(report, caption))
    );
    for row in &report.rows {
        let interval = match (row.low, row.high) {
            (Some(low), Some(high)) => format!("$[{low:.4}, {high:.4}]$"),
            _ => "--".to_owned(),
        };
        let arrow = match direction(&row.metric) {
            Some(Direction::HigherIsBetter) => " $\\uparrow$",
            Some(Direction::LowerIsBetter) => " $\\downarrow$",
            _ => "",
        };
        let math = |number: Option<f64>| {
            number.map_or_else(|| "--".to_owned(), |number| format!("${number:.4}$"))
        };
        let _ = writeln!(
            text,
            "{}{arrow} & {} & {} & {interval} & {} & {:.1}\\,\\% \\\\",
            row.metric.replace('_', "\\_"),
            math(row.mean),
            math(row.std),
            row.n,
            row.coverage * 100.0,
        );
    }
    text.push_str("\\bottomrule\n\\end{tabular}\n");
    text
}

fn rounded(number: Option<f64>, none: &str) -> String {
    number.map_or_else(|| none.to_owned(), |number| format!("{number:.4}"))
}

fn direction(code: &str) -> Option<Direction> {
    metrics::find(code).map(|metric| metric.direction)
}

/// Replaces control characters, since a line break ends a LaTeX comment.
fn one_line(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::Stellar => "stellar",
        Policy::Toolkit => "toolkit",
        Policy::None => "none",
    }
}

/// Describes the samples, pack and policy behind the numbers.
fn facts(report: &Report, caption: &Caption) -> String {
    let mut facts = format!(
        "{} samples (set {}), pack {}, policy {}",
        report.samples,
        caption.sample_set,
        caption.pack,
        policy(report.policy)
    );
    if let Some(penalised) = report.penalised {
        let share =
            if report.samples == 0 { 0.0 } else { penalised as f64 / report.samples as f64 };
        let _ = write!(facts, "; {penalised} penalised ({:.1} %)", share * 100.0);
    }
    if report.undecided > 0 {
        let _ = write!(
            facts,
            "; {} undecided by the penalty (no clip_t or clip_n, or a single sample)",
            report.undecided
        );
    }
    if caption.pending > 0 {
        let _ = write!(facts, "; {} pending", caption.pending);
    }
    if caption.failed > 0 {
        let _ = write!(facts, "; {} failed", caption.failed);
    }
    facts.push_str(". Confidence intervals resample identities");
    let few = |row: &&ReportRow| row.low.is_some() && row.clusters < FEW_CLUSTERS;
    let few: Vec<&str> = report.rows.iter().filter(few).map(|row| row.metric.as_str()).collect();
    if !few.is_empty() {
        let _ = write!(facts, "; fewer than {FEW_CLUSTERS} identities: {}", few.join(", "));
    }
    facts + "."
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Statistic;

    fn report() -> Report {
        let row = |metric: &str, mean, std, interval: Option<(f64, f64)>| ReportRow {
            metric: metric.to_owned(),
            statistic: Statistic::SampleMean,
            mean,
            sample_mean: mean,
            std,
            low: interval.map(|ends| ends.0),
            high: interval.map(|ends| ends.1),
            clusters: 2,
            n: 3,
            coverage: 0.75,
        };
        Report {
            policy: Policy::Stellar,
            samples: 4,
            penalised: Some(1),
            undecided: 0,
            rows: vec![
                row("clip_t", Some(0.1 + 0.2), Some(0.5), Some((0.25, 0.75))),
                row("dreamsim", Some(0.25), None, None),
                row("aps", None, None, None),
            ],
        }
    }

    fn caption() -> Caption {
        Caption {
            run: "A|B/run".to_owned(),
            pack: "demo".to_owned(),
            sample_set: "0123".to_owned(),
            failed: 2,
            pending: 0,
        }
    }

    #[test]
    fn csv_has_all_digits_and_empty_cells_for_nulls() {
        insta::assert_snapshot!(csv(&report()));
    }

    #[test]
    fn markdown_shows_the_direction_and_counts_what_was_left_out() {
        insta::assert_snapshot!(markdown(&report(), &caption()));
    }

    #[test]
    fn latex_escapes_commands_and_its_comment_stays_one_line() {
        let caption = Caption { run: "a\n\\input{x}".to_owned(), ..caption() };
        insta::assert_snapshot!(latex(&report(), &caption));
    }
}
