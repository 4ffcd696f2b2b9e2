//! Correlations within prompts, and the numbers of two benchmarks in one run, match those that
//! `scripts/benchmarks_fixtures.py` computed with numpy, scipy and scikit-learn.

use std::collections::BTreeMap;

use serde::Deserialize;
use stellar_score::analysis::{Coefficient, add_intervals, correlations, family_pairs, summarise};
use stellar_score::metrics::Family;
use stellar_score::store::{
    APS_AREA, MetricColumn, Outcomes, RelationKinds, RunData, RunName, Slice, SliceSummary,
};

#[derive(Deserialize)]
struct WithinCase {
    columns: Vec<Vec<Option<f64>>>,
    prompts: Vec<usize>,
    identities: Vec<String>,
    cells: Vec<CellCase>,
    families: Vec<Family>,
    family_pairs: Vec<(Family, Family, usize, f64)>,
}

#[derive(Deserialize)]
struct CellCase {
    coefficient: Coefficient,
    row: usize,
    column: usize,
    value: Option<f64>,
    n: usize,
    prompts: usize,
    low: Option<f64>,
    high: Option<f64>,
}

#[derive(Deserialize)]
struct BenchmarkCase {
    kinds: Vec<String>,
    identities: Vec<String>,
    clip_n: Vec<Option<f64>>,
    clip_t: Vec<Option<f64>>,
    ips: Vec<Option<f64>>,
    attributes: Outcomes,
    expected: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    kind: Option<String>,
    policy: String,
    penalised: u64,
    ips: f64,
    area: f64,
    shares: BTreeMap<String, f64>,
}

fn close(found: Option<f64>, expected: Option<f64>, what: &str) {
    match (found, expected) {
        (Some(found), Some(expected)) => {
            assert!((found - expected).abs() <= 1e-9, "{what}: {found} is not {expected}");
        }
        (found, expected) => assert_eq!(found, expected, "{what}"),
    }
}

#[test]
fn correlations_within_prompts_match_numpy() {
    let cases: Vec<WithinCase> =
        serde_json::from_str(include_str!("../data/stats/within.json")).unwrap();
    let (mut intervals, mut none) = (0, 0);
    for (case, of) in cases.iter().enumerate() {
        let columns: Vec<&[Option<f64>]> = of.columns.iter().map(Vec::as_slice).collect();
        let identities: Vec<Option<String>> = of.identities.iter().cloned().map(Some).collect();
        let prompts = Some(&of.prompts[..]);
        for coefficient in [Coefficient::Kendall, Coefficient::Spearman, Coefficient::Pearson] {
            let mut matrix = correlations(&columns, coefficient, prompts);
            let name = |at: usize| at.to_string();
            add_intervals(&mut matrix, &columns, coefficient, prompts, &identities, name);
            let cells = of.cells.iter().filter(|cell| cell.coefficient == coefficient);
            for cell in cells {
                let what = format!("{case} {coefficient:?} {} {}", cell.row, cell.column);
                let found = matrix[cell.row][cell.column];
                close(found.value, cell.value, &what);
                close(found.low, cell.low, &what);
                close(found.high, cell.high, &what);
                assert_eq!((found.n, found.prompts), (cell.n, Some(cell.prompts)), "{what}");
                intervals += usize::from(cell.low.is_some());
                none += usize::from(cell.low.is_none());
            }
            if coefficient == Coefficient::Kendall {
                let found = family_pairs(&matrix, &of.families);
                let expected: BTreeMap<_, _> = of
                    .family_pairs
                    .iter()
                    .map(|(a, b, pairs, mean)| ((*a.min(b), *a.max(b)), (*pairs, *mean)))
                    .collect();
                assert_eq!(found.len(), expected.len());
                for pair in found {
                    let (pairs, mean) = expected[&(pair.a, pair.b)];
                    assert_eq!(pair.pairs, pairs);
                    close(Some(pair.mean_absolute), Some(mean), "mean of families");
                }
            }
        }
    }
    assert!(intervals > 20 && none > 5, "{intervals} {none}");
}

fn run(of: &BenchmarkCase) -> RunData {
    let samples = of.kinds.len();
    let column = |values: &Vec<Option<f64>>| MetricColumn {
        version: 1,
        values: values.clone(),
        ..<_>::default()
    };
    RunData {
        run: uuid::Uuid::nil(),
        name: RunName::new("A", None),
        pack: None,
        names: (0..samples).map(|at| format!("{at:03}")).collect(),
        identities: of.identities.iter().cloned().map(Some).collect(),
        prompt_kinds: of.kinds.iter().cloned().map(Some).collect(),
        categories: vec![Vec::new(); samples],
        attributes: BTreeMap::new(),
        relations: vec![RelationKinds::default(); samples],
        labels: BTreeMap::new(),
        sizes: vec![None; samples],
        metrics: BTreeMap::from([
            ("aps".to_owned(), column(&vec![Some(0.5); samples])),
            ("clip_n".to_owned(), column(&of.clip_n)),
            ("clip_t".to_owned(), column(&of.clip_t)),
            ("ips".to_owned(), column(&of.ips)),
        ]),
    }
}

#[test]
fn benchmarks_of_one_run_match_the_definition() {
    let cases: Vec<BenchmarkCase> =
        serde_json::from_str(include_str!("../data/stats/benchmarks.json")).unwrap();
    for of in &cases {
        let summary = summarise(&run(of), &of.attributes);
        let find = |slice: &Slice, metric: &str, policy: &str| -> SliceSummary {
            let wanted = |row: &&SliceSummary| {
                row.slice == *slice && row.metric == metric && row.policy == policy
            };
            summary.slices.iter().find(wanted).unwrap().clone()
        };
        for expected in &of.expected {
            let slice = match &expected.kind {
                Some(kind) => Slice::new(Slice::PROMPT_KIND, kind.clone()),
                None => Slice::all(),
            };
            let what = format!("{:?} {}", expected.kind, expected.policy);
            let ips = find(&slice, "ips", &expected.policy);
            close(ips.mean, Some(expected.ips), &what);
            assert_eq!(ips.penalised, expected.penalised, "{what}");
            let area = find(&slice, APS_AREA, &expected.policy);
            close(area.mean, Some(expected.area), &what);
            if expected.kind.is_none() {
                for (name, share) in &expected.shares {
                    let slice = Slice::new(Slice::APS_ATTRIBUTE, name.clone());
                    close(find(&slice, "aps", &expected.policy).mean, Some(*share), name);
                }
            }
        }
    }
}
