//! Methods, runs, pending samples, and scores of many samples at once.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use stellar_score::content::ContentHash;
use stellar_score::store::{
    Accepted, AttributeLabels, NewImport, NewPending, NewSample, RecordOutcome, RunCounts, RunFacts,
    RunFlags, RunName, RunRecord, RunState, RunWideScores, RunsQuery, SampleStatus, ScoreColumn, ScoreValue,
    Store, StoreError, SubmittedState,
};
use uuid::Uuid;

use crate::datasets::faces;
use crate::harness::*;

const FOLDER: &str = "folder";

fn name(run: &str) -> RunName {
    RunName::new("A", Some(run.to_owned()))
}

async fn new_run(store: &Store) -> RunRecord {
    store.create_run(&name("run"), &RunFacts::default(), at(0)).await.unwrap().0
}

/// A pending sample of this name. Its image is determined by the name; all share one photo.
fn pending(run: &RunRecord, sample: &str) -> NewPending {
    let (image, photo) = (ContentHash::of(sample.as_bytes()), ContentHash::of(b"photo"));
    NewPending {
        id: Uuid::now_v7(),
        created: at(0),
        run: run.id,
        name: sample.to_owned(),
        content: ContentHash::of(format!("content of {sample}").as_bytes()),
        prompt: Some("a person".into()),
        image,
        references: vec![photo],
        auxiliary: vec![],
        metadata: serde_json::json!({"identity": "000"}),
        folder: FOLDER.to_owned(),
        files: vec![(image, 10), (photo, 20)],
        pack: official(),
        service_version: "0.1.0".into(),
        max_pending: 100,
    }
}

/// The pending sample with its scores.
fn scored_sample(new: &NewPending, scores: Vec<stellar_score::store::NewScore>) -> NewSample {
    NewSample {
        id: new.id,
        run: Some(name("run")),
        content: new.content,
        image: new.image,
        references: new.references.clone(),
        ..scored("A", &new.name, scores)
    }
}

async fn counts(store: &Store, run: Uuid) -> (u64, u64, u64) {
    let RunCounts { waiting, failed, scored } = store.run(run).await.unwrap().unwrap().counts;
    (waiting, failed, scored)
}

async fn kept(store: &Store, new: &NewPending) -> BTreeSet<ContentHash> {
    let files: Vec<_> = new.files.iter().map(|(file, _)| *file).collect();
    store.needed_files(FOLDER, &files).await.unwrap().into_iter().collect()
}

pub(crate) async fn a_method_is_created_once_and_its_description_updated(db: Database) {
    let store = db.open().await;
    assert!(store.create_method("B", None, at(0)).await.unwrap().1);
    let (method, is_new) = store.create_method("B", Some("a generator"), at(1)).await.unwrap();
    assert_eq!((method.description.as_deref(), method.created, is_new), (Some("a generator"), at(0), false));
    let (method, _) = store.create_method("B", None, at(2)).await.unwrap();
    assert_eq!(method.description.as_deref(), Some("a generator"), "an omitted description stays");
    new_run(&store).await;
    let names = |page: Vec<stellar_score::store::MethodRecord>| {
        page.into_iter().map(|method| (method.name, method.runs)).collect::<Vec<_>>()
    };
    assert_eq!(names(store.methods("", 10).await.unwrap()), [("A".to_owned(), 1), ("B".to_owned(), 0)]);
    assert_eq!(names(store.methods("A", 10).await.unwrap()), [("B".to_owned(), 0)]);
    assert!(matches!(store.create_method("", None, at(0)).await, Err(StoreError::Invalid { .. })));
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
        assert!(matches!(error, StoreError::RunConflict { fact, .. } if fact == wrong), "{error:?}");
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
        async move { store.runs(&query).await.unwrap().into_iter().map(|run| run.id).collect::<Vec<_>>() }
    };
    let all = RunsQuery { limit: 10, ..RunsQuery::default() };
    assert_eq!(listed(all.clone()).await, ids);
    assert_eq!(listed(RunsQuery { limit: 2, ..all.clone() }).await, ids[..2]);
    assert_eq!(listed(RunsQuery { after: Some(ids[0]), ..all.clone() }).await, ids[1..]);
    assert_eq!(listed(RunsQuery { method: Some("B".into()), ..all.clone() }).await, [ids[0], ids[2]]);
    assert_eq!(listed(RunsQuery { state: Some(RunState::Finishing), ..all }).await, [ids[2]]);
}

pub(crate) async fn a_sample_is_pending_until_it_is_recorded(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let new = pending(&run, "1");
    assert_eq!(store.accept(&new).await.unwrap(), Some(Accepted::New(new.id)));
    assert_eq!(counts(&store, run.id).await, (1, 0, 0));
    assert_eq!(kept(&store, &new).await.len(), 2);
    let waiting = store.waiting(FOLDER, &official().digest, at(1), 10).await.unwrap();
    assert_eq!(waiting.len(), 1);
    let found = &waiting[0];
    assert_eq!(
        (found.id, found.run_id, &found.run, found.content),
        (new.id, run.id, &name("run"), new.content)
    );
    assert_eq!((&found.prompt, &found.metadata), (&new.prompt, &new.metadata));
    assert_eq!((&found.references, &found.auxiliary), (&new.references, &new.auxiliary));
    assert!(store.waiting("another", &official().digest, at(1), 10).await.unwrap().is_empty());
    assert!(store.waiting(FOLDER, &demo().digest, at(1), 10).await.unwrap().is_empty());

    let scores = vec![number("m", 0.5)];
    let recorded = store.record_pending(&scored_sample(&new, scores.clone()), run.id).await.unwrap().unwrap();
    assert_eq!((recorded.sample, recorded.outcome), (new.id, RecordOutcome::Created));
    assert_eq!(counts(&store, run.id).await, (0, 0, 1));
    assert_eq!(kept(&store, &new).await, [new.references[0]].into(), "other samples may use its photo");
    assert_eq!(only_summary(&store).await, summary(1, 0, Some(0.5), None));
    let again = store.record_pending(&scored_sample(&new, scores), run.id).await.unwrap();
    assert_eq!(again, None, "it is no longer pending");
    assert_eq!(counts(&store, run.id).await, (0, 0, 1));
    let run = store.run(run.id).await.unwrap().unwrap();
    assert_eq!((run.pack, run.service_version.as_deref()), (Some(official()), Some("0.1.0")));
    assert_eq!(db.count("pending_samples").await, 0);
}

/// Pending samples of two runs, some with the same image and one deleted meanwhile: recording them
/// together has the same result as one at a time.
pub(crate) async fn pending_samples_are_recorded_together(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let other = store.create_run(&name("other"), &RunFacts::default(), at(0)).await.unwrap().0;
    let shared = ContentHash::of(b"an image of several samples");
    let mut waiting = Vec::new();
    for number in 0..30 {
        let (of, run_name) = if number % 2 == 0 { (&run, "run") } else { (&other, "other") };
        let mut new = pending(of, &format!("{number}"));
        if number % 5 == 0 {
            (new.image, new.files[0].0) = (shared, shared);
        }
        store.accept(&new).await.unwrap();
        let sample = scored_sample(&new, vec![number_of(number)]);
        waiting.push((of.id, new, NewSample { run: Some(name(run_name)), ..sample }));
    }
    // A sample of another instance also has the shared image, and stays pending.
    let elsewhere = NewPending { image: shared, folder: "elsewhere".into(), ..pending(&run, "elsewhere") };
    let elsewhere = NewPending { files: vec![(shared, 10), elsewhere.files[1]], ..elsewhere };
    store.accept(&elsewhere).await.unwrap();
    let gone = waiting[7].1.id;
    db.execute(&format!("DELETE FROM pending_samples WHERE id = '{gone}'")).await;

    let tasks = waiting.iter().map(|(run, _, sample)| {
        let (store, run, sample) = (store.clone(), *run, sample.clone());
        tokio::spawn(async move { store.record_pending(&sample, run).await.unwrap() })
    });
    for (task, (run, new, _)) in tasks.collect::<Vec<_>>().into_iter().zip(&waiting) {
        let recorded = task.await.unwrap();
        let expected = (new.id != gone).then_some((new.id, Some(*run), RecordOutcome::Created));
        assert_eq!(recorded.map(|one| (one.sample, one.run, one.outcome)), expected, "{}", new.name);
    }
    assert_eq!(counts(&store, run.id).await, (1, 0, 15));
    // The row that was deleted behind the store's back is still counted.
    assert_eq!(counts(&store, other.id).await, (1, 0, 14));
    let left = db.texts("SELECT name FROM pending_samples").await;
    assert_eq!(left, ["elsewhere"]);
    for (_, new, _) in &waiting {
        let image = store.needed_files(FOLDER, &[new.image]).await.unwrap();
        let needed = new.image == shared || new.id == gone;
        assert_eq!(image.len(), usize::from(needed), "{}", new.name);
    }
    let page = by_run(&store).await;
    let numbers = |of: usize| (0..30).filter(move |number| number % 2 == of && *number != 7);
    for (row, (run, of)) in page.rows.iter().zip([("other", 1), ("run", 0)]) {
        let (found, count) = (summaries(row)[0].clone(), numbers(of).count());
        assert_eq!((row.run.as_deref(), found.n), (Some(run), count as u64));
        let mean = numbers(of).sum::<usize>() as f64 / count as f64;
        assert!((found.mean.unwrap() - mean).abs() < 1e-12, "{found:?}, not {mean}");
    }
}

fn number_of(place: usize) -> stellar_score::store::NewScore {
    number("m", place as f64)
}

pub(crate) async fn a_submission_is_identified_by_name_and_content(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let new = pending(&run, "1");
    store.accept(&new).await.unwrap();
    let again = NewPending { id: Uuid::now_v7(), ..new.clone() };
    let waiting = Accepted::Repeated(SampleStatus::Pending(new.id));
    assert_eq!(store.accept(&again).await.unwrap(), Some(waiting));
    let other = NewPending { id: Uuid::now_v7(), content: ContentHash::of(b"other"), ..new.clone() };
    let found = |content| store.submission(run.id, &run.name, "1", content);
    assert_eq!(found(new.content).await.unwrap(), Some(SampleStatus::Pending(new.id)));
    for error in [store.accept(&other).await.unwrap_err(), found(other.content).await.unwrap_err()] {
        assert!(
            matches!(error, StoreError::SampleConflict { existing, .. } if existing == new.id),
            "{error:?}"
        );
    }
    store.record_pending(&scored_sample(&new, vec![]), run.id).await.unwrap().unwrap();
    let scored = Accepted::Repeated(SampleStatus::Scored(new.id));
    assert_eq!(store.accept(&again).await.unwrap(), Some(scored));
    assert!(matches!(store.accept(&other).await, Err(StoreError::SampleConflict { .. })));
    assert_eq!(counts(&store, run.id).await, (0, 0, 1));
    assert_eq!(store.accept(&NewPending { run: Uuid::now_v7(), ..new }).await.unwrap(), None);
}

pub(crate) async fn a_failed_sample_may_be_resubmitted_with_other_content(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let new = pending(&run, "1");
    store.accept(&new).await.unwrap();
    store.fail_pending(new.id, "image_corrupt", "image: no\0 image").await.unwrap();
    assert_eq!(counts(&store, run.id).await, (0, 1, 0));
    assert_eq!(kept(&store, &new).await, [new.references[0]].into());
    store.fail_pending(new.id, "image_corrupt", "twice").await.unwrap();
    assert_eq!(counts(&store, run.id).await, (0, 1, 0), "a sample fails only once");
    let listed = store.submitted(run.id, None, "", 10).await.unwrap().unwrap();
    assert_eq!(listed[0].at, SampleStatus::Failed(new.id));
    assert_eq!(listed[0].failure, Some(("image_corrupt".into(), "image: no image".into())));
    let recorded = store.record_pending(&scored_sample(&new, vec![]), run.id).await.unwrap();
    assert_eq!(recorded, None, "a failed sample is not recorded");

    for content in [new.content, ContentHash::of(b"other")] {
        let again = NewPending { id: Uuid::now_v7(), content, ..new.clone() };
        assert_eq!(store.accept(&again).await.unwrap(), Some(Accepted::New(again.id)));
        assert_eq!(counts(&store, run.id).await, (1, 0, 0));
        store.fail_pending(again.id, "image_corrupt", "again").await.unwrap();
    }
    assert_eq!(db.count("pending_samples").await, 1);
}

pub(crate) async fn photos_referenced_by_hash_must_be_stored_for_the_run(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let new = pending(&run, "1");
    let without = NewPending { files: vec![new.files[0]], ..new.clone() };
    let error = store.accept(&without).await.unwrap_err();
    assert!(matches!(&error, StoreError::ImageUnknown { images } if *images == new.references), "{error:?}");
    assert_eq!(counts(&store, run.id).await, (0, 0, 0));
    assert_eq!(db.count("kept_files").await, 0, "a refused sample stores no files");
    store.accept(&new).await.unwrap();
    let second = NewPending { files: vec![(ContentHash::of(b"2"), 10)], ..pending(&run, "2") };
    assert_eq!(store.accept(&second).await.unwrap(), Some(Accepted::New(second.id)));
    let photos: BTreeSet<_> = new.references.iter().copied().collect();
    assert!(store.unknown_photos(run.id, FOLDER, &photos).await.unwrap().is_empty());
    assert_eq!(store.unknown_photos(run.id, "another", &photos).await.unwrap(), new.references);
    let other = store.create_run(&name("other"), &RunFacts::default(), at(0)).await.unwrap().0;
    assert_eq!(store.unknown_photos(other.id, FOLDER, &photos).await.unwrap(), new.references);
}

pub(crate) async fn a_shared_image_is_kept_for_the_second_sample(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let one = pending(&run, "1");
    let two = NewPending { image: one.image, files: one.files.clone(), ..pending(&run, "2") };
    store.accept(&one).await.unwrap();
    store.accept(&two).await.unwrap();
    store.record_pending(&scored_sample(&one, vec![]), run.id).await.unwrap().unwrap();
    assert!(kept(&store, &two).await.contains(&two.image));
    store.record_pending(&scored_sample(&two, vec![]), run.id).await.unwrap().unwrap();
    assert!(!kept(&store, &two).await.contains(&two.image));
}

pub(crate) async fn a_run_has_a_bounded_size_and_one_pack(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    store.accept(&pending(&run, "1")).await.unwrap();
    let second = NewPending { max_pending: 1, ..pending(&run, "2") };
    let error = store.accept(&second).await.unwrap_err();
    assert!(matches!(error, StoreError::RunFull { waiting: 1, .. }), "{error:?}");
    let other = NewPending { pack: demo(), ..pending(&run, "2") };
    let error = store.accept(&other).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::PackConflict { pack, .. } if *pack == official().digest),
        "{error:?}"
    );
}

pub(crate) async fn samples_are_postponed_and_scored_oldest_first(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let new: Vec<_> = ["b", "a", "c"].iter().map(|name| pending(&run, name)).collect();
    for new in &new {
        store.accept(new).await.unwrap();
    }
    let ids = |time| {
        let store = store.clone();
        async move {
            let waiting = store.waiting(FOLDER, &official().digest, at(time), 2).await.unwrap();
            waiting.into_iter().map(|sample| (sample.id, sample.attempts)).collect::<Vec<_>>()
        }
    };
    assert_eq!(ids(1).await, [(new[0].id, 0), (new[1].id, 0)]);
    store.postpone(new[0].id, at(50), true).await.unwrap();
    store.postpone(new[1].id, at(90), false).await.unwrap();
    assert_eq!(ids(1).await, [(new[2].id, 0)]);
    let due = |after| store.next_due(FOLDER, "a", at(after));
    assert_eq!(due(1).await.unwrap(), None, "no sample needs the other pack");
    let digest = official().digest;
    assert_eq!(store.next_due(FOLDER, &digest, at(1)).await.unwrap(), Some(at(50)));
    assert_eq!(ids(50).await, [(new[0].id, 1), (new[2].id, 0)]);
    assert_eq!(ids(90).await, [(new[0].id, 1), (new[1].id, 0)]);
    assert_eq!(store.next_due(FOLDER, &digest, at(90)).await.unwrap(), None);
}

pub(crate) async fn samples_are_listed_by_name_in_every_state(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let new: Vec<_> = ["c", "a", "d", "b"].iter().map(|name| pending(&run, name)).collect();
    for new in &new {
        store.accept(new).await.unwrap();
    }
    store.record_pending(&scored_sample(&new[0], vec![]), run.id).await.unwrap().unwrap();
    store.fail_pending(new[1].id, "image_corrupt", "why").await.unwrap();
    let listed = |state, after: &'static str, limit| {
        let store = store.clone();
        async move {
            let page = store.submitted(run.id, state, after, limit).await.unwrap().unwrap();
            page.into_iter().map(|sample| sample.name).collect::<String>()
        }
    };
    assert_eq!(listed(None, "", 10).await, "abcd");
    assert_eq!(listed(None, "a", 2).await, "bc");
    assert_eq!(listed(Some(SubmittedState::Pending), "", 10).await, "bd");
    assert_eq!(listed(Some(SubmittedState::Scored), "", 10).await, "c");
    assert_eq!(listed(Some(SubmittedState::Failed), "", 10).await, "a");
    assert_eq!(store.submitted(Uuid::now_v7(), None, "", 10).await.unwrap(), None);
    let all = store.submitted(run.id, None, "", 10).await.unwrap().unwrap();
    assert_eq!(all[2].content, new[0].content.to_hex());
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
        new.references,
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

pub(crate) async fn deletion_covers_pending_samples(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let new: Vec<_> = ["1", "2", "3", "4"].iter().map(|name| pending(&run, name)).collect();
    for new in &new {
        store.accept(new).await.unwrap();
    }
    store.fail_pending(new[3].id, "image_corrupt", "why").await.unwrap();
    let deleted = store.delete_sample(new[0].id).await.unwrap().unwrap();
    assert_eq!((deleted.samples, deleted.images.contains(&new[0].image)), (1, true));
    assert_eq!(counts(&store, run.id).await, (2, 1, 0));
    assert!(!kept(&store, &new[0]).await.contains(&new[0].image));
    store.delete_sample(new[3].id).await.unwrap().unwrap();
    assert_eq!(counts(&store, run.id).await, (2, 0, 0));
    let recorded = store.record_pending(&scored_sample(&new[0], vec![]), run.id).await.unwrap();
    assert_eq!(recorded, None, "a sample deleted during its scoring is not recorded");

    let known = store.delete_image(new[1].image).await.unwrap();
    assert!(known.is_some());
    assert_eq!(counts(&store, run.id).await, (1, 1, 0), "a sample without its image fails");
    assert!(store.delete_image(new[1].references[0]).await.unwrap().is_some());
    assert_eq!(counts(&store, run.id).await, (0, 2, 0));
    let failed = store.submitted(run.id, Some(SubmittedState::Failed), "", 10).await.unwrap().unwrap();
    assert!(failed.iter().all(|failed| failed.failure.as_ref().unwrap().0 == "image_deleted"));
    assert!(kept(&store, &new[1]).await.is_empty());

    store.accept(&pending(&run, "5")).await.unwrap();
    let deleted = store.delete_run(run.id).await.unwrap().unwrap();
    assert_eq!(deleted.samples, 3);
    assert!(
        deleted.images.contains(&ContentHash::of(b"5")) && deleted.images.contains(&new[0].references[0])
    );
    for table in ["runs", "pending_samples", "kept_files", "samples"] {
        assert_eq!(db.count(table).await, 0, "{table}");
    }
}

pub(crate) async fn faces_stay_for_pending_samples_of_another_run(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let waiting = pending(&run, "1");
    store.accept(&waiting).await.unwrap();
    for image in [waiting.image, waiting.references[0]] {
        store.save_faces(&faces(image)).await.unwrap();
    }
    let known = || async {
        let images = [waiting.image, waiting.references[0]];
        store.faces(&images, ContentHash::of(b"graphs")).await.unwrap().len()
    };
    let other =
        NewSample { image: waiting.image, references: waiting.references.clone(), ..sample("B", "1") };
    let other = store.record(&other).await.unwrap();
    store.delete_run(other.run.unwrap()).await.unwrap().unwrap();
    assert_eq!(known().await, 2, "the pending sample still needs these faces");
    store.delete_run(run.id).await.unwrap().unwrap();
    assert_eq!(known().await, 0);
}

pub(crate) async fn concurrent_submissions_of_the_same_samples_count_once(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let clients = (0..8).map(|_| {
        let (store, run) = (store.clone(), run.clone());
        tokio::spawn(async move {
            for sample in 0..12 {
                let new = pending(&run, &sample.to_string());
                match store.accept(&new).await.unwrap().unwrap() {
                    Accepted::New(id) => {
                        store
                            .record_pending(&scored_sample(&new, vec![number("m", 1.0)]), run.id)
                            .await
                            .unwrap();
                        assert_eq!(id, new.id);
                    }
                    Accepted::Repeated(_) => {}
                }
            }
        })
    });
    for client in join_all(clients).await {
        client.unwrap();
    }
    assert_eq!(counts(&store, run.id).await, (0, 0, 12));
    assert_eq!(only_summary(&store).await, summary(12, 0, Some(1.0), Some(0.0)));
}

fn import(run: Uuid, names: &[&str], values: &[f64]) -> NewImport {
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
        pack: stellar_score::store::PackId { digest: "e".repeat(64), name: "toolkit".into(), ..official() },
        service_version: "0.1.0".into(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        metadata: names.iter().map(|name| serde_json::json!({"identity": name}).to_string()).collect(),
        columns: vec![ScoreColumn {
            metric: "m".into(),
            metric_version: 1,
            values: values.iter().map(value).collect(),
        }],
        outcomes: BTreeMap::new(),
    }
}

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
    let packs: Vec<_> = store.run_packs(run).await.unwrap().into_iter().map(|pack| pack.name).collect();
    assert_eq!(packs, ["official", "toolkit"]);
    let board = by_run(&store).await;
    let row = board.rows.iter().find(|row| row.pack == new.pack).unwrap();
    let std = 0.5 / 2.0_f64.sqrt();
    let summary = &row.metrics[0].summary;
    assert_eq!((summary.n, summary.nulls, summary.mean), (2, 1, Some(0.5)));
    assert!((summary.std.unwrap() - std).abs() < 1e-12);

    let fresh = store.submitted(run, None, "2", 1).await.unwrap().unwrap();
    let SampleStatus::Scored(id) = fresh[0].at else { panic!("{fresh:?}") };
    let read = store.sample(id).await.unwrap().unwrap();
    assert_eq!((read.image, read.metadata), (None, serde_json::json!({"identity": "3"})));
    assert!(store.delete_sample(id).await.unwrap().is_some(), "a sample without an image can be deleted");
    assert_eq!(store.import(&NewImport { run: Uuid::now_v7(), ..new }).await.unwrap(), None);
}

pub(crate) async fn the_attribute_table_of_a_run_is_bounded(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await.id;
    // Each sample has its own attribute: few values to store, but a quadratic table.
    let names: Vec<String> = (0..2_900).map(|at| format!("{at:04}")).collect();
    let column = |at: usize| (0..names.len()).map(|of| (of == at).then_some((true, true))).collect();
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
    let versions: Vec<_> =
        board.rows[0].metrics.iter().map(|m| (m.summary.version, m.summary.n, m.summary.mean)).collect();
    assert_eq!(versions, [(1, 2, Some(5.5)), (2, 1, Some(10.0))]);
}

pub(crate) async fn scores_of_a_whole_run_are_added_once(db: Database) {
    let store = db.open().await;
    let one = scored("A", "1", vec![number("m", 0.5)]);
    let two = scored("A", "2", vec![number("aps", 0.125)]);
    let run = store.record(&one).await.unwrap().run.unwrap();
    store.record(&two).await.unwrap();
    let outcomes: AttributeLabels = BTreeMap::from([("Young".to_owned(), (true, false))]);
    let wide = RunWideScores {
        run,
        created: at(0),
        pack: official(),
        service_version: "0.1.0".into(),
        metric: "aps".into(),
        metric_version: 1,
        scores: vec![
            (one.id, ScoreValue::Number(0.75)),
            (two.id, ScoreValue::Number(0.75)),
            (Uuid::now_v7(), ScoreValue::Number(0.75)),
        ],
        outcomes: vec![(one.id, outcomes.clone()), (two.id, outcomes.clone())],
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
    for image in [one.references[0], two.image] {
        let before = store.run(run).await.unwrap().unwrap().revision;
        store.delete_image(image).await.unwrap().expect("it is known");
        assert!(store.run(run).await.unwrap().unwrap().revision > before, "a cached report uses {image}");
    }
    assert_eq!(db.count("attribute_outcomes").await, 0);
    store.add_run_wide(&RunWideScores { metric: "again".into(), ..wide }).await.unwrap();
    assert!(db.count("attribute_outcomes").await > 0);
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
        scores: vec![(new.id, ScoreValue::Number(0.75))],
        outcomes: vec![],
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

pub(crate) async fn blocked_samples_are_reported(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    for name in ["1", "2", "3"] {
        store.accept(&pending(&run, name)).await.unwrap();
    }
    let other = store.create_run(&name("other"), &RunFacts::default(), at(0)).await.unwrap().0;
    store.accept(&pending(&other, "1")).await.unwrap();
    store.fail_pending(pending(&run, "3").id, "image_corrupt", "why").await.unwrap();
    let held = store.held_samples(FOLDER, &demo().digest).await.unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].pack.clone(), held[0].samples, held[0].runs), (official(), 4, 2));
    assert!(store.held_samples(FOLDER, &official().digest).await.unwrap().is_empty());
    assert!(store.held_samples("another", &demo().digest).await.unwrap().is_empty());
}
