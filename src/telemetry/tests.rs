//! The names of all service metrics: conventions, and the page that lists them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use prometheus::proto::{MetricFamily, MetricType};

use super::*;
use crate::pack_id::{PackId, Weights};

/// Every family of the export: those that have no series at first get one.
fn families() -> Vec<MetricFamily> {
    let telemetry = Telemetry::new();
    telemetry.request("/v1/score", "POST", 200, Duration::from_millis(3), Some(1000));
    telemetry.admission.problem("overloaded");
    telemetry.adapters.items(crate::config::Protocol::Pickle, 2, 1);
    telemetry.runs.attempt("recorded");
    telemetry.runs.backlog(1, 2, 3);
    telemetry.runs.runs("open", 1);
    telemetry.runs.spool_bytes.set(&[], 1);
    telemetry.runs.restarts.with_label_values(&["scoring"]);
    telemetry.pack.loaded(&PackId {
        name: "p".to_owned(),
        digest: "d".to_owned(),
        weights: Weights::Demo,
    });
    telemetry.pack.certificate(CertificateState::Missing);
    traces::SPANS.with_label_values(&["exported"]);
    telemetry.runs.dispatch.of_nats().unwrap();
    telemetry.runs.dispatch.leads("finishing", true);
    telemetry.response_cache.set(&["leaderboards"], 1);
    telemetry.engine.exercise();
    telemetry.store.exercise();
    telemetry.registry.register(Box::new(Gpus::of_every_reading())).unwrap();
    telemetry.registry.gather()
}

/// The tables of docs/TELEMETRY.md: type and labels by name.
fn listed() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = include_str!("../../docs/TELEMETRY.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let words = |cell: &str| -> BTreeSet<String> {
            let words = cell.split(',').map(|word| word.trim().trim_matches('`').to_owned());
            words.filter(|word| !word.is_empty()).collect()
        };
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), words(cells[3])))
    })
    .collect()
}

#[test]
fn the_page_lists_every_metric_with_its_type_and_labels_and_no_other() {
    let exported: BTreeMap<_, _> = families()
        .iter()
        .map(|family| {
            let kind = match family.get_field_type() {
                MetricType::COUNTER => "counter",
                MetricType::GAUGE => "gauge",
                MetricType::HISTOGRAM => "histogram",
                other => panic!("{}: {other:?}", family.name()),
            };
            let labels = family.get_metric()[0].get_label();
            let labels = labels.iter().map(|label| label.name().to_owned()).collect();
            (family.name().to_owned(), (kind.to_owned(), labels))
        })
        .collect();
    let listed: BTreeMap<_, _> = listed();
    for (name, about) in &exported {
        assert_eq!(listed.get(name), Some(about), "docs/TELEMETRY.md, {name}");
    }
    for name in listed.keys() {
        assert!(
            exported.contains_key(name),
            "docs/TELEMETRY.md lists {name}, which is not exported"
        );
    }
}

/// A metric that `families` forgets is found by its name in the source.
#[test]
fn the_page_lists_every_name_in_the_source() {
    fn sources(folder: &Path, into: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                None if path.is_dir() => sources(&path, into),
                Some(kind) if kind == "rs" => into.push(path),
                _ => {}
            }
        }
    }
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 100, "the sources are there");
    let listed = listed();
    let mut found = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        if !text.contains("prometheus") {
            continue;
        }
        for name in text.split('"').filter(|literal| literal.starts_with("stellar_")) {
            let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            // Not the prefixes in tests.
            if plain && !name.ends_with('_') {
                found += 1;
                assert!(listed.contains_key(name), "{}: {name} is not in the page", file.display());
            }
        }
    }
    assert!(found >= listed.len() - 2, "names are written as literals");
}

/// Checks the rules of `promtool check metrics`.
#[test]
fn names_follow_the_conventions_of_prometheus() {
    for family in families() {
        let name = family.name();
        assert!(!family.help().is_empty(), "{name}");
        let total = name.ends_with("_total");
        let counter = family.get_field_type() == MetricType::COUNTER;
        assert_eq!(total, counter, "{name}: only counters end in _total");
        for end in ["_info", "_count", "_sum", "_bucket"] {
            let allowed = end == "_info" && family.get_field_type() == MetricType::GAUGE;
            assert!(allowed || !name.ends_with(end), "{name}");
        }
        for unit in ["_ms", "_milliseconds", "_mib", "_kib", "_minutes"] {
            assert!(!name.contains(unit), "{name} is not in a base unit");
        }
    }
}

#[test]
fn exported_names_have_the_prefix() {
    let telemetry = Telemetry::new();
    telemetry.request("/v1/score", "POST", 200, Duration::from_millis(3), Some(1000));
    let text = telemetry.export();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("stellar_") || line.starts_with("process_"), "{line}");
    }
    assert!(text.contains(
        r#"stellar_http_requests_total{method="POST",route="/v1/score",status="200"} 1"#
    ));
}
