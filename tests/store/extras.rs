//! Evidence and thumbnails beside scores.

use sqlx::Executor as _;
use stellar_score::content::ContentHash;
use stellar_score::store::{Extras, NewSample, NewThumbnail, Store};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::harness::*;

const IMAGE: &[u8] = b"image";

fn with_extras(name: &str, evidence: &'static [u8], images: &[&[u8]]) -> NewSample {
    let thumbnail = |bytes: &&[u8]| NewThumbnail {
        image: ContentHash::of(bytes),
        webp: [b"small ", *bytes].concat().into(),
    };
    NewSample {
        extras: Extras {
            evidence: Some(evidence.into()),
            thumbnails: images.iter().map(thumbnail).collect(),
            began: Some(at(0)),
            faces: None,
        },
        ..scored("A", name, vec![number("m", 0.5)])
    }
}

async fn evidence(store: &Store, sample: Uuid) -> Vec<Vec<u8>> {
    let all = store.evidence(sample).await.unwrap();
    all.into_iter().map(|record| record.evidence).collect()
}

pub(crate) async fn evidence_reads_back_in_the_order_of_recording(db: Database) {
    let store = db.open().await;
    let first = with_extras("1", b"first", &[]);
    let id = store.record(&first).await.unwrap().sample;
    let again = NewSample { id: Uuid::now_v7(), ..with_extras("1", b"again", &[]) };
    store.record(&again).await.unwrap();
    assert_eq!(evidence(&store, id).await, [b"first"], "a repetition adds nothing");
    let pictured = NewSample { id: Uuid::now_v7(), ..with_extras("1", b"again", &[IMAGE]) };
    store.record(&pictured).await.unwrap();
    assert_eq!(evidence(&store, id).await, [b"first"]);
    assert!(store.thumbnail(ContentHash::of(IMAGE)).await.unwrap().is_some(), "but a thumbnail");
    let further = NewSample {
        id: Uuid::now_v7(),
        created: at(60),
        scores: vec![number("n", 1.0)],
        ..with_extras("1", b"further", &[])
    };
    store.record(&further).await.unwrap();
    assert_eq!(evidence(&store, id).await, [&b"first"[..], b"further"]);
    assert!(evidence(&store, Uuid::now_v7()).await.is_empty());

    assert_eq!(store.purge_evidence(Some(at(30))).await.unwrap(), 1);
    assert_eq!(evidence(&store, id).await, [b"further"]);
    assert_eq!(store.purge_evidence(None).await.unwrap(), 1);
    store.record(&again).await.unwrap();
    assert_eq!(evidence(&store, id).await, [b"again"], "a repetition brings it back");
}

pub(crate) async fn extras_are_written_by_shared_transactions(db: Database) {
    let store = db.open().await;
    // The run exists, so that all others are grouped.
    store.record(&with_extras("first", b"e", &[IMAGE])).await.unwrap();
    let all: Vec<_> =
        (0..200).map(|at| with_extras(&at.to_string(), b"e", &[IMAGE, b"photo"])).collect();
    let recorded: Vec<_> = all
        .iter()
        .map(|sample| {
            let (store, sample) = (store.clone(), sample.clone());
            tokio::spawn(async move { store.record(&sample).await.unwrap().sample })
        })
        .collect();
    for sample in recorded {
        assert_eq!(evidence(&store, sample.await.unwrap()).await.len(), 1);
    }
    assert_eq!(db.count("evidence").await, 201);
    assert_eq!(db.count("thumbnails").await, 2);
    let image = store.thumbnail(ContentHash::of(IMAGE)).await.unwrap().unwrap();
    assert_eq!(image, b"small image");
}

pub(crate) async fn thumbnails_expire_after_they_were_last_needed(db: Database) {
    let store = db.open().await;
    let (image, photo) = (ContentHash::of(IMAGE), ContentHash::of(b"photo"));
    store.record(&with_extras("1", b"e", &[IMAGE, b"photo"])).await.unwrap();
    let later = NewSample { created: at(60), ..with_extras("2", b"e", &[IMAGE]) };
    store.record(&later).await.unwrap();
    let both = [image, photo];
    assert_eq!(store.with_thumbnail(&both, at(-1)).await.unwrap().len(), 2);
    assert_eq!(store.with_thumbnail(&both, at(30)).await.unwrap(), [image].into());
    assert_eq!(store.purge_thumbnails(Some(at(30))).await.unwrap(), 1);
    assert_eq!(store.thumbnail(photo).await.unwrap(), None);
    assert!(store.thumbnail(image).await.unwrap().is_some());
    assert_eq!(store.purge_thumbnails(None).await.unwrap(), 1);
}

pub(crate) async fn extras_are_deleted_with_their_sample_run_or_image(db: Database) {
    let store = db.open().await;
    let (image, reference) = (ContentHash::of(IMAGE), ContentHash::of(b"reference"));
    let mut one = with_extras("1", b"e", &[b"one", b"reference"]);
    one.inputs.image = ContentHash::of(b"one");
    store.record(&one).await.unwrap();
    let run = store.record(&with_extras("2", b"e", &[IMAGE])).await.unwrap().run.unwrap();
    store.delete_sample(one.id).await.unwrap().unwrap();
    assert_eq!(db.count("evidence").await, 1);
    assert_eq!(store.thumbnail(one.inputs.image).await.unwrap(), None);
    assert!(store.thumbnail(reference).await.unwrap().is_some(), "the other sample has it");
    store.delete_image(reference).await.unwrap().unwrap();
    assert_eq!(store.thumbnail(reference).await.unwrap(), None);
    assert_eq!(db.count("evidence").await, 0, "it has the faces of the image");
    assert!(store.thumbnail(image).await.unwrap().is_some());
    store.delete_run(run).await.unwrap().unwrap();
    assert_eq!(db.count("thumbnails").await, 0);
}

pub(crate) async fn a_deletion_waits_for_a_recording_that_did_not_see_it(db: Database) {
    let Some(mut recording) = db.postgres().await else { return };
    let store = db.open().await;
    let (image, other) = (ContentHash::of(IMAGE), ContentHash::of(b"other"));
    store.record(&with_extras("1", b"e", &[IMAGE])).await.unwrap();
    store.delete_image(other).await.unwrap();
    // As recordings do: they look for deletions, and then write.
    for sql in
        ["BEGIN", "SELECT image FROM deleted_images FOR SHARE", "UPDATE thumbnails SET webp = webp"]
    {
        recording.execute(sql).await.unwrap();
    }
    let deletion = tokio::spawn({
        let store = store.clone();
        async move { store.delete_image(image).await.unwrap() }
    });
    let waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'ExclusiveLock'
                   AND relation = 'deleted_images'::regclass";
    while recording.fetch_optional(waiting).await.unwrap().is_none() {
        assert!(!deletion.is_finished(), "it did not wait");
        tokio::task::yield_now().await;
    }
    recording.execute("COMMIT").await.unwrap();
    assert!(deletion.await.unwrap().is_some());
    assert_eq!(store.thumbnail(image).await.unwrap(), None);
}

pub(crate) async fn nothing_is_kept_of_an_image_that_was_deleted_meanwhile(db: Database) {
    let store = db.open().await;
    store.record(&with_extras("1", b"e", &[IMAGE])).await.unwrap();
    store.delete_image(ContentHash::of(IMAGE)).await.unwrap().unwrap();
    // It began to be scored before the deletion.
    let late = with_extras("2", b"e", &[IMAGE, b"photo"]);
    store.record(&late).await.unwrap();
    assert!(evidence(&store, late.id).await.is_empty());
    assert_eq!(store.thumbnail(ContentHash::of(IMAGE)).await.unwrap(), None);
    assert!(store.thumbnail(ContentHash::of(b"photo")).await.unwrap().is_some());
    let now = OffsetDateTime::now_utc() + time::Duration::seconds(1);
    let mut fresh = with_extras("3", b"e", &[IMAGE]);
    fresh.extras.began = Some(now);
    store.record(&fresh).await.unwrap();
    assert_eq!(evidence(&store, fresh.id).await.len(), 1, "it began after the deletion");
}
