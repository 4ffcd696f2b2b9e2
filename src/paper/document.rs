//! `paper.tex`, which includes all parts, and the file that says how each number was made.

use std::{fmt::Write as _, path::Path};

use super::{
    options::Options,
    part::{Missing, Part},
    text::portable,
};
use crate::figures::table::latex;
use crate::pack_id::{PackId, Weights};

const PREAMBLE: &str = r"\documentclass{article}
\ifdefined\Umathchar
  \usepackage{fontspec}
\else
  \usepackage[utf8]{inputenc}
  \usepackage[T1]{fontenc}
\fi
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\usepackage[table]{xcolor}
\definecolor{together}{RGB}{47,95,208}
\definecolor{opposite}{RGB}{168,90,20}
% A letter that pdfTeX does not have is shown as its code.
\newcommand{\letter}[2]{\ifdefined\Umathchar #2\else{\scriptsize\texttt{U+#1}}\fi}
% Scales what is wider than the line.
\newsavebox{\fitbox}
\newcommand{\fit}[1]{\sbox{\fitbox}{#1}\ifdim\wd\fitbox>\linewidth
  \resizebox{\linewidth}{!}{\usebox{\fitbox}}\else\usebox{\fitbox}\fi}
";

/// What all parts share.
pub(super) struct Facts<'a> {
    pub(super) options: &'a Options,
    pub(super) server: &'a str,
    pub(super) pack: Option<&'a PackId>,
    /// Day on which the numbers were read.
    pub(super) date: String,
    /// Methods with the ids of their runs.
    pub(super) methods: Vec<(String, Vec<String>)>,
    /// Revision of the dataset, if it is registered.
    pub(super) revision: Option<u64>,
}

/// Returns the main document.
pub(super) fn tex(facts: &Facts<'_>, parts: &[Part]) -> String {
    let mut text = String::from("% Written by `stellar-score paper`; README.md says how.\n");
    text.push_str(PREAMBLE);
    text.push_str("\\begin{document}\n");
    if facts.pack.is_some_and(|pack| pack.weights == Weights::Demo) {
        text.push_str(
            "\\begin{center}\\fbox{Demo weights: these numbers mean nothing.}\\end{center}\n",
        );
    }
    let mut section = "";
    for part in parts {
        let Some(input) = part.input() else { continue };
        if part.section != section {
            section = part.section;
            let _ = write!(text, "\n\\clearpage\n\\section*{{{section}}}\n");
        }
        let (kind, label) = match part.name.as_str() {
            "gallery" | "correlations" => ("figure", "fig"),
            _ => ("table", "tab"),
        };
        let _ = writeln!(text, "\\begin{{{kind}}}[htbp]\n\\centering");
        if kind == "table" {
            let _ = writeln!(text, "\\caption{{{}}}", part.caption);
        }
        let _ = match part.name.as_str() {
            "gallery" => writeln!(text, "\\input{{{input}}}"),
            _ => writeln!(text, "\\fit{{\\input{{{input}}}}}"),
        };
        if kind == "figure" {
            let _ = writeln!(text, "\\caption{{{}}}", part.caption);
        }
        let _ = writeln!(text, "\\label{{{label}:{}}}", part.name);
        for note in &part.notes {
            let _ = writeln!(text, "\\par\\footnotesize {note}");
        }
        let _ = writeln!(text, "\\end{{{kind}}}");
    }
    text.push_str(
        "\n\\clearpage\n\\nocite{*}\n\\bibliographystyle{plain}\n\\bibliography{references}\n",
    );
    text.push_str("\\end{document}\n");
    portable(&text)
}

/// Returns the file that says how each number was made.
pub(super) fn readme(facts: &Facts<'_>, parts: &[Part], missing: &[Missing]) -> String {
    let options = facts.options;
    let mut text = String::from("# Tables and figures\n\nHow each number was made.\n\n");
    let or_all = |of: &Option<String>| of.clone().unwrap_or_else(|| "all".to_owned());
    let pack = facts.pack.map_or_else(
        || "none: nothing was measured".to_owned(),
        |pack| {
            format!("{} `{}`, weights {}", shown(&pack.name), pack.digest, pack.weights.as_str())
        },
    );
    let revision = facts.revision.map(|of| format!(" (revision {of})")).unwrap_or_default();
    let methods =
        if options.methods.is_empty() { "all".to_owned() } else { options.methods.join(", ") };
    let rows = [
        ("Command", format!("`{}`", options.command.replace('`', "'"))),
        ("Date", facts.date.clone()),
        ("Program", format!("stellar-score {}", crate::VERSION)),
        ("Source", facts.server.to_owned()),
        ("Pack", pack),
        ("Penalty policy", format!("`{}`", options.policy.as_str())),
        ("Dataset", shown(&or_all(&options.dataset)) + &revision),
        ("Split", shown(&or_all(&options.split))),
        ("Methods", shown(&methods)),
        ("Kinds of prompts", shown(&options.kinds.join(", "))),
    ];
    text.push_str("| | |\n|---|---|\n");
    for (name, value) in rows {
        let _ = writeln!(text, "| {name} | {} |", value.replace('|', "\\|"));
    }
    if facts.pack.is_some_and(|pack| pack.weights == Weights::Demo) {
        text.push_str("\n**The pack is a demo pack: these numbers mean nothing.**\n");
    }
    text.push_str("\n## Runs\n\n");
    for (method, runs) in &facts.methods {
        let _ = writeln!(text, "- {}: {}", shown(method), runs.join(", "));
    }
    text.push_str(
        "\n## Files\n\n`paper.tex` includes all tables; `pdflatex paper`, `bibtex paper` and twice \
         `pdflatex paper` make the document. CSV files have all digits. `references.bib` has the \
         sources of the metrics, models and data.\n\n| files | request | remarks |\n|---|---|---|\n",
    );
    for part in parts {
        let mut files: Vec<String> = part
            .files
            .iter()
            .filter(|file| Path::new(&file.path).extension() != Some("png".as_ref()))
            .map(|file| format!("`{}`", file.path))
            .collect();
        let images = part.files.len() - files.len();
        if images > 0 {
            files.push(format!("{images} images"));
        }
        let requests: Vec<String> =
            part.requests.iter().map(|request| format!("`{request}`")).collect();
        let remarks: Vec<String> = part.remarks.iter().map(|remark| shown(remark)).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            files.join("<br>"),
            requests.join("<br>").replace('|', "\\|"),
            remarks.join("; ").replace('|', "\\|")
        );
    }
    text.push_str("\n## Left out\n\n");
    for Missing { what, why } in missing {
        let _ = writeln!(text, "- {}: {}", shown(what), shown(why));
    }
    if missing.is_empty() {
        text.push_str("Nothing.\n");
    }
    text.push_str(
        "\n## How to read it\n\n\
         - Means, intervals and places are those of `GET /v1/leaderboard`; `docs/ANALYSIS.md` has the \
         formulas.\n\
         - Only rows over the same samples are ranked against each other.\n\
         - Published numbers were not measured here. A letter marks each that does not compare, with \
         the reason below its table and in the CSV file.\n",
    );
    text
}

/// Returns a text that Markdown shows as it is.
fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            _ if char.is_control() => shown.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' => shown.extend(['\\', char]),
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '&' => shown.push_str("&amp;"),
            _ => shown.push(char),
        }
    }
    shown
}

/// Returns the caption of a dataset's statistics.
pub(super) fn dataset_caption(dataset: &str) -> String {
    format!(
        "Prompts of {}: words and tokens with ``a person'' for the person, verbs and prepositions as \
         the parser of relations finds them. Per person: the sum over a person's prompts.",
        latex(dataset)
    )
}
