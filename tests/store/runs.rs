//! Methods and runs.

use stellar_score::card::{CollectedSettings, GeneratorSettings, MethodCard};
use stellar_score::content::ContentHash;
use stellar_score::store::{
    Accepted, MethodRecord, NewPending, RecordOutcome, RunCounts, RunFacts, RunFlags, RunName,
    RunState, RunWideScore, RunWideScores, RunsQuery, SampleStatus, ScoreValue, StoreError,
};
use uuid::Uuid;

use crate::builders::{counts, import, name, new_run, pending, scored_sample};
use crate::harness::*;

pub(crate) async fn a_method_is_created_once_and_its_description_updated(db: Database) {
    let store = db.open().await;
    assert!(store.create_method("B", None, None, at(0)).await.unwrap().1);
    let (method, is_new) =
        store.create_method("B", Some("a generator"), None, at(1)).await.unwrap();
    assert_eq!(
        (method.description.as_deref(), method.created, is_new),
        (Some("a generator"), at(0), false)
    );
    let (method, _) = store.create_method("B", None, None, at(2)).await.unwrap();
    assert_eq!(method.description.as_deref(), Some("a generator"), "an omitted description stays");
    new_run(&store).await;
    let names = |page: Vec<MethodRecord>| {
        page.into_iter().map(|method| (method.name, method.runs)).collect::<Vec<_>>()
    };
    assert_eq!(
        names(store.methods("", 10).await.unwrap()),
        [("A".to_owned(), 1), ("B".to_owned(), 0)]
    );
    assert_eq!(names(store.methods("A", 10).await.unwrap()), [("B".to_owned(), 0)]);
    assert!(matches!(
        store.create_method("", None, None, at(0)).await,
        Err(StoreError::Invalid { .. })
    ));
}

pub(crate) async fn a_card_and_the_settings_of_a_run_read_back(db: Database) {
    let store = db.open().await;
    let card = |licence: &str| MethodCard { licence: Some(licence.into()), ..<_>::default() };
    store.create_method("B", None, Some(&card("MIT")), at(0)).await.unwrap();
    let (method, _) = store.create_method("B", Some("d"), None, at(1)).await.unwrap();
    assert_eq!(method.card, Some(card("MIT")), "an omitted card stays");
    store.create_method("B", None, Some(&card("CC0-1.0")), at(2)).await.unwrap();
    let read = store.method("B").await.unwrap().unwrap();
    assert_eq!((read.card, read.description.as_deref()), (Some(card("CC0-1.0")), Some("d")));
    assert_eq!(store.cards().await.unwrap(), [("B".to_owned(), card("CC0-1.0"))].into());
    assert_eq!(store.method("C").await.unwrap(), None);

    let run = new_run(&store).await.id;
    let of = |steps| GeneratorSettings { steps: Some(steps), ..GeneratorSettings::default() };
    for steps in [[50, 20], [50, 50]] {
        let settings = CollectedSettings::of(&steps.map(of));
        store.keep_settings(run, &settings).await.unwrap();
        assert_eq!(store.settings_of(&[run]).await.unwrap(), [(run, settings)].into());
    }
    store.delete_run(run).await.unwrap();
    assert!(store.settings_of(&[run]).await.unwrap().is_empty());
}

pub(crate) async fn a_run_is_created_once_with_its_facts(db: Database) {
    let store = db.open().await;
    let facts = RunFacts {
        dataset: Some("stellar".into()),
        split: Some("test".into()),
        flags: RunFlags { cross_validated_training: true, ..RunFlags::default() },
        settings: serde_json::from_str(r#"{"steps": 50, "a": null}"#).unwrap(),
        metrics: Some(vec!["clip_t".into()]),
    };
    let (run, is_new) = store.create_run(&name("r"), &facts, at(5)).await.unwrap();
    assert_eq!((is_new, &run.facts, run.state, run.created), (true, &facts, RunState::Open, at(5)));
    assert_eq!((run.pack.clone(), run.finished, run.counts), (None, None, RunCounts::default()));
    let (again, is_new) = store.create_run(&name("r"), &facts, at(6)).await.unwrap();
    assert_eq!((again, is_new), (run.clone(), false));
    assert_eq!(store.run(run.id).await.unwrap(), Some(run.clone()));

    let other = |change: fn(&mut RunFacts)| {
        let mut other = facts.clone();
        change(&mut other);
        other
    };
    for (other, wrong) in [
        (other(|facts| facts.dataset = None), "dataset"),
        (other(|facts| facts.split = Some("val".into())), "split"),
        (other(|facts| facts.flags.trained_on_evaluation_photos = true), "flags"),
        (other(|facts| facts.settings.clear()), "settings"),
        (other(|facts| facts.metrics = None), "metrics"),
    ] {
        let error = store.create_run(&name("r"), &other, at(0)).await.unwrap_err();
        assert!(
            matches!(error, StoreError::RunConflict { fact, .. } if fact == wrong),
            "{error:?}"
        );
    }
    assert_eq!(store.run(run.id).await.unwrap(), Some(run), "refused facts change nothing");
    assert_eq!(store.run(Uuid::now_v7()).await.unwrap(), None);
}

pub(crate) async fn a_run_created_by_a_sample_accepts_facts_once(db: Database) {
    let store = db.open().await;
    let id = store.record(&sample("A", "1")).await.unwrap().run.unwrap();
    let facts = RunFacts { dataset: Some("D".into()), ..RunFacts::default() };
    let (run, is_new) = store.create_run(&name("run"), &facts, at(0)).await.unwrap();
    assert_eq!((run.id, run.facts.dataset.as_deref(), is_new), (id, Some("D"), false));
    assert_eq!(run.counts.scored, 1);
    let error = store.create_run(&name("run"), &RunFacts::default(), at(0)).await.unwrap_err();
    assert!(matches!(error, StoreError::RunConflict { fact: "dataset", .. }), "{error:?}");
}

pub(crate) async fn runs_are_listed_in_creation_order(db: Database) {
    let store = db.open().await;
    let mut ids = Vec::new();
    for (at_time, method, run) in [(1, "B", "1"), (2, "A", "1"), (3, "B", "0")] {
        let name = RunName::new(method, Some(run.to_owned()));
        ids.push(store.create_run(&name, &RunFacts::default(), at(at_time)).await.unwrap().0.id);
    }
    store.finish_run(ids[2]).await.unwrap();
    let listed = |query: RunsQuery| {
        let store = store.clone();
        async move {
            store.runs(&query).await.unwrap().into_iter().map(|run| run.id).collect::<Vec<_>>()
        }
    };
    let all = RunsQuery { limit: 10, ..RunsQuery::default() };
    assert_eq!(listed(all.clone()).await, ids);
    assert_eq!(listed(RunsQuery { limit: 2, ..all.clone() }).await, ids[..2]);
    assert_eq!(listed(RunsQuery { after: Some(ids[0]), ..all.clone() }).await, ids[1..]);
    assert_eq!(
        listed(RunsQuery { method: Some("B".into()), ..all.clone() }).await,
        [ids[0], ids[2]]
    );
    assert_eq!(
        listed(RunsQuery { state: Some(RunState::Finishing), ..all.clone() }).await,
        [ids[2]]
    );
    let newest = RunsQuery { newest_first: true, ..all.clone() };
    assert_eq!(listed(newest.clone()).await, [ids[2], ids[1], ids[0]]);
    assert_eq!(listed(RunsQuery { after: Some(ids[1]), ..newest }).await, [ids[0]]);
    let facts = RunFacts { dataset: Some("d".into()), ..RunFacts::default() };
    let of_dataset = store.create_run(&RunName::new("C", None), &facts, at(4)).await.unwrap().0.id;
    assert_eq!(listed(RunsQuery { dataset: Some("d".into()), ..all }).await, [of_dataset]);
}

pub(crate) async fn samples_are_ranked_by_a_score_and_listed_briefly(db: Database) {
    let store = db.open().await;
    let mut run = None;
    for (name, value) in [("b", Some(0.5)), ("a", Some(0.5)), ("c", Some(0.9)), ("d", None)] {
        let mut new = sample("A", name);
        new.inputs.metadata = serde_json::json!({"identity": format!("person {name}")});
        new.scores = vec![value.map_or_else(|| null("m", "no_prompt"), |value| number("m", value))];
        run = store.record(&new).await.unwrap().run;
    }
    let run = run.unwrap();
    let pack = store.run_packs(run).await.unwrap().remove(0).digest;
    let data = store.run_data(run, Some(&pack)).await.unwrap().unwrap();
    let ranked = |descending| -> Vec<&str> {
        data.metrics["m"].ranked(descending).into_iter().map(|at| &*data.names[at]).collect()
    };
    assert_eq!(ranked(true), ["c", "a", "b"]);
    assert_eq!(ranked(false), ["a", "b", "c"]);

    let briefs = store.sample_briefs(run, &["a".to_owned(), "none".to_owned()]).await.unwrap();
    assert_eq!(briefs.len(), 1);
    assert_eq!(briefs["a"].identity.as_deref(), Some("person a"));
    assert_eq!(briefs["a"].image, Some(sample("A", "a").inputs.image.to_hex()));
    let prompts = store.sample_prompts(run).await.unwrap();
    assert_eq!(prompts.get("a"), sample("A", "a").inputs.prompt.as_ref());
    let photos = store.sample_photos(run).await.unwrap();
    let sent = sample("A", "a");
    let references: Vec<String> = sent.inputs.references.iter().map(ContentHash::to_hex).collect();
    assert_eq!((photos.len(), &photos["a"].references), (4, &references));
    assert_eq!(photos["a"].prompt, sent.inputs.prompt);
    assert!(store.failure_counts(run).await.unwrap().is_empty());
}

pub(crate) async fn a_finished_run_refuses_samples(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let new = pending(&run, "1");
    store.accept(&new).await.unwrap();
    let finishing = store.finish_run(run.id).await.unwrap().unwrap();
    assert_eq!(finishing.state, RunState::Finishing);
    assert!(store.finishable_runs().await.unwrap().is_empty(), "one sample is pending");
    assert!(store.run_finished(run.id, at(8)).await.unwrap().is_empty());
    assert_eq!(store.run(run.id).await.unwrap().unwrap().state, RunState::Finishing);

    let full = scored_sample(&new, vec![number("m", 0.5)]);
    store.record_pending(&full, run.id).await.unwrap().unwrap();
    assert_eq!(store.finishable_runs().await.unwrap(), [run.id]);
    assert_eq!(
        store.run_finished(run.id, at(9)).await.unwrap(),
        new.inputs.references,
        "its photos are no longer needed"
    );
    let finished = store.finish_run(run.id).await.unwrap().unwrap();
    assert_eq!((finished.state, finished.finished), (RunState::Finished, Some(at(9))));
    assert!(store.finishable_runs().await.unwrap().is_empty());
    assert_eq!(db.count("kept_files").await, 0);

    let repeated = store.accept(&NewPending { id: Uuid::now_v7(), ..new.clone() }).await.unwrap();
    assert_eq!(
        repeated,
        Some(Accepted::Repeated(SampleStatus::Scored(new.id))),
        "the stored sample is repeated"
    );
    assert_eq!(store.record(&full).await.unwrap().outcome, RecordOutcome::Repeated);
    let further = scored_sample(&new, vec![number("m", 0.5), number("n", 0.5)]);
    for error in [
        store.accept(&pending(&run, "2")).await.map(drop).unwrap_err(),
        store.record(&scored("A", "2", vec![])).await.map(drop).unwrap_err(),
        store.record(&further).await.map(drop).unwrap_err(),
        store.import(&import(run.id, &["1"], &[0.5])).await.map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::RunFinished { .. }), "{error:?}");
    }
    assert_eq!(counts(&store, run.id).await, (0, 0, 1));
    assert_eq!(store.finish_run(Uuid::now_v7()).await.unwrap(), None);
}

pub(crate) async fn every_change_of_scores_raises_the_revision(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let mut known = run.revision;
    let mut grown = async || {
        let now = store.run(run.id).await.unwrap().unwrap().revision;
        std::mem::replace(&mut known, now) != now
    };
    let new = pending(&run, "1");
    store.accept(&new).await.unwrap();
    assert!(!grown().await, "a pending sample has no scores");
    let full = scored_sample(&new, vec![number("m", 0.5)]);
    store.record_pending(&full, run.id).await.unwrap().unwrap();
    assert!(grown().await);
    store.record(&full).await.unwrap();
    assert!(!grown().await, "a repetition changes nothing");
    store.record(&scored_sample(&new, vec![number("m", 0.5), number("n", 0.5)])).await.unwrap();
    assert!(grown().await, "a further metric changes the scores");
    let imported = import(run.id, &["1"], &[0.5]);
    store.import(&imported).await.unwrap();
    assert!(grown().await);
    store.import(&imported).await.unwrap();
    assert!(grown().await, "an import is not compared with the stored scores");
    let wide = RunWideScores {
        run: run.id,
        created: at(0),
        pack: official(),
        service_version: "0.1.0".into(),
        metric: "aps".into(),
        metric_version: 1,
        graphs: None,
        scores: vec![RunWideScore {
            sample: new.id,
            value: ScoreValue::Number(0.75),
            outcomes: None,
            images: vec![],
        }],
    };
    store.add_run_wide(&wide).await.unwrap();
    assert!(grown().await);
    let other = RunName::new("B", None);
    store.create_run(&other, &RunFacts::default(), at(0)).await.unwrap();
    store.finish_run(run.id).await.unwrap();
    assert!(!grown().await, "neither another run nor finishing changes the scores");
    store.delete_sample(new.id).await.unwrap().unwrap();
    assert!(grown().await);
}
