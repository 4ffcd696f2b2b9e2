//! Samples that are accepted first and scored later.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use stellar_score::content::ContentHash;
use stellar_score::store::{
    Accepted, NeededFaces, NewPending, NewSample, NewScore, RecordOutcome, RunFacts, SampleInputs,
    SampleState, SampleStatus, Store, StoreError,
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::builders::{FOLDER, counts, name, new_run, pending, scored_sample};
use crate::datasets::{faces, photo};
use crate::harness::*;

pub(crate) async fn kept(store: &Store, new: &NewPending) -> BTreeSet<ContentHash> {
    let files: Vec<_> = new.files.iter().map(|(file, _)| *file).collect();
    store.needed_files(FOLDER, &files).await.unwrap().into_iter().collect()
}

pub(crate) async fn a_sample_is_pending_until_it_is_recorded(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let new = pending(&run, "1");
    assert_eq!(store.accept(&new).await.unwrap(), Some(Accepted::New(new.id)));
    assert_eq!(counts(&store, run.id).await, (1, 0, 0));
    assert_eq!(kept(&store, &new).await.len(), 2);
    let waiting = store.due_samples(FOLDER, &official().digest, at(1), 10).await.unwrap();
    assert_eq!(waiting.len(), 1);
    let found = &waiting[0];
    assert_eq!(
        (found.id, found.run_id, &found.run, found.inputs.content),
        (new.id, run.id, &name("run"), new.inputs.content)
    );
    assert_eq!(
        (&found.inputs.prompt, &found.inputs.metadata),
        (&new.inputs.prompt, &new.inputs.metadata)
    );
    assert_eq!(
        (&found.inputs.references, &found.inputs.auxiliary),
        (&new.inputs.references, &new.inputs.auxiliary)
    );
    assert!(store.due_samples("another", &official().digest, at(1), 10).await.unwrap().is_empty());
    assert_eq!(store.pending_elsewhere("another").await.unwrap(), [(FOLDER.to_owned(), 1)]);
    assert!(store.pending_elsewhere(FOLDER).await.unwrap().is_empty());
    assert!(store.due_samples(FOLDER, &demo().digest, at(1), 10).await.unwrap().is_empty());

    let scores = vec![number("m", 0.5)];
    let recorded =
        store.record_pending(&scored_sample(&new, scores.clone()), run.id).await.unwrap().unwrap();
    assert_eq!((recorded.sample, recorded.outcome), (new.id, RecordOutcome::Created));
    assert_eq!(counts(&store, run.id).await, (0, 0, 1));
    assert_eq!(
        kept(&store, &new).await,
        [new.inputs.references[0]].into(),
        "other samples may use its photo"
    );
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
            (new.inputs.image, new.files[0].0) = (shared, shared);
        }
        store.accept(&new).await.unwrap();
        let sample = scored_sample(&new, vec![number_of(number)]);
        waiting.push((of.id, new, NewSample { run: Some(name(run_name)), ..sample }));
    }
    // A sample of another instance also has the shared image, and stays pending.
    let mut elsewhere = pending(&run, "elsewhere");
    elsewhere.inputs.image = shared;
    elsewhere.spool = "elsewhere".into();
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
        assert_eq!(
            recorded.map(|one| (one.sample, one.run, one.outcome)),
            expected,
            "{}",
            new.name
        );
    }
    assert_eq!(counts(&store, run.id).await, (1, 0, 15));
    // The row that was deleted behind the store's back is still counted.
    assert_eq!(counts(&store, other.id).await, (1, 0, 14));
    let left = db.texts("SELECT name FROM pending_samples").await;
    assert_eq!(left, ["elsewhere"]);
    for (_, new, _) in &waiting {
        let image = store.needed_files(FOLDER, &[new.inputs.image]).await.unwrap();
        let needed = new.inputs.image == shared || new.id == gone;
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

fn number_of(place: usize) -> NewScore {
    number("m", place as f64)
}

/// The run needs the faces when another instance finishes it.
pub(crate) async fn a_pending_sample_is_recorded_only_with_the_faces_that_it_needs(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let graphs = ContentHash::of(b"graphs");
    let mut samples = Vec::new();
    for number in 0..6 {
        let new = pending(&run, &format!("{number}"));
        store.accept(&new).await.unwrap();
        let mut sample = scored_sample(&new, vec![number_of(number)]);
        let images = vec![new.inputs.image, new.inputs.references[0]];
        sample.extras.faces = Some(NeededFaces { images, graphs });
        if number % 2 == 0 {
            store.save_faces(&faces(new.inputs.image)).await.unwrap();
        }
        samples.push(sample);
    }
    let record_all = || async {
        let recorded = join_all(samples.iter().map(|new| store.record_pending(new, run.id))).await;
        recorded.into_iter().map(|result| match result {
            Ok(recorded) => recorded.map(|one| one.outcome),
            Err(StoreError::FacesNotStored { images: 2 }) => Some(RecordOutcome::Rescored),
            Err(error) => panic!("{error}"),
        })
    };
    let lacking = Some(RecordOutcome::Rescored);
    assert!(record_all().await.all(|outcome| outcome == lacking), "the photo's are missing");
    store.save_faces(&faces(samples[0].inputs.references[0])).await.unwrap();
    let created = Some(RecordOutcome::Created);
    let outcomes: Vec<_> = record_all().await.collect();
    assert_eq!(outcomes, [created, lacking, created, lacking, created, lacking]);
    assert_eq!(counts(&store, run.id).await, (3, 0, 3), "the others stay pending");
    for sample in &samples {
        store.save_faces(&faces(sample.inputs.image)).await.unwrap();
    }
    assert_eq!(record_all().await.collect::<Vec<_>>(), [None, created].repeat(3));
    assert_eq!(counts(&store, run.id).await, (0, 0, 6));
}

/// No clock matters: searches would be timed by that of a worker, deletions by that of another
/// instance.
pub(crate) async fn faces_are_stored_for_a_sample_while_something_needs_its_image(db: Database) {
    let store = db.open().await;
    let (run, other) = (
        new_run(&store).await,
        store.create_run(&name("other"), &RunFacts::default(), at(0)).await.unwrap().0,
    );
    let (copy, new) = (pending(&other, "1"), pending(&run, "1"));
    store.accept(&copy).await.unwrap();
    store.save_faces(&faces(copy.inputs.image)).await.unwrap();
    store.delete_run(other.id).await.unwrap().unwrap();
    let graphs = ContentHash::of(b"graphs");
    let stored = || async { store.faces(&[new.inputs.image], graphs).await.unwrap().len() };
    assert_eq!(stored().await, 0, "nothing refers to the image");
    store.save_needed_faces(&faces(new.inputs.image)).await.unwrap();
    assert_eq!(stored().await, 0, "nothing needs them");

    store.accept(&new).await.unwrap();
    store.save_needed_faces(&faces(new.inputs.image)).await.unwrap();
    assert_eq!(stored().await, 1, "a pending sample needs them");

    // A search that began after the deletion, for a sample that was in flight meanwhile.
    store.delete_sample(new.id).await.unwrap().unwrap();
    store.save_needed_faces(&faces(new.inputs.image)).await.unwrap();
    assert_eq!(stored().await, 0, "deleted meanwhile");

    let enrolled = photo("D", "000", "0");
    store.enrol(&enrolled).await.unwrap();
    store.save_needed_faces(&faces(enrolled.image)).await.unwrap();
    assert_eq!(store.faces(&[enrolled.image], graphs).await.unwrap().len(), 1);
}

pub(crate) async fn faces_that_are_needed_again_are_kept_for_longer(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let new = pending(&run, "1");
    store.accept(&new).await.unwrap();
    // They were found long ago.
    store.save_faces(&faces(new.inputs.image)).await.unwrap();
    store.save_faces(&faces(ContentHash::of(b"another"))).await.unwrap();
    let mut sample = scored_sample(&new, vec![]);
    let graphs = ContentHash::of(b"graphs");
    sample.extras.faces = Some(NeededFaces { images: vec![new.inputs.image], graphs });
    store.record_pending(&sample, run.id).await.unwrap().unwrap();
    let month = Duration::days(30);
    assert_eq!(store.purge_faces(Some(OffsetDateTime::now_utc() - month)).await.unwrap(), 1);
    assert_eq!(store.faces(&[new.inputs.image], graphs).await.unwrap().len(), 1);
}

pub(crate) async fn a_submission_is_identified_by_name_and_content(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let new = pending(&run, "1");
    store.accept(&new).await.unwrap();
    let again = NewPending { id: Uuid::now_v7(), ..new.clone() };
    let waiting = Accepted::Repeated(SampleStatus::Pending(new.id));
    assert_eq!(store.accept(&again).await.unwrap(), Some(waiting));
    let other = NewPending {
        id: Uuid::now_v7(),
        inputs: SampleInputs { content: ContentHash::of(b"other"), ..new.inputs.clone() },
        ..new.clone()
    };
    let found = |content| store.sample_status(run.id, &run.name, "1", content);
    assert_eq!(found(new.inputs.content).await.unwrap(), Some(SampleStatus::Pending(new.id)));
    for error in
        [store.accept(&other).await.unwrap_err(), found(other.inputs.content).await.unwrap_err()]
    {
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
    assert_eq!(kept(&store, &new).await, [new.inputs.references[0]].into());
    store.fail_pending(new.id, "image_corrupt", "twice").await.unwrap();
    assert_eq!(counts(&store, run.id).await, (0, 1, 0), "a sample fails only once");
    let listed = store.accepted_samples(run.id, None, "", 10).await.unwrap().unwrap();
    assert_eq!(listed[0].at, SampleStatus::Failed(new.id));
    assert_eq!(listed[0].failure, Some(("image_corrupt".into(), "image: no image".into())));
    let recorded = store.record_pending(&scored_sample(&new, vec![]), run.id).await.unwrap();
    assert_eq!(recorded, None, "a failed sample is not recorded");

    for content in [new.inputs.content, ContentHash::of(b"other")] {
        let again = NewPending {
            id: Uuid::now_v7(),
            inputs: SampleInputs { content, ..new.inputs.clone() },
            ..new.clone()
        };
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
    assert!(
        matches!(&error, StoreError::ImageUnknown { images } if *images == new.inputs.references),
        "{error:?}"
    );
    assert_eq!(counts(&store, run.id).await, (0, 0, 0));
    assert_eq!(db.count("kept_files").await, 0, "a refused sample stores no files");
    store.accept(&new).await.unwrap();
    let second = NewPending { files: vec![(ContentHash::of(b"2"), 10)], ..pending(&run, "2") };
    assert_eq!(store.accept(&second).await.unwrap(), Some(Accepted::New(second.id)));
    let photos: BTreeSet<_> = new.inputs.references.iter().copied().collect();
    assert!(store.unknown_photos(run.id, FOLDER, &photos).await.unwrap().is_empty());
    assert_eq!(
        store.unknown_photos(run.id, "another", &photos).await.unwrap(),
        new.inputs.references
    );
    let other = store.create_run(&name("other"), &RunFacts::default(), at(0)).await.unwrap().0;
    assert_eq!(
        store.unknown_photos(other.id, FOLDER, &photos).await.unwrap(),
        new.inputs.references
    );
}

pub(crate) async fn a_shared_image_is_kept_for_the_second_sample(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let one = pending(&run, "1");
    let mut two = pending(&run, "2");
    two.inputs.image = one.inputs.image;
    two.files = one.files.clone();
    store.accept(&one).await.unwrap();
    store.accept(&two).await.unwrap();
    store.record_pending(&scored_sample(&one, vec![]), run.id).await.unwrap().unwrap();
    assert!(kept(&store, &two).await.contains(&two.inputs.image));
    store.record_pending(&scored_sample(&two, vec![]), run.id).await.unwrap().unwrap();
    assert!(!kept(&store, &two).await.contains(&two.inputs.image));
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
            let waiting = store.due_samples(FOLDER, &official().digest, at(time), 2).await.unwrap();
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
            let page = store.accepted_samples(run.id, state, after, limit).await.unwrap().unwrap();
            page.into_iter().map(|sample| sample.name).collect::<String>()
        }
    };
    assert_eq!(listed(None, "", 10).await, "abcd");
    assert_eq!(listed(None, "a", 2).await, "bc");
    assert_eq!(listed(Some(SampleState::Pending), "", 10).await, "bd");
    assert_eq!(listed(Some(SampleState::Scored), "", 10).await, "c");
    assert_eq!(listed(Some(SampleState::Failed), "", 10).await, "a");
    assert_eq!(store.accepted_samples(Uuid::now_v7(), None, "", 10).await.unwrap(), None);
    let all = store.accepted_samples(run.id, None, "", 10).await.unwrap().unwrap();
    assert_eq!(all[2].content, new[0].inputs.content.to_hex());
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
    assert_eq!((deleted.samples, deleted.images.contains(&new[0].inputs.image)), (1, true));
    assert_eq!(counts(&store, run.id).await, (2, 1, 0));
    assert!(!kept(&store, &new[0]).await.contains(&new[0].inputs.image));
    store.delete_sample(new[3].id).await.unwrap().unwrap();
    assert_eq!(counts(&store, run.id).await, (2, 0, 0));
    let recorded = store.record_pending(&scored_sample(&new[0], vec![]), run.id).await.unwrap();
    assert_eq!(recorded, None, "a sample deleted during its scoring is not recorded");

    let known = store.delete_image(new[1].inputs.image).await.unwrap();
    assert!(known.is_some());
    assert_eq!(counts(&store, run.id).await, (1, 1, 0), "a sample without its image fails");
    assert!(store.delete_image(new[1].inputs.references[0]).await.unwrap().is_some());
    assert_eq!(counts(&store, run.id).await, (0, 2, 0));
    let failed =
        store.accepted_samples(run.id, Some(SampleState::Failed), "", 10).await.unwrap().unwrap();
    assert!(failed.iter().all(|failed| failed.failure.as_ref().unwrap().0 == "image_deleted"));
    assert!(kept(&store, &new[1]).await.is_empty());

    store.accept(&pending(&run, "5")).await.unwrap();
    let deleted = store.delete_run(run.id).await.unwrap().unwrap();
    assert_eq!(deleted.samples, 3);
    assert!(
        deleted.images.contains(&ContentHash::of(b"5"))
            && deleted.images.contains(&new[0].inputs.references[0])
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
    for image in [waiting.inputs.image, waiting.inputs.references[0]] {
        store.save_faces(&faces(image)).await.unwrap();
    }
    let known = || async {
        let images = [waiting.inputs.image, waiting.inputs.references[0]];
        store.faces(&images, ContentHash::of(b"graphs")).await.unwrap().len()
    };
    let mut other = sample("B", "1");
    other.inputs.image = waiting.inputs.image;
    other.inputs.references = waiting.inputs.references.clone();
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

pub(crate) async fn blocked_samples_are_reported(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    for name in ["1", "2", "3"] {
        store.accept(&pending(&run, name)).await.unwrap();
    }
    let other = store.create_run(&name("other"), &RunFacts::default(), at(0)).await.unwrap().0;
    store.accept(&pending(&other, "1")).await.unwrap();
    store.fail_pending(pending(&run, "3").id, "image_corrupt", "why").await.unwrap();
    let held = store.blocked_samples(FOLDER, &demo().digest).await.unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].pack.clone(), held[0].samples, held[0].runs), (official(), 4, 2));
    assert!(store.blocked_samples(FOLDER, &official().digest).await.unwrap().is_empty());
    assert!(store.blocked_samples("another", &demo().digest).await.unwrap().is_empty());
}
