//! Imported and run-wide scores.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use stellar_score::content::ContentHash;
use stellar_score::store::{
    AttributeLabels, NewImport, NewSample, RunWideScore, RunWideScores, SampleStatus, ScoreValue,
};
use uuid::Uuid;

use crate::builders::{counts, import, new_run};
use crate::harness::*;

pub(crate) async fn imported_scores_coexist_with_computed_ones(db: Database) {
    let store = db.open().await;
    let computed = scored("A", "2", vec![number("m", 9.0)]);
    let run = store.record(&computed).await.unwrap().run.unwrap();
    let new = import(run, &["3", "2", "1"], &[0.25, 0.75, f64::NAN]);
    let imported = store.import(&new).await.unwrap().unwrap();
    assert_eq!((imported.samples, imported.scores), (2, 3));
    assert_eq!(counts(&store, run).await, (0, 0, 3));
    let both = store.sample(computed.id).await.unwrap().unwrap();
    assert_eq!(
        both.scores.iter().map(|score| score.value.number()).collect::<Vec<_>>(),
        [Some(9.0), Some(0.75)]
    );
    let packs: Vec<_> =
        store.run_packs(run).await.unwrap().into_iter().map(|pack| pack.name).collect();
    assert_eq!(packs, ["official", "toolkit"]);
    let board = by_run(&store).await;
    let row = board.rows.iter().find(|row| row.pack == new.pack).unwrap();
    let std = 0.5 / 2.0_f64.sqrt();
    let summary = &row.metrics[0].summary;
    assert_eq!((summary.n, summary.nulls, summary.mean), (2, 1, Some(0.5)));
    assert!((summary.std.unwrap() - std).abs() < 1e-12);

    let fresh = store.accepted_samples(run, None, "2", 1).await.unwrap().unwrap();
    let SampleStatus::Scored(id) = fresh[0].at else { panic!("{fresh:?}") };
    let read = store.sample(id).await.unwrap().unwrap();
    assert_eq!((read.image, read.metadata), (None, serde_json::json!({"identity": "3"})));
    assert!(
        store.delete_sample(id).await.unwrap().is_some(),
        "a sample without an image can be deleted"
    );
    assert_eq!(store.import(&NewImport { run: Uuid::now_v7(), ..new }).await.unwrap(), None);
}

pub(crate) async fn the_attribute_table_of_a_run_is_bounded(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await.id;
    // Each sample has its own attribute: few values to store, but a quadratic table.
    let names: Vec<String> = (0..2_900).map(|at| format!("{at:04}")).collect();
    let column =
        |at: usize| (0..names.len()).map(|of| (of == at).then_some((true, true))).collect();
    let new = NewImport {
        names: names.clone(),
        metadata: vec!["{}".to_owned(); names.len()],
        columns: vec![],
        outcomes: names.iter().enumerate().map(|(at, name)| (name.clone(), column(at))).collect(),
        ..import(run, &[], &[])
    };
    store.import(&new).await.unwrap();
    let some = &names[..100];
    assert_eq!(store.outcomes(run, &new.pack.digest, some).await.unwrap().len(), 100);
    let error = store.outcomes(run, &new.pack.digest, &names).await.unwrap_err().to_string();
    assert!(error.contains("attributes of 2900 samples"), "{error}");
}

pub(crate) async fn invalid_numbers_are_not_imported(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await.id;
    for number in [f64::INFINITY, 1e101, -1e308] {
        let error = store.import(&import(run, &["1"], &[number])).await.unwrap_err().to_string();
        assert!(error.contains("finite"), "{error}");
    }
    assert_eq!(counts(&store, run).await, (0, 0, 0));
}

pub(crate) async fn a_repeated_import_replaces_the_scores_of_its_source(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await.id;
    store.import(&import(run, &["1", "2"], &[1.0, 2.0])).await.unwrap();
    let again = store.import(&import(run, &["2", "3"], &[4.0, 7.0])).await.unwrap().unwrap();
    assert_eq!((again.samples, again.scores), (1, 2));
    let summary = only_summary(&store).await;
    assert_eq!((summary.n, summary.mean), (3, Some(4.0)));
    let mut newer = import(run, &["1"], &[10.0]);
    newer.columns[0].metric_version = 2;
    store.import(&newer).await.unwrap();
    let board = by_run(&store).await;
    let versions: Vec<_> = board.rows[0]
        .metrics
        .iter()
        .map(|m| (m.summary.version, m.summary.n, m.summary.mean))
        .collect();
    assert_eq!(versions, [(1, 2, Some(5.5)), (2, 1, Some(10.0))]);
}

pub(crate) async fn scores_of_a_whole_run_are_added_once(db: Database) {
    let store = db.open().await;
    let one = scored("A", "1", vec![number("m", 0.5)]);
    let mut two = scored("A", "2", vec![number("aps", 0.125)]);
    two.inputs.image = ContentHash::of(b"another image");
    let run = store.record(&one).await.unwrap().run.unwrap();
    store.record(&two).await.unwrap();
    let outcomes: AttributeLabels = BTreeMap::from([("Young".to_owned(), (true, false))]);
    let score = |sample: &NewSample| RunWideScore {
        sample: sample.id,
        value: ScoreValue::Number(0.75),
        outcomes: Some(outcomes.clone()),
        images: vec![sample.inputs.image, sample.inputs.references[0]],
    };
    let wide = RunWideScores {
        run,
        created: at(0),
        pack: official(),
        service_version: "0.1.0".into(),
        metric: "aps".into(),
        metric_version: 1,
        graphs: None,
        scores: vec![score(&one), score(&two), score(&scored("A", "3", vec![]))],
    };
    assert_eq!(
        store.add_run_wide(&wide).await.unwrap(),
        1,
        "existing scores stay, and deleted samples get none"
    );
    assert_eq!(store.add_run_wide(&wide).await.unwrap(), 0);
    let board = by_run(&store).await;
    let rows = summaries(&board.rows[0]);
    let aps = rows.iter().find(|summary| summary.metric == "aps").unwrap();
    assert_eq!((aps.n, aps.mean), (2, Some(0.4375)));
    let names = ["1", "2", "3"].map(str::to_owned);
    let read = store.outcomes(run, &official().digest, &names).await.unwrap();
    let column = vec![Some((true, false)), Some((true, false)), None];
    assert_eq!(read, BTreeMap::from([("Young".to_owned(), column)]));
    assert!(store.outcomes(run, "other", &names).await.unwrap().is_empty());
    // Deleting either image deletes the predictions on its face and invalidates cached tables.
    for image in [one.inputs.references[0], two.inputs.image] {
        let before = store.run(run).await.unwrap().unwrap().revision;
        store.delete_image(image).await.unwrap().expect("it is known");
        assert!(
            store.run(run).await.unwrap().unwrap().revision > before,
            "a cached report uses {image}"
        );
    }
    assert_eq!(db.count("attribute_outcomes").await, 0);
    // The faces of the second image were deleted while the scores were computed.
    let graphs = ContentHash::of(b"graphs");
    for image in [one.inputs.image, one.inputs.references[0], two.inputs.references[0]] {
        store.save_faces(&crate::datasets::faces(image)).await.unwrap();
    }
    let wide = RunWideScores { metric: "again".into(), graphs: Some(graphs), ..wide };
    assert_eq!(store.add_run_wide(&wide).await.unwrap(), 2, "the scores stay");
    let read = store.outcomes(run, &official().digest, &names).await.unwrap();
    assert_eq!(read["Young"], [Some((true, false)), None, None]);
    assert!(store.delete_run(run).await.unwrap().is_some());
    assert_eq!(db.count("attribute_outcomes").await, 0);
}

pub(crate) async fn an_import_of_many_statements_is_complete(db: Database) {
    const MANY: usize = 10_003;
    let store = db.open().await;
    let run = new_run(&store).await.id;
    // Unordered names, so that ids and names sort differently.
    let names: Vec<String> = (0..MANY).map(|at| format!("{:05}", at * 11 % MANY)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let values: Vec<f64> = names.iter().map(|name| name.parse::<f64>().unwrap() / 64.0).collect();
    let mut new = import(run, &names, &values);
    let outcomes = names.iter().map(|name| Some((name.ends_with('1'), true))).collect();
    new.outcomes = BTreeMap::from([("Young".to_owned(), outcomes)]);
    let done = store.import(&new).await.unwrap().unwrap();
    assert_eq!((done.samples, done.scores), (MANY as u64, MANY as u64));
    assert_eq!(counts(&store, run).await, (0, 0, MANY as u64));
    let data = store.run_data(run, None).await.unwrap().unwrap();
    assert!(data.names.is_sorted());
    let read: Vec<f64> = data.metrics["m"].values.iter().copied().map(Option::unwrap).collect();
    assert_eq!(read, (0..MANY).map(|at| at as f64 / 64.0).collect::<Vec<_>>());
    assert_eq!(data.identities[77].as_deref(), Some("00077"));
    let outcomes = &store.outcomes(run, &new.pack.digest, &data.names).await.unwrap()["Young"];
    assert!((0..MANY).all(|at| outcomes[at] == Some((at % 10 == 1, true))));
    let summary = only_summary(&store).await;
    assert_eq!((summary.n, summary.mean), (MANY as u64, Some((MANY - 1) as f64 / 128.0)));
    let again = store.import(&new).await.unwrap().unwrap();
    assert_eq!((again.samples, again.scores), (0, MANY as u64));
    assert_eq!(only_summary(&store).await, summary);
}

pub(crate) async fn concurrent_imports_are_all_summarised(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await.id;
    let parts = (0..8).map(|part| {
        let store = store.clone();
        tokio::spawn(async move {
            let names: Vec<String> = (0..50).map(|at| format!("{part}-{at}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            store.import(&import(run, &names, &[f64::from(part); 50])).await.unwrap().unwrap()
        })
    });
    for done in join_all(parts).await {
        assert_eq!(done.unwrap().samples, 50);
    }
    let summary = only_summary(&store).await;
    assert_eq!((summary.n, summary.mean), (400, Some(3.5)));
}
