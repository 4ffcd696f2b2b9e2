//! Datasets, their photos, and kept faces.

use stellar_score::content::ContentHash;
use stellar_score::store::{FacesRecord, NewPhoto, StoreError};
use time::Duration;

use crate::harness::*;

pub(crate) fn photo(dataset: &str, identity: &str, name: &str) -> NewPhoto {
    NewPhoto {
        dataset: dataset.into(),
        identity: identity.into(),
        name: name.into(),
        image: ContentHash::of(format!("{identity}/{name}").as_bytes()),
        attributes: [("Young".to_owned(), true)].into(),
        created: at(0),
        new_faces: false,
    }
}

pub(crate) fn faces(image: ContentHash) -> FacesRecord {
    FacesRecord { image, graphs: ContentHash::of(b"graphs"), faces: vec![0, 1, 255], created: at(0) }
}

pub(crate) async fn a_photo_is_known_by_identity_and_name(db: Database) {
    let store = db.open().await;
    let new = photo("D", "000", "0");
    let enrolled = store.enrol(&new).await.unwrap();
    assert_eq!((enrolled.created, enrolled.revision), (true, 1));
    let again = store.enrol(&new).await.unwrap();
    assert_eq!((again.created, again.revision), (false, 1));
    let with_faces = store.enrol(&NewPhoto { new_faces: true, ..new.clone() }).await.unwrap();
    assert_eq!((with_faces.created, with_faces.revision), (false, 2));

    let other = NewPhoto { image: ContentHash::of(b"other"), ..new.clone() };
    let older = NewPhoto { attributes: [("Young".to_owned(), false)].into(), ..new.clone() };
    for conflict in [other, older] {
        let error = store.enrol(&conflict).await.unwrap_err();
        assert!(matches!(error, StoreError::PhotoConflict { .. }), "{error:?}");
    }
    for invalid in
        [NewPhoto { identity: String::new(), ..new.clone() }, NewPhoto { name: "\0".into(), ..new.clone() }]
    {
        assert!(matches!(store.enrol(&invalid).await.unwrap_err(), StoreError::Invalid { .. }));
    }
    let dataset = store.dataset("D").await.unwrap().unwrap();
    assert_eq!((dataset.photos, dataset.revision), (1, 2), "a refused photo changes nothing");
    let photos = store.photos(dataset.id).await.unwrap();
    assert_eq!((photos.len(), photos[0].image, &photos[0].attributes), (1, new.image, &new.attributes));
    assert_eq!(store.dataset("E").await.unwrap(), None);
}

pub(crate) async fn datasets_are_listed_by_name(db: Database) {
    let store = db.open().await;
    for name in ["b", "a", "B", "c"] {
        store.enrol(&photo(name, "000", "0")).await.unwrap();
    }
    let names = |page: Vec<stellar_score::store::DatasetRecord>| {
        page.into_iter().map(|dataset| dataset.name).collect::<Vec<_>>()
    };
    assert_eq!(names(store.datasets("", 3).await.unwrap()), ["B", "a", "b"]);
    assert_eq!(names(store.datasets("b", 3).await.unwrap()), ["c"]);
}

pub(crate) async fn the_samples_of_a_run_come_with_their_first_reference(db: Database) {
    let store = db.open().await;
    let mut two = sample("A", "2");
    two.references = vec![ContentHash::of(b"first"), ContentHash::of(b"second")];
    two.metadata = serde_json::json!({"attributes": {"Young": true}});
    let one = stellar_score::store::NewSample { references: vec![], ..sample("A", "1") };
    let run = store.record(&two).await.unwrap().run.unwrap();
    store.record(&one).await.unwrap();
    store.record(&sample("B", "3")).await.unwrap();
    let samples = store.run_samples(run).await.unwrap().unwrap();
    assert_eq!(samples.iter().map(|sample| sample.id).collect::<Vec<_>>(), [one.id, two.id]);
    assert_eq!(samples[0].reference, None);
    assert_eq!(samples[1].reference, Some(ContentHash::of(b"first")));
    assert_eq!(samples[1].metadata, two.metadata);
    assert_eq!(store.run_samples(uuid::Uuid::now_v7()).await.unwrap(), None);
}

pub(crate) async fn faces_read_back_and_expire_unless_the_photo_is_enrolled(db: Database) {
    let store = db.open().await;
    let (kept, enrolled) = (ContentHash::of(b"kept"), photo("D", "000", "0"));
    for image in [kept, enrolled.image] {
        store.save_faces(&faces(image)).await.unwrap();
    }
    store.enrol(&enrolled).await.unwrap();
    let many: Vec<_> = (0..1200_u32).map(|i| ContentHash::of(&i.to_le_bytes())).chain([kept]).collect();
    let graphs = ContentHash::of(b"graphs");
    assert_eq!(store.faces(&many, graphs).await.unwrap(), [(kept, vec![0, 1, 255])].into());
    assert!(store.faces(&many, ContentHash::of(b"other graphs")).await.unwrap().is_empty());

    // Found again: the newer ones stand, and their time begins anew.
    store.save_faces(&FacesRecord { faces: vec![7], created: at(1000), ..faces(kept) }).await.unwrap();
    assert_eq!(store.purge_faces(Some(at(500))).await.unwrap(), 0);
    assert_eq!(store.faces(&[kept], graphs).await.unwrap()[&kept], [7]);
    assert_eq!(store.purge_faces(Some(at(1000) + Duration::seconds(1))).await.unwrap(), 1);
    assert!(store.faces(&[kept], graphs).await.unwrap().is_empty());
    assert_eq!(store.purge_faces(None).await.unwrap(), 1, "all, enrolled ones too");
}
