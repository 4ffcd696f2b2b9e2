//! Deletion: what is deleted, what stays, and the means of what remains.

use stellar_score::content::ContentHash;
use stellar_score::store::{
    NeededFaces, NewPending, NewSample, Recorded, RunFacts, Store, StoreError,
};
use uuid::Uuid;

use crate::builders::{counts, name, new_run, pending, scored_sample};
use crate::datasets::{faces, photo};
use crate::harness::*;

async fn known(store: &Store, image: ContentHash) -> bool {
    !store.faces(&[image], ContentHash::of(b"graphs")).await.unwrap().is_empty()
}

pub(crate) async fn a_deleted_sample_is_removed_from_the_summaries(db: Database) {
    let store = db.open().await;
    let mut ids = Vec::new();
    // The first number is the pivot of the sums. The databases must handle a subnormal product.
    for (name, value) in [("1", 1e9), ("2", 0.5), ("3", 0.25), ("4", 0.25 + 1e-160)] {
        ids.push(store.record(&scored("A", name, vec![number("m", value)])).await.unwrap().sample);
    }
    ids.push(store.record(&scored("A", "5", vec![null("m", "no_face")])).await.unwrap().sample);
    let gone = store.delete_sample(ids[0]).await.unwrap().unwrap();
    assert_eq!((gone.samples, gone.scores, gone.faces), (1, 1, 0));
    assert_eq!(gone.images.len(), 2);
    let found = only_summary(&store).await;
    assert_eq!((found.n, found.nulls), (3, 1));
    let mean = 1.0 / 3.0;
    assert!((found.mean.unwrap() - mean).abs() < 1e-15, "1e9 leaves no rounding error: {found:?}");
    let variance = (0.5 - mean).powi(2) / 2.0 + (0.25 - mean).powi(2);
    assert!((found.std.unwrap() - variance.sqrt()).abs() < 1e-15, "{found:?}");

    store.delete_sample(ids[4]).await.unwrap().unwrap();
    assert_eq!(only_summary(&store).await.nulls, 0);
    assert_eq!(store.sample(ids[0]).await.unwrap(), None);
    assert_eq!(store.delete_sample(ids[0]).await.unwrap(), None, "it is already deleted");
    // Later scores are added to the sums.
    store.record(&scored("A", "6", vec![number("m", 2.0)])).await.unwrap();
    assert!((only_summary(&store).await.mean.unwrap() - 0.75).abs() < 1e-15);
}

pub(crate) async fn deleting_the_last_sample_removes_the_row(db: Database) {
    let store = db.open().await;
    let id = store.record(&scored("A", "1", vec![number("m", 0.5)])).await.unwrap().sample;
    store.delete_sample(id).await.unwrap().unwrap();
    assert!(by_run(&store).await.rows.is_empty());
    assert_eq!(db.count("summaries").await, 0);
    assert_eq!(db.count("sample_photos").await, 0);
    let outside = NewSample { run: None, ..scored("A", "2", vec![number("m", 0.5)]) };
    store.record(&outside).await.unwrap();
    assert!(
        store.delete_sample(outside.id).await.unwrap().is_some(),
        "a sample outside any run can be deleted"
    );
}

pub(crate) async fn deleting_a_run_leaves_other_runs_unchanged(db: Database) {
    let store = db.open().await;
    let mut run = None;
    for name in ["1", "2"] {
        run = store
            .record(&scored("A", name, vec![number("m", 0.5), number("k", 1.0)]))
            .await
            .unwrap()
            .run;
        store.record(&scored("B", name, vec![number("m", 0.25)])).await.unwrap();
    }
    let gone = store.delete_run(run.unwrap()).await.unwrap().unwrap();
    assert_eq!((gone.samples, gone.scores), (2, 4));
    let page = by_run(&store).await;
    assert_eq!(page.rows.iter().map(|row| row.method.as_str()).collect::<Vec<_>>(), ["B"]);
    assert_eq!(store.delete_run(run.unwrap()).await.unwrap(), None);
    let again = store.record(&scored("A", "1", vec![number("m", 0.5)])).await.unwrap();
    assert_ne!(again.run, run, "the name is free again");
}

pub(crate) async fn faces_are_deleted_with_the_last_use_of_their_image(db: Database) {
    let store = db.open().await;
    let (image, shared) = (ContentHash::of(b"image"), ContentHash::of(b"reference"));
    let auxiliary = ContentHash::of(b"auxiliary");
    for image in [image, shared, auxiliary] {
        store.save_faces(&faces(image)).await.unwrap();
    }
    let mut one = sample("A", "1");
    one.inputs.auxiliary = vec![auxiliary, shared];
    let mut two = sample("A", "2");
    two.inputs.image = ContentHash::of(b"other");
    store.record(&one).await.unwrap();
    let run = store.record(&two).await.unwrap().run.unwrap();

    let gone = store.delete_sample(one.id).await.unwrap().unwrap();
    assert_eq!(gone.faces, 2, "the faces of the image and of the auxiliary photo");
    assert!(
        !known(&store, image).await
            && !known(&store, auxiliary).await
            && known(&store, shared).await
    );
    assert_eq!(gone.images.len(), 3, "all three images are evicted from caches");

    let enrolled = stellar_score::store::NewPhoto { image: shared, ..photo("D", "000", "0") };
    store.enrol(&enrolled).await.unwrap();
    store.delete_run(run).await.unwrap().unwrap();
    assert!(known(&store, shared).await, "the dataset still uses it");
    assert_eq!(store.delete_dataset("D").await.unwrap().unwrap().faces, 1);
    assert!(!known(&store, shared).await);
}

pub(crate) async fn deleting_a_dataset_leaves_others_unchanged(db: Database) {
    let store = db.open().await;
    for dataset in ["D", "E"] {
        store.enrol(&photo(dataset, "000", "0")).await.unwrap();
        store.enrol(&photo(dataset, "000", "1")).await.unwrap();
    }
    let gone = store.delete_dataset("D").await.unwrap().unwrap();
    assert_eq!((gone.photos, gone.images.len()), (2, 2));
    assert_eq!(store.dataset("D").await.unwrap(), None);
    assert_eq!(store.dataset("E").await.unwrap().unwrap().photos, 2);
    assert_eq!(store.delete_dataset("D").await.unwrap(), None);
}

pub(crate) async fn deleting_an_image_deletes_its_faces_and_enrolments_everywhere(db: Database) {
    let store = db.open().await;
    let shared = ContentHash::of(b"reference");
    store.save_faces(&faces(shared)).await.unwrap();
    let new = scored("A", "1", vec![number("m", 0.5)]);
    store.record(&new).await.unwrap();
    for dataset in ["D", "E"] {
        store.enrol(&photo(dataset, "000", "1")).await.unwrap();
        let enrolled =
            stellar_score::store::NewPhoto { image: shared, ..photo(dataset, "000", "0") };
        store.enrol(&enrolled).await.unwrap();
    }
    let gone = store.delete_image(shared).await.unwrap().unwrap();
    assert_eq!((gone.photos, gone.faces, gone.samples, &gone.images[..]), (2, 1, 0, &[shared][..]));
    assert!(!known(&store, shared).await);
    for dataset in ["D", "E"] {
        let dataset = store.dataset(dataset).await.unwrap().unwrap();
        assert_eq!(
            (dataset.photos, dataset.revision),
            (1, 3),
            "classifiers learnt from it are out of date"
        );
    }
    assert_eq!(store.sample(new.id).await.unwrap().unwrap().scores.len(), 1, "scores stay");
    let again = store.delete_image(shared).await.unwrap().unwrap();
    assert_eq!((again.photos, again.faces), (0, 0));
}

pub(crate) async fn deleting_the_unknown_returns_none(db: Database) {
    let store = db.open().await;
    assert_eq!(store.delete_sample(Uuid::now_v7()).await.unwrap(), None);
    assert_eq!(store.delete_run(Uuid::now_v7()).await.unwrap(), None);
    assert_eq!(store.delete_dataset("D").await.unwrap(), None);
    assert_eq!(store.delete_image(ContentHash::of(b"none")).await.unwrap(), None);
}

pub(crate) async fn concurrent_deletions_and_recordings_keep_the_sums(db: Database) {
    let store = db.open().await;
    let mut first = Vec::new();
    for name in 0..16 {
        let new = scored("A", &format!("old {name}"), vec![number("m", 100.0 + f64::from(name))]);
        first.push(store.record(&new).await.unwrap().sample);
    }
    let deletions = first.into_iter().map(|id| {
        let store = store.clone();
        tokio::spawn(async move { assert!(store.delete_sample(id).await.unwrap().is_some()) })
    });
    let recordings = (0..16).map(|name| {
        let store = store.clone();
        let new = scored("A", &format!("new {name}"), vec![number("m", f64::from(name))]);
        tokio::spawn(async move { assert!(store.record(&new).await.is_ok()) })
    });
    for work in deletions.chain(recordings).collect::<Vec<_>>() {
        work.await.unwrap();
    }
    let found = only_summary(&store).await;
    assert_eq!((found.n, found.nulls), (16, 0));
    assert!((found.mean.unwrap() - 7.5).abs() < 1e-11, "{found:?}");
}

/// Records a pending sample as a worker does: it stores faces again that are cached and were
/// deleted from the store.
async fn record_with_faces(store: &Store, new: &NewPending) -> Option<Recorded> {
    let graphs = ContentHash::of(b"graphs");
    let images = vec![new.inputs.image, new.inputs.references[0]];
    let mut sample = scored_sample(new, vec![number("m", 1.0)]);
    sample.extras.faces = Some(NeededFaces { images: images.clone(), graphs });
    loop {
        match store.record_pending(&sample, new.run).await {
            Ok(recorded) => return recorded,
            Err(StoreError::FacesNotStored { .. }) => {
                for image in &images {
                    store.save_needed_faces(&faces(*image)).await.unwrap();
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Samples are recorded while others with the same images and photo are deleted, with their run and
/// alone, pending and recorded ones.
pub(crate) async fn concurrent_deletions_leave_recorded_samples_their_faces(db: Database) {
    let store = db.open().await;
    let run = new_run(&store).await;
    let copy = store.create_run(&name("copy"), &RunFacts::default(), at(0)).await.unwrap().0;
    let mut new = Vec::new();
    for number in 0..40 {
        for of in [&copy, &run] {
            new.push(pending(of, &format!("{number}")));
            store.accept(&new[new.len() - 1]).await.unwrap();
        }
    }
    let (copies, kept): (Vec<_>, Vec<_>) = new.into_iter().partition(|new| new.run == copy.id);
    for new in copies.iter().take(30).chain(kept.iter().take(8)) {
        assert!(record_with_faces(&store, new).await.is_some());
    }
    let recordings = copies.iter().chain(&kept).map(|new| {
        let (store, new) = (store.clone(), new.clone());
        tokio::spawn(async move {
            record_with_faces(&store, &new).await;
        })
    });
    // Recorded before, being recorded, and perhaps still pending.
    let gone: Vec<_> = kept[4..12].iter().map(|new| new.id).collect();
    let deletions = gone.iter().map(|id| {
        let (store, id) = (store.clone(), *id);
        tokio::spawn(async move { assert!(store.delete_sample(id).await.unwrap().is_some()) })
    });
    let of_copy = tokio::spawn({
        let store = store.clone();
        async move { assert!(store.delete_run(copy.id).await.unwrap().is_some()) }
    });
    for work in recordings.chain(deletions).chain([of_copy]).collect::<Vec<_>>() {
        work.await.unwrap();
    }
    assert_eq!(counts(&store, run.id).await, (0, 0, 32));
    for new in kept {
        let stays = !gone.contains(&new.id);
        assert_eq!(known(&store, new.inputs.image).await, stays, "{}", new.name);
        assert!(known(&store, new.inputs.references[0]).await);
    }
}
