//! `stellar-score compare`: compares two runs, as a table and as a gate in training pipelines.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;

use super::{
    output::print,
    server::{ServerArgs, find_run},
    submit::PolicyArg,
};
use crate::{
    analysis::{Comparison, Difference, Finding},
    metrics,
    stats::FEW_CLUSTERS,
};

/// Exit status of a gate that finds a run worse. 1 is for failures and 2 for wrong arguments.
const WORSE: u8 = 3;

const EXAMPLES: &str = "\
Examples:
  stellar-score compare mine/step-2000 mine/step-1000
  stellar-score compare mine/new mine/old --fail-if-worse ips,clip_t

Exit status: 0 if no metric of --fail-if-worse is significantly worse, 3 if one
is, 1 if the comparison is not possible (unknown run, metric without numbers), 2
for wrong arguments. A metric is significantly worse if the whole confidence
interval of the difference lies on the worse side. Without a true difference,
(1 - confidence)/2 of the comparisons fail the gate, 2.5 % by default. With
several metrics, this error rate is divided among them, so that it holds for the
gate as a whole.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompareArgs {
    /// The run to judge: METHOD/RUN, METHOD or an id
    #[arg(value_name = "A")]
    a: String,
    /// The run to compare with
    #[arg(value_name = "B")]
    b: String,
    /// Exit with status 3 if A is significantly worse than B in one of these metrics
    #[arg(long, value_name = "METRICS", value_delimiter = ',')]
    fail_if_worse: Vec<String>,
    /// Compare only these metrics
    #[arg(long, value_name = "METRICS", value_delimiter = ',')]
    metrics: Vec<String>,
    /// Coverage of the confidence intervals
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    confidence: f64,
    /// Penalty policy for images that do not follow their prompt
    #[arg(long, value_enum, default_value_t = PolicyArg::Stellar)]
    policy: PolicyArg,
    /// Also compare slices
    #[arg(long)]
    slices: bool,
    /// Print the server's response as JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(flatten)]
    comparison: Comparison,
}

pub(super) async fn run(args: CompareArgs) -> anyhow::Result<ExitCode> {
    let confidence = confidence(args.confidence, args.fail_if_worse.len())?;
    let mut wanted = args.metrics.clone();
    if !wanted.is_empty() {
        wanted
            .extend(args.fail_if_worse.iter().filter(|code| !args.metrics.contains(code)).cloned());
    }
    for code in &args.fail_if_worse {
        let metric = metrics::find(code).ok_or_else(|| metrics::ListError::unknown(code))?;
        anyhow::ensure!(
            metric.direction != metrics::Direction::Support,
            "{code} has no direction: --fail-if-worse takes metrics with a better and a worse side"
        );
    }
    let client = args.server.client()?;
    let (a, b) = (find_run(&client, &args.a).await?, find_run(&client, &args.b).await?);
    let (id_a, id_b) = (a.run_id.to_string(), b.run_id.to_string());
    let (confidence_text, slices) = (confidence.to_string(), args.slices.to_string());
    let metrics_text = wanted.join(",");
    let mut query =
        vec![("policy", args.policy.name()), ("confidence", &confidence_text), ("slices", &slices)];
    if !wanted.is_empty() {
        query.push(("metrics", &metrics_text));
    }
    let parts = ["v1", "runs", &id_a, "compare", &id_b];
    let answer = client.send(&parts, |http, url| http.get(url).query(&query)).await;
    let answer = answer.with_context(|| format!("{} and {} cannot be compared", args.a, args.b))?;
    let Answer { comparison } = answer.json()?;
    if args.json {
        print(&(answer.text()? + "\n"))?;
    } else {
        print(&table(&comparison, &args.a, &args.b))?;
    }
    let worse = worse(&comparison, &args.fail_if_worse)?;
    if worse.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!("{} is worse than {} in {}\n", args.a, args.b, worse.join(", ")))?;
    Ok(ExitCode::from(WORSE))
}

/// Returns the coverage for each of `gates` metrics (Bonferroni), so that the gate as a whole has
/// the type I error of a single metric.
fn confidence(asked: f64, gates: usize) -> anyhow::Result<f64> {
    anyhow::ensure!(
        (0.5..=0.999).contains(&asked),
        "--confidence is {asked}: it must be 0.5 to 0.999"
    );
    Ok((1.0 - (1.0 - asked) / gates.max(1) as f64).min(0.999))
}

/// Metrics of the gate in which A is significantly worse.
fn worse(comparison: &Comparison, gates: &[String]) -> anyhow::Result<Vec<String>> {
    let whole = &comparison.slices[0].metrics;
    let mut worse = Vec::new();
    for code in gates {
        let Some(found) = whole.iter().find(|of| of.metric == *code) else {
            anyhow::bail!(
                "{code} cannot be compared: the runs do not both have scores of it for the same \
                    prompts"
            );
        };
        anyhow::ensure!(
            found.low.is_some(),
            "{code} cannot be judged: all pairs are of one identity, so there is no interval"
        );
        if found.finding == Finding::Worse {
            worse.push(code.clone());
        }
    }
    Ok(worse)
}

fn table(comparison: &Comparison, a: &str, b: &str) -> String {
    let mut text = format!(
        "{a} against {b}: {} pairs ({} and {} samples without a partner), policy {}, confidence \
            intervals clustered by identity, coverage {:.4}\n",
        comparison.pairs,
        comparison.only_a,
        comparison.only_b,
        comparison.policy.as_str(),
        comparison.confidence
    );
    for slice in &comparison.slices {
        if !slice.kind.is_empty() {
            let _ = writeln!(text, "\n{} {} ({} pairs)", slice.kind, slice.label, slice.pairs);
        }
        let _ = writeln!(
            text,
            "{:<14} {:>7} {:>9} {:>9} {:>10} {:>24} {:>6} {:>8} {:>8}  finding",
            "metric", "pairs", "A", "B", "A - B", "interval", "wins", "p", "p Holm"
        );
        for of in &slice.metrics {
            let _ = writeln!(text, "{}", line(of));
        }
    }
    let few = comparison.slices.iter().flat_map(|slice| &slice.metrics).any(|of| of.few_clusters);
    if few {
        let _ = writeln!(
            text,
            "* fewer than {FEW_CLUSTERS} identities: the interval is based on few clusters and \
                assumes that their differences vary alike"
        );
    }
    if !comparison.not_compared.is_empty() {
        let _ = writeln!(
            text,
            "not available in both runs in the same version: {}",
            comparison.not_compared.join(", ")
        );
    }
    text
}

fn line(of: &Difference) -> String {
    let some = |number: Option<f64>, digits: usize| {
        number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
    };
    let interval = match of.low.zip(of.high) {
        Some((low, high)) => {
            format!("[{low:+.5}, {high:+.5}]{}", if of.few_clusters { "*" } else { "" })
        }
        None => "-".to_owned(),
    };
    let finding = match of.finding {
        Finding::Better => "better",
        Finding::Worse => "worse",
        Finding::Undecided => "undecided",
    };
    format!(
        "{:<14} {:>7} {:>9.4} {:>9.4} {:>+10.5} {interval:>24} {:>6} {:>8} {:>8}  {finding}",
        of.metric,
        of.n,
        of.mean_a,
        of.mean_b,
        of.difference,
        some(of.win_rate, 3),
        some(of.p, 4),
        some(of.p_holm, 4),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::SliceComparison;

    fn comparison(finding: Finding, low: Option<f64>) -> Comparison {
        let of = Difference {
            metric: "ips".into(),
            version: 1,
            n: 10,
            clusters: 5,
            few_clusters: true,
            mean_a: 0.5,
            mean_b: 0.6,
            difference: -0.1,
            low,
            high: low.map(|low| low + 0.15),
            no_interval: None,
            win_rate: Some(0.2),
            p: Some(0.03),
            p_holm: None,
            p_bh: None,
            finding,
        };
        Comparison {
            policy: crate::analysis::Policy::Stellar,
            confidence: 0.95,
            pairs: 10,
            only_a: 0,
            only_b: 1,
            not_compared: vec!["goa".into()],
            slices: vec![SliceComparison {
                kind: String::new(),
                label: String::new(),
                pairs: 10,
                metrics: vec![of],
            }],
        }
    }

    #[test]
    fn only_an_interval_on_the_worse_side_fails_the_gate() {
        let gate = ["ips".to_owned()];
        assert_eq!(worse(&comparison(Finding::Worse, Some(-0.2)), &gate).unwrap(), gate);
        assert!(worse(&comparison(Finding::Undecided, Some(-0.1)), &gate).unwrap().is_empty());
        assert!(worse(&comparison(Finding::Better, Some(0.1)), &gate).unwrap().is_empty());
        assert!(worse(&comparison(Finding::Worse, Some(-0.2)), &[]).unwrap().is_empty(), "no gate");
    }

    #[test]
    fn a_gate_that_cannot_be_judged_never_passes() {
        assert!(worse(&comparison(Finding::Undecided, Some(0.0)), &["sis".to_owned()]).is_err());
        assert!(worse(&comparison(Finding::Undecided, None), &["ips".to_owned()]).is_err());
    }

    #[test]
    fn several_gates_share_the_type_i_error() {
        assert!((confidence(0.95, 1).unwrap() - 0.95).abs() < 1e-12);
        assert!((confidence(0.95, 5).unwrap() - 0.99).abs() < 1e-12);
        assert!(confidence(1.0, 1).is_err());
    }

    #[test]
    fn the_table_names_what_it_compares() {
        let text = table(&comparison(Finding::Worse, Some(-0.2)), "new", "old");
        for words in [
            "new against old: 10 pairs",
            "[-0.20000, -0.05000]*",
            "fewer than 8 identities",
            "worse",
            "in the same version: goa",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
