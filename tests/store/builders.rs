//! Runs, pending samples and imports for the cases.

use std::collections::BTreeMap;

use stellar_score::content::ContentHash;
use stellar_score::store::{
    NewImport, NewPending, NewSample, NewScore, PackId, RunCounts, RunFacts, RunName, RunRecord,
    SampleInputs, ScoreColumn, ScoreValue, Store,
};
use uuid::Uuid;

use crate::harness::*;

pub(crate) const FOLDER: &str = "folder";

pub(crate) fn name(run: &str) -> RunName {
    RunName::new("A", Some(run.to_owned()))
}

pub(crate) async fn new_run(store: &Store) -> RunRecord {
    store.create_run(&name("run"), &RunFacts::default(), at(0)).await.unwrap().0
}

pub(crate) async fn counts(store: &Store, run: Uuid) -> (u64, u64, u64) {
    let RunCounts { waiting, failed, scored } = store.run(run).await.unwrap().unwrap().counts;
    (waiting, failed, scored)
}

/// A pending sample of this name. Its image is determined by the name; all share one photo.
pub(crate) fn pending(run: &RunRecord, sample: &str) -> NewPending {
    let (image, photo) = (ContentHash::of(sample.as_bytes()), ContentHash::of(b"photo"));
    NewPending {
        id: Uuid::now_v7(),
        created: at(0),
        run: run.id,
        name: sample.to_owned(),
        spool: FOLDER.to_owned(),
        files: vec![(image, 10), (photo, 20)],
        pack: official(),
        service_version: "0.1.0".into(),
        max_pending: 100,
        key: None,
        inputs: SampleInputs {
            content: ContentHash::of(format!("content of {sample}").as_bytes()),
            prompt: Some("a person".into()),
            image,
            references: vec![photo],
            auxiliary: vec![],
            metadata: serde_json::json!({"identity": "000"}),
        },
    }
}

/// The pending sample with its scores.
pub(crate) fn scored_sample(new: &NewPending, scores: Vec<NewScore>) -> NewSample {
    NewSample {
        id: new.id,
        run: Some(name("run")),
        inputs: new.inputs.clone(),
        ..scored("A", &new.name, scores)
    }
}

pub(crate) fn import(run: Uuid, names: &[&str], values: &[f64]) -> NewImport {
    let value = |value: &f64| {
        if value.is_nan() {
            ScoreValue::Null { reason: "not_imported".into() }
        } else {
            ScoreValue::Number(*value)
        }
    };
    NewImport {
        run,
        created: at(0),
        pack: PackId { digest: "e".repeat(64), name: "toolkit".into(), ..official() },
        service_version: "0.1.0".into(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        contents: vec![],
        metadata: names
            .iter()
            .map(|name| serde_json::json!({"identity": name}).to_string())
            .collect(),
        columns: vec![ScoreColumn {
            metric: "m".into(),
            metric_version: 1,
            values: values.iter().map(|number| Some(value(number))).collect(),
        }],
        outcomes: BTreeMap::new(),
    }
}
