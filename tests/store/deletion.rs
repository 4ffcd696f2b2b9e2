//! Deletion: what is deleted, what stays, and the means of what remains.

use stellar_score::content::ContentHash;
use stellar_score::store::{NewSample, Store};
use uuid::Uuid;

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
    let one = NewSample { auxiliary: vec![auxiliary, shared], ..sample("A", "1") };
    let two = NewSample { image: ContentHash::of(b"other"), ..sample("A", "2") };
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
