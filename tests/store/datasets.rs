//! Datasets, their photos, and stored faces.

use stellar_score::content::ContentHash;
use stellar_score::store::{
    FacesRecord, ImagesOf, MAX_PROMPTS, NewPhoto, PromptFacts, PromptQuery, PromptRecord,
    Registered, StoreError,
};
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
    FacesRecord {
        image,
        graphs: ContentHash::of(b"graphs"),
        faces: vec![0, 1, 255],
        created: at(0),
    }
}

pub(crate) async fn a_photo_is_identified_by_identity_and_name(db: Database) {
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
    for invalid in [
        NewPhoto { identity: String::new(), ..new.clone() },
        NewPhoto { name: "\0".into(), ..new.clone() },
    ] {
        assert!(matches!(store.enrol(&invalid).await.unwrap_err(), StoreError::Invalid { .. }));
    }
    let dataset = store.dataset("D").await.unwrap().unwrap();
    assert_eq!((dataset.photos, dataset.revision), (1, 2), "a refused photo changes nothing");
    let photos = store.photos(dataset.id).await.unwrap();
    assert_eq!(
        (photos.len(), photos[0].image, &photos[0].attributes),
        (1, new.image, &new.attributes)
    );
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
    two.inputs.references = vec![ContentHash::of(b"first"), ContentHash::of(b"second")];
    two.inputs.metadata = serde_json::json!({"attributes": {"Young": true}});
    let mut one = sample("A", "1");
    one.inputs.references = vec![];
    let run = store.record(&two).await.unwrap().run.unwrap();
    store.record(&one).await.unwrap();
    store.record(&sample("B", "3")).await.unwrap();
    let samples = store.run_samples(run).await.unwrap().unwrap();
    assert_eq!(samples.iter().map(|sample| sample.id).collect::<Vec<_>>(), [one.id, two.id]);
    assert_eq!(samples[0].reference, None);
    assert_eq!(samples[1].reference, Some(ContentHash::of(b"first")));
    assert_eq!(samples[1].metadata, two.inputs.metadata);
    assert_eq!(store.run_samples(uuid::Uuid::now_v7()).await.unwrap(), None);
}

pub(crate) async fn faces_read_back_and_expire_unless_the_photo_is_enrolled(db: Database) {
    let store = db.open().await;
    let (kept, enrolled) = (ContentHash::of(b"kept"), photo("D", "000", "0"));
    for image in [kept, enrolled.image] {
        store.save_faces(&faces(image)).await.unwrap();
    }
    store.enrol(&enrolled).await.unwrap();
    let many: Vec<_> =
        (0..1200_u32).map(|i| ContentHash::of(&i.to_le_bytes())).chain([kept]).collect();
    let graphs = ContentHash::of(b"graphs");
    assert_eq!(store.faces(&many, graphs).await.unwrap(), [(kept, vec![0, 1, 255])].into());
    assert!(store.faces(&many, ContentHash::of(b"other graphs")).await.unwrap().is_empty());

    // Detected again: the newer faces replace the old ones, and their retention starts again.
    store
        .save_faces(&FacesRecord { faces: vec![7], created: at(1000), ..faces(kept) })
        .await
        .unwrap();
    assert_eq!(store.purge_faces(Some(at(500))).await.unwrap(), 0);
    assert_eq!(store.faces(&[kept], graphs).await.unwrap()[&kept], [7]);
    assert_eq!(store.purge_faces(Some(at(1000) + Duration::seconds(1))).await.unwrap(), 1);
    assert!(store.faces(&[kept], graphs).await.unwrap().is_empty());
    assert_eq!(store.purge_faces(None).await.unwrap(), 1, "all faces, including enrolled ones");
}

pub(crate) async fn the_faces_state_changes_with_the_stored_faces(db: Database) {
    let store = db.open().await;
    let enrolled = photo("D", "000", "0");
    store.enrol(&enrolled).await.unwrap();
    let one = sample("A", "1");
    let run = store.record(&one).await.unwrap().run.unwrap();
    let dataset = store.dataset("D").await.unwrap().unwrap().id;
    let graphs = ContentHash::of(b"graphs");
    let mut states = Vec::new();
    let mut check = async |what: &str, images: [u64; 2]| {
        let of_run = store.faces_state(ImagesOf::Run(run), graphs).await.unwrap();
        let of_dataset = store.faces_state(ImagesOf::Dataset(dataset), graphs).await.unwrap();
        assert_eq!([of_run.images, of_dataset.images], images, "{what}");
        let state = (of_run, of_dataset);
        assert!(!states.contains(&state), "{what}: the state is not new: {state:?}");
        states.push(state);
    };
    check("nothing", [0, 0]).await;
    store.save_faces(&faces(enrolled.image)).await.unwrap();
    check("a photo's", [0, 1]).await;
    store.save_faces(&FacesRecord { created: at(5), ..faces(one.inputs.image) }).await.unwrap();
    check("a generated image's", [1, 1]).await;
    store
        .save_faces(&FacesRecord { created: at(6), ..faces(one.inputs.references[0]) })
        .await
        .unwrap();
    check("a reference's", [2, 1]).await;
    store.save_faces(&FacesRecord { created: at(7), ..faces(one.inputs.image) }).await.unwrap();
    check("found again", [2, 1]).await;
    store
        .save_faces(&FacesRecord { graphs: ContentHash::of(b"others"), ..faces(one.inputs.image) })
        .await
        .unwrap();
    assert_eq!(
        store.faces_state(ImagesOf::Run(run), graphs).await.unwrap(),
        states[4].0,
        "faces of other graphs do not count"
    );
}

pub(crate) async fn photos_are_read_in_pages(db: Database) {
    let store = db.open().await;
    for (identity, name) in [("b", "1"), ("a", "2"), ("a", "1"), ("c", "1")] {
        store.enrol(&photo("D", identity, name)).await.unwrap();
    }
    let dataset = store.dataset("D").await.unwrap().unwrap().id;
    let all = store.photos(dataset).await.unwrap();
    assert_eq!(all.len(), 4);
    for (offset, limit, expected) in
        [(0, 2, &all[..2]), (2, 10, &all[2..]), (4, 1, &[]), (u64::MAX, 1, &[])]
    {
        assert_eq!(store.photos_page(dataset, offset, limit).await.unwrap(), expected, "{offset}");
    }
}

fn prompt(identity: &str, text: &str) -> PromptRecord {
    let facts = PromptFacts { detectables: vec!["horse".into()], ..PromptFacts::default() };
    PromptRecord { identity: identity.into(), text: text.into(), kind: Some("T".into()), facts }
}

pub(crate) async fn a_prompt_is_identified_by_identity_and_text(db: Database) {
    let store = db.open().await;
    let first =
        [prompt("000", "{} riding"), prompt("001", "{} riding"), prompt("000", "{} asleep")];
    let done = store.register_prompts("D", &first, at(0)).await.unwrap();
    assert_eq!(done, Registered { created: 3, ..Registered::default() });

    let mut labelled = prompt("000", "{} riding");
    labelled.facts.relations = vec![["person", "riding", "horse"].map(str::to_owned)];
    let mut twice = prompt("002", "{} twice");
    twice.kind = None;
    let second =
        [labelled.clone(), prompt("000", "{} asleep"), prompt("002", "{} twice"), twice.clone()];
    let done = store.register_prompts("D", &second, at(1)).await.unwrap();
    assert_eq!(done, Registered { created: 1, changed: 1, repeated: 1 });

    let dataset = store.dataset("D").await.unwrap().unwrap();
    assert_eq!((dataset.prompts, dataset.photos, dataset.revision), (4, 0, 0));
    let all = store
        .prompts(dataset.id, &PromptQuery { limit: 10, ..PromptQuery::default() })
        .await
        .unwrap();
    let all: Vec<PromptRecord> = all.into_iter().map(|(_, prompt)| prompt).collect();
    assert_eq!(all, [labelled, prompt("000", "{} asleep"), prompt("001", "{} riding"), twice]);
}

pub(crate) async fn prompts_are_read_in_pages_by_identity_and_kind(db: Database) {
    let store = db.open().await;
    let mut prompts: Vec<PromptRecord> = ["b", "a"]
        .iter()
        .flat_map(|identity| (0..5).map(move |at| prompt(identity, &format!("{at}"))))
        .collect();
    prompts[2].kind = Some("H".into());
    store.register_prompts("D", &prompts, at(0)).await.unwrap();
    store.register_prompts("E", &[prompt("a", "elsewhere")], at(0)).await.unwrap();
    let dataset = store.dataset("D").await.unwrap().unwrap().id;
    let mut read = Vec::new();
    let mut after = None;
    loop {
        let query = PromptQuery { after, limit: 3, ..PromptQuery::default() };
        let page = store.prompts(dataset, &query).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        read.extend(page.into_iter().map(|(_, prompt)| prompt));
    }
    prompts.rotate_left(5);
    assert_eq!(read, prompts);

    let only = |identity: Option<&str>, kind: Option<&str>| PromptQuery {
        identity: identity.map(str::to_owned),
        kind: kind.map(str::to_owned),
        limit: 100,
        after: None,
    };
    for (identity, kind, expected) in [
        (Some("a"), None, 5),
        (None, Some("T"), 9),
        (Some("b"), Some("H"), 1),
        (Some("a"), Some("H"), 0),
    ] {
        let count = store.prompts(dataset, &only(identity, kind)).await.unwrap().len();
        assert_eq!(count, expected, "{identity:?} {kind:?}");
    }
}

pub(crate) async fn invalid_prompts_are_refused_as_a_batch(db: Database) {
    let store = db.open().await;
    let many = vec![prompt("000", "x"); MAX_PROMPTS + 1];
    for wrong in [&many[..], &[prompt("000", "x"), prompt("", "y")], &[prompt("000", "\0")]] {
        let error = store.register_prompts("D", wrong, at(0)).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
    }
    assert_eq!(store.dataset("D").await.unwrap(), None);
}

pub(crate) async fn concurrent_registrations_assign_unique_positions(db: Database) {
    let store = db.open().await;
    let tasks = (0..8).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            let prompts: Vec<_> =
                (0..20).map(|at| prompt("000", &format!("{}", task * 10 + at))).collect();
            store.register_prompts("D", &prompts, at(0)).await.unwrap()
        })
    });
    let mut created = 0;
    for task in tasks.collect::<Vec<_>>() {
        created += task.await.unwrap().created;
    }
    // Consecutive tasks share ten prompts.
    assert_eq!(created, 90);
    let dataset = store.dataset("D").await.unwrap().unwrap();
    let all = store
        .prompts(dataset.id, &PromptQuery { limit: 200, ..PromptQuery::default() })
        .await
        .unwrap();
    let positions: Vec<u64> = all.iter().map(|(at, _)| at.position).collect();
    assert_eq!(positions, (0..90).collect::<Vec<_>>());
}

pub(crate) async fn prompts_are_deleted_with_their_dataset(db: Database) {
    let store = db.open().await;
    store.register_prompts("D", &[prompt("000", "x"), prompt("001", "x")], at(0)).await.unwrap();
    store.register_prompts("E", &[prompt("000", "x")], at(0)).await.unwrap();
    let deleted = store.delete_dataset("D").await.unwrap().unwrap();
    assert_eq!((deleted.prompts, deleted.photos), (2, 0));
    assert_eq!(store.dataset("D").await.unwrap(), None);
    assert_eq!(store.dataset("E").await.unwrap().unwrap().prompts, 1);
}
