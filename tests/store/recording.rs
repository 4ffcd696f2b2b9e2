//! Recorded samples, and when two of them are the same.

use stellar_score::content::ContentHash;
use stellar_score::store::{
    MAX_NAME_BYTES, NewSample, RecordOutcome, RunName, SampleInputs, SampleRecord, ScoreRecord,
    ScoreValue, Store, StoreError, StoredImage,
};
use time::{Duration, UtcOffset};
use uuid::Uuid;

use crate::harness::*;

async fn read(store: &Store, id: Uuid) -> SampleRecord {
    store.sample(id).await.unwrap().expect("the sample is there")
}

pub(crate) async fn a_recorded_sample_reads_back_as_it_was(db: Database) {
    let store = db.open().await;
    let mut new = scored(
        "StellarNet",
        "0001",
        vec![number("clip_t", 0.1 + 0.2), null("ips", "no_face_in_reference")],
    );
    new.scores[0].flags = vec!["truncated".into()];
    new.inputs.auxiliary = vec![ContentHash::of(b"x"), ContentHash::of(b"y")];
    new.inputs.metadata =
        serde_json::json!({"z": 1e16, "a": [null, true, "\u{0}\u{1f600}"], "f": -0.0});
    // Another offset, and more digits than are stored.
    new.created = (at(7) + Duration::nanoseconds(123_456_789))
        .to_offset(UtcOffset::from_hms(5, 30, 0).unwrap());

    let recorded = store.record(&new).await.unwrap();
    assert_eq!((recorded.sample, recorded.outcome), (new.id, RecordOutcome::Created));
    assert!(recorded.run.is_some());

    let created = at(7) + Duration::nanoseconds(123_456_000);
    let entry = |metric: &str, value, flags: &[&str]| ScoreRecord {
        metric: metric.into(),
        metric_version: 1,
        value,
        flags: flags.iter().map(|&flag| flag.into()).collect(),
        pack: official(),
        service_version: "0.1.0".into(),
        created,
    };
    let expected = SampleRecord {
        run_id: recorded.run,
        id: new.id,
        run: new.run.clone(),
        name: "0001".into(),
        content: new.inputs.content.to_hex(),
        prompt: new.inputs.prompt.clone(),
        image: Some(StoredImage { hash: new.inputs.image, width: 1024, height: 768 }),
        references: vec![ContentHash::of(b"reference").to_hex()],
        auxiliary: vec![ContentHash::of(b"x").to_hex(), ContentHash::of(b"y").to_hex()],
        metadata: new.inputs.metadata.clone(),
        created,
        scores: vec![
            entry("clip_t", ScoreValue::Number(0.1 + 0.2), &["truncated"]),
            entry("ips", ScoreValue::Null { reason: "no_face_in_reference".into() }, &[]),
        ],
    };
    let found = read(&store, new.id).await;
    assert_eq!(found, expected);
    assert_eq!(found.created.offset(), UtcOffset::UTC);
}

pub(crate) async fn an_unknown_sample_is_none(db: Database) {
    let store = db.open().await;
    store.record(&sample("A", "1")).await.unwrap();
    assert_eq!(store.sample(Uuid::now_v7()).await.unwrap(), None);
}

pub(crate) async fn recording_again_returns_the_first_sample_and_counts_once(db: Database) {
    let store = db.open().await;
    let first = scored("A", "1", vec![number("m", 0.5)]);
    let recorded = store.record(&first).await.unwrap();
    // Slightly different, as another batch may compute it: the first number stays.
    let again = NewSample { created: at(1), ..scored("A", "1", vec![number("m", 0.5 + 1e-9)]) };
    let repeated = store.record(&again).await.unwrap();

    assert_eq!(repeated.outcome, RecordOutcome::Repeated);
    assert_eq!((repeated.sample, repeated.run), (recorded.sample, recorded.run));
    assert_eq!(only_summary(&store).await, summary(1, 0, Some(0.5), None));
    assert_eq!(read(&store, first.id).await.scores[0].value, ScoreValue::Number(0.5));
    assert_eq!(db.count("samples").await, 1);
    assert_eq!(db.count("scores").await, 1);
}

pub(crate) async fn the_same_name_with_other_content_is_a_conflict(db: Database) {
    let store = db.open().await;
    let first = scored("A", "1", vec![number("m", 0.5)]);
    store.record(&first).await.unwrap();
    let mut other = scored("A", "1", vec![number("m", 0.9)]);
    other.inputs.content = ContentHash::of(b"other");
    let error = store.record(&other).await.unwrap_err();

    assert!(
        matches!(&error, StoreError::SampleConflict { run, name, existing }
            if *run == RunName::new("A", Some("run".into())) && name == "1" && *existing == first.id),
        "{error:?}"
    );
    let message = error.to_string();
    assert!(
        message.contains("A/run")
            && message.contains("\"1\"")
            && message.contains(&first.id.to_string())
    );
    assert_eq!(only_summary(&store).await, summary(1, 0, Some(0.5), None));
}

pub(crate) async fn the_same_name_is_free_in_another_run(db: Database) {
    let store = db.open().await;
    store.record(&sample("A", "1")).await.unwrap();
    let mut other = sample("A", "1");
    other.inputs.content = ContentHash::of(b"other");
    for run in [RunName::new("A", Some("second".into())), RunName::new("B", Some("run".into()))] {
        let recorded =
            store.record(&NewSample { id: Uuid::now_v7(), run: Some(run), ..other.clone() }).await;
        assert_eq!(recorded.unwrap().outcome, RecordOutcome::Created);
    }
    assert_eq!(db.count("methods").await, 2);
    assert_eq!(db.count("runs").await, 3);
}

pub(crate) async fn an_unnamed_sample_is_identified_by_its_content(db: Database) {
    let store = db.open().await;
    let unnamed = NewSample { name: None, ..sample("A", "x") };
    let first = store.record(&unnamed).await.unwrap();
    let again = store.record(&NewSample { id: Uuid::now_v7(), ..unnamed.clone() }).await.unwrap();
    assert_eq!((again.sample, again.outcome), (first.sample, RecordOutcome::Repeated));
    assert_eq!(read(&store, first.sample).await.name, unnamed.inputs.content.to_hex());

    let other = NewSample {
        id: Uuid::now_v7(),
        inputs: SampleInputs { content: ContentHash::of(b"other"), ..unnamed.inputs },
        ..unnamed
    };
    assert_eq!(store.record(&other).await.unwrap().outcome, RecordOutcome::Created);
}

pub(crate) async fn a_sample_outside_any_run_is_always_new(db: Database) {
    let store = db.open().await;
    let loose = NewSample { run: None, ..scored("", "1", vec![number("m", 0.5)]) };
    let first = store.record(&loose).await.unwrap();
    let second = store.record(&NewSample { id: Uuid::now_v7(), ..loose }).await.unwrap();
    for recorded in [first, second] {
        assert_eq!((recorded.run, recorded.outcome), (None, RecordOutcome::Created));
        assert_eq!(read(&store, recorded.sample).await.run, None);
    }
    assert_ne!(first.sample, second.sample);
    assert!(by_run(&store).await.rows.is_empty(), "it is on no leaderboard");
}

pub(crate) async fn a_method_without_a_run_has_a_default_run(db: Database) {
    let store = db.open().await;
    let new = NewSample { run: Some(RunName::new("A", None)), ..sample("", "1") };
    let recorded = store.record(&new).await.unwrap();
    let run = read(&store, recorded.sample).await.run.unwrap();
    assert_eq!((run.method.as_str(), run.run.as_str()), ("A", RunName::DEFAULT));
}

pub(crate) async fn further_metrics_are_added_to_a_sample(db: Database) {
    let store = db.open().await;
    let first = store.record(&scored("A", "1", vec![number("clip_t", 0.5)])).await.unwrap();
    let more =
        vec![number("clip_t", 0.75), number("dino", 0.25), null("ips", "no_face_in_reference")];
    let second = store.record(&scored("A", "1", more.clone())).await.unwrap();
    assert_eq!((second.sample, second.outcome), (first.sample, RecordOutcome::Rescored));
    let third = store.record(&scored("A", "1", more)).await.unwrap();
    assert_eq!((third.sample, third.outcome), (first.sample, RecordOutcome::Repeated));

    let page = by_run(&store).await;
    let rows = summaries(&page.rows[0]);
    let found: Vec<_> = rows.iter().map(|m| (m.metric.as_str(), m.n, m.nulls, m.mean)).collect();
    assert_eq!(
        found,
        [("clip_t", 1, 0, Some(0.5)), ("dino", 1, 0, Some(0.25)), ("ips", 0, 1, None)]
    );
}

pub(crate) async fn another_version_replaces_the_score(db: Database) {
    let store = db.open().await;
    let first = store.record(&scored("A", "1", vec![number("m", 0.5)])).await.unwrap();
    let newer = NewSample {
        created: at(5),
        service_version: "0.2.0".into(),
        ..scored("A", "1", vec![versioned("m", 2, 0.75)])
    };
    let second = store.record(&newer).await.unwrap();
    assert_eq!((second.sample, second.outcome), (first.sample, RecordOutcome::Rescored));

    let scores = read(&store, first.sample).await.scores;
    assert_eq!(scores.len(), 1);
    assert_eq!((scores[0].metric_version, &scores[0].value), (2, &ScoreValue::Number(0.75)));
    assert_eq!((scores[0].service_version.as_str(), scores[0].created), ("0.2.0", at(5)));
    let summary = only_summary(&store).await;
    assert_eq!((summary.version, summary.n, summary.mean), (2, 1, Some(0.75)));
}

pub(crate) async fn another_pack_adds_its_own_scores(db: Database) {
    let store = db.open().await;
    let first = store.record(&scored("A", "1", vec![number("m", 0.5)])).await.unwrap();
    let other = NewSample { pack: demo(), ..scored("A", "1", vec![number("m", 0.25)]) };
    let second = store.record(&other).await.unwrap();
    assert_eq!((second.sample, second.outcome), (first.sample, RecordOutcome::Rescored));
    let scores = read(&store, first.sample).await.scores;
    let found: Vec<_> =
        scores.iter().map(|score| (score.pack.clone(), score.value.number())).collect();
    assert_eq!(found, [(demo(), Some(0.25)), (official(), Some(0.5))]);
}

pub(crate) async fn unusual_names_and_texts_are_stored_verbatim(db: Database) {
    let store = db.open().await;
    let longest = "n".repeat(MAX_NAME_BYTES);
    let thousand = "1000 characters".chars().cycle().take(1000).collect::<String>();
    let names = [
        "O'Brien \"quoted\" \\ $1 ?1 :x @y; DROP TABLE samples; --",
        "👩‍🚀🧑🏽‍🎨 e\u{301} é ﬁ Ω\u{3c2}",
        " leading and trailing ",
        "\t\n\u{1}\u{7f}\u{feff}\u{202e}",
        "%_*",
        "NULL",
        &thousand,
        &longest,
    ];
    for name in names {
        let mut new = scored(name, name, vec![number("m", 0.5)]);
        new.run = Some(RunName::new(name, Some(name.into())));
        new.inputs.prompt = Some(name.repeat(3));
        let recorded = store.record(&new).await.unwrap();
        let found = read(&store, recorded.sample).await;
        assert_eq!(found.run, new.run);
        assert_eq!((found.name.as_str(), &found.prompt), (name, &new.inputs.prompt));
        assert_eq!(store.record(&new).await.unwrap().outcome, RecordOutcome::Repeated, "{name:?}");
    }
    assert_eq!(db.count("samples").await, names.len());
    assert_eq!(by_run(&store).await.rows.len(), names.len());
}

pub(crate) async fn invalid_names_are_refused(db: Database) {
    let store = db.open().await;
    let bad = [String::new(), "n".repeat(MAX_NAME_BYTES + 1), "zero\0".into()];
    for name in bad {
        let base = scored("A", "1", vec![number("m", 0.5)]);
        let run = |method: &str, run: &str| Some(RunName::new(method, Some(run.to_owned())));
        for new in [
            NewSample { run: run(&name, "run"), ..base.clone() },
            NewSample { run: run("A", &name), ..base.clone() },
            NewSample { name: Some(name.clone()), ..base.clone() },
            NewSample { scores: vec![number(&name, 0.5)], ..base.clone() },
            NewSample { scores: vec![null("m", &name)], ..base.clone() },
        ] {
            let error = store.record(&new).await.unwrap_err();
            assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
        }
    }
    let mut zero = sample("A", "1");
    zero.inputs.prompt = Some("\0".into());
    assert!(
        matches!(store.record(&zero).await, Err(StoreError::Invalid { field, .. }) if field == "the prompt")
    );
}

pub(crate) async fn non_finite_numbers_are_refused(db: Database) {
    let store = db.open().await;
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e101] {
        let error = store.record(&scored("A", "1", vec![number("m", value)])).await.unwrap_err();
        assert!(matches!(&error, StoreError::Invalid { field, .. } if field == "m"), "{error:?}");
    }
}

pub(crate) async fn a_metric_given_twice_is_refused(db: Database) {
    let store = db.open().await;
    let new = scored("A", "1", vec![number("m", 0.5), number("m", 0.6)]);
    assert!(matches!(store.record(&new).await, Err(StoreError::Invalid { .. })));
}

pub(crate) async fn a_refused_sample_leaves_nothing_behind(db: Database) {
    let store = db.open().await;
    // It passes every check, but the database refuses a width of 0 within the transaction.
    let new = NewSample { width: 0, ..scored("A", "1", vec![number("m", 0.5)]) };
    assert!(matches!(store.record(&new).await, Err(StoreError::Database(_))));
    for table in ["methods", "runs", "packs", "samples", "scores", "summaries"] {
        assert_eq!(db.count(table).await, 0, "{table}");
    }
    assert_eq!(
        store.record(&NewSample { width: 1, ..new }).await.unwrap().outcome,
        RecordOutcome::Created
    );
}

pub(crate) async fn a_corrupted_row_is_named(db: Database) {
    let store = db.open().await;
    let id = store.record(&scored("A", "1", vec![number("m", 0.5)])).await.unwrap().sample;
    let corrupt = |error: StoreError| match error {
        StoreError::Corrupt { table, column, row, .. } => (table, column, row),
        other => panic!("{other:?}"),
    };

    db.execute("UPDATE samples SET metadata = '{broken'").await;
    let found = corrupt(store.sample(id).await.unwrap_err());
    assert_eq!(found, ("samples", "metadata", id.to_string()));
    db.execute("UPDATE samples SET metadata = '{}'").await;

    db.execute("UPDATE scores SET metric_version = -1").await;
    let (table, column, row) = corrupt(store.sample(id).await.unwrap_err());
    assert_eq!((table, column), ("scores", "metric_version"));
    assert!(row.contains(&id.to_string()));
    db.execute("UPDATE scores SET metric_version = 1").await;

    db.execute("DELETE FROM summaries").await;
    let rescored = store.record(&scored("A", "1", vec![versioned("m", 2, 0.5)])).await;
    assert_eq!(corrupt(rescored.unwrap_err()).0, "summaries");
}
