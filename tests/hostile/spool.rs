//! Accepted samples and their files: nothing is lost, orphaned or used with the wrong database.

use std::time::Duration;

use serde_json::json;
use stellar_score::{
    content::ContentHash,
    store::{
        Extras, NewPending, NewSample, NewScore, PackId, RunFacts, RunName, RunRecord,
        SampleInputs, ScoreValue, Store, Weights,
    },
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::database::Database;

const FOLDER: &str = "folder";

fn pack() -> PackId {
    PackId { name: "pack".into(), digest: "a".repeat(64), weights: Weights::Official }
}

async fn new_run(store: &Store, run: &str) -> RunRecord {
    let name = RunName::new("m", Some(run.to_owned()));
    store.create_run(&name, &RunFacts::default(), OffsetDateTime::now_utc()).await.expect("a run").0
}

/// A pending sample; the generated image is the same for all names.
pub(crate) fn pending(run: &RunRecord, name: &str, folder: &str) -> NewPending {
    let image = ContentHash::of(b"black");
    NewPending {
        id: Uuid::now_v7(),
        created: OffsetDateTime::now_utc(),
        run: run.id,
        name: name.to_owned(),
        spool: folder.to_owned(),
        files: vec![(image, 1)],
        pack: pack(),
        service_version: "0".into(),
        max_pending: 100,
        key: None,
        inputs: SampleInputs {
            content: ContentHash::of(name.as_bytes()),
            prompt: None,
            image,
            references: vec![],
            auxiliary: vec![],
            metadata: json!({}),
        },
    }
}

pub(crate) fn scored(new: &NewPending, run: &RunRecord) -> NewSample {
    let value = ScoreValue::Number(0.5);
    let score = NewScore { metric: "aesthetic".into(), metric_version: 1, value, flags: vec![] };
    NewSample {
        id: new.id,
        created: new.created,
        run: Some(run.name.clone()),
        name: Some(new.name.clone()),
        width: 2,
        height: 2,
        pack: pack(),
        service_version: "0".into(),
        scores: vec![score],
        extras: Extras::default(),
        inputs: new.inputs.clone(),
    }
}

/// Two samples with one image: the second is accepted while the first is recorded, in many rounds.
async fn an_equal_image_accepted_during_recording_keeps_its_file(database: Database) {
    let (one, two) = (database.open().await, database.open().await);
    let run = new_run(&one, "r").await;
    for round in 0..40 {
        let (first, second) = (
            pending(&run, &format!("a{round}"), FOLDER),
            pending(&run, &format!("b{round}"), FOLDER),
        );
        one.accept(&first).await.expect("accepted");
        let (row, run_of) = (scored(&first, &run), run.id);
        let recording = tokio::spawn({
            let one = one.clone();
            async move { one.record_pending(&row, run_of).await }
        });
        let accepting = tokio::spawn({
            let (two, second) = (two.clone(), second.clone());
            async move { two.accept(&second).await }
        });
        accepting.await.expect("no panic").expect("accepted");
        recording.await.expect("no panic").expect("recorded").expect("it was pending");
        let needed =
            one.needed_files(FOLDER, &[second.inputs.image]).await.expect("the query succeeds");
        assert!(
            needed.contains(&second.inputs.image),
            "round {round}: the file of a pending sample is not listed"
        );
        two.record_pending(&scored(&second, &run), run.id).await.expect("recorded");
        assert!(
            one.needed_files(FOLDER, &[second.inputs.image])
                .await
                .expect("the query succeeds")
                .is_empty()
        );
    }
}

async fn files_of_a_run_ended_by_another_instance_are_released_to_their_owner(database: Database) {
    let (one, two) = (database.open().await, database.open().await);
    let (finished, deleted) = (new_run(&one, "finished").await, new_run(&one, "deleted").await);
    let photo = ContentHash::of(b"photo");
    for run in [&finished, &deleted] {
        let new = pending(run, "a", FOLDER);
        let new = NewPending {
            files: vec![(new.inputs.image, 1), (photo, 2)],
            inputs: SampleInputs { references: vec![photo], ..new.inputs },
            ..new
        };
        one.accept(&new).await.expect("accepted");
        one.record_pending(&scored(&new, run), run.id).await.expect("recorded");
    }
    assert!(one.released_files(FOLDER).await.expect("the query succeeds").is_empty());
    two.finish_run(finished.id).await.expect("finishing");
    two.run_finished(finished.id, OffsetDateTime::now_utc()).await.expect("finished");
    assert_eq!(one.released_files(FOLDER).await.expect("the query succeeds"), [photo]);
    // The other run still needs it, and `needed_files` reports that.
    assert!(one.needed_files(FOLDER, &[photo]).await.expect("the query succeeds").contains(&photo));
    one.forget_released(FOLDER, &[photo]).await.expect("removed");
    two.delete_run(deleted.id).await.expect("deleted");
    assert_eq!(one.released_files(FOLDER).await.expect("the query succeeds"), [photo]);
    assert!(one.needed_files(FOLDER, &[photo]).await.expect("the query succeeds").is_empty());
    assert!(one.released_files("another folder").await.expect("the query succeeds").is_empty());
}

async fn a_database_keeps_its_id(database: Database) {
    let (one, two) = (database.open().await, database.open().await);
    let (first, second) = tokio::join!(one.installation(), two.installation());
    let first = first.expect("an id");
    assert_eq!(second.expect("an id"), first, "concurrent calls agree");
    drop((one, two));
    assert_eq!(database.open().await.installation().await.expect("an id"), first);
}

async fn a_clock_set_back_delays_no_sample(database: Database) {
    let store = database.open().await;
    let run = new_run(&store, "r").await;
    let new = pending(&run, "a", FOLDER);
    store.accept(&new).await.expect("accepted");
    let now = OffsetDateTime::now_utc();
    let next = async || {
        store.due_samples(FOLDER, &pack().digest, now, 10).await.expect("the query succeeds").len()
    };
    store.postpone(new.id, now + Duration::from_mins(1), true).await.expect("put off");
    assert_eq!(next().await, 0, "a short pause is respected");
    store.postpone(new.id, now + Duration::from_hours(8_760), true).await.expect("put off");
    assert_eq!(next().await, 1, "a pause of a year is ignored");
}

async fn deletions_are_reported_and_deleted_faces_are_not_written_again(database: Database) {
    let (one, two) = (database.open().await, database.open().await);
    let (image, graphs) = (ContentHash::of(b"face"), ContentHash::of(b"graphs"));
    let began = OffsetDateTime::now_utc();
    let record = || stellar_score::store::FacesRecord {
        image,
        graphs,
        faces: vec![1],
        created: OffsetDateTime::now_utc(),
    };
    one.save_found_faces(&record(), began).await.expect("saved");
    two.delete_image(image).await.expect("the query succeeds").expect("it was known");
    let deletions = one.deleted_images(began).await.expect("the query succeeds");
    assert!(deletions.iter().any(|(deleted, at)| *deleted == image && *at >= began));
    // Scoring that began before the deletion ends on the other instance.
    one.save_found_faces(&record(), began).await.expect("the query succeeds");
    assert!(one.faces(&[image], graphs).await.expect("the query succeeds").is_empty());
    // The owner may send the image again.
    one.save_found_faces(&record(), OffsetDateTime::now_utc() + Duration::from_millis(1))
        .await
        .expect("saved");
    assert_eq!(one.faces(&[image], graphs).await.expect("the query succeeds").len(), 1);
    one.forget_deletions(OffsetDateTime::now_utc() + Duration::from_secs(1))
        .await
        .expect("removed");
    assert!(one.deleted_images(began).await.expect("the query succeeds").is_empty());
}

crate::on_both_databases!(
    an_equal_image_accepted_during_recording_keeps_its_file,
    files_of_a_run_ended_by_another_instance_are_released_to_their_owner,
    a_database_keeps_its_id,
    a_clock_set_back_delays_no_sample,
    deletions_are_reported_and_deleted_faces_are_not_written_again,
);
