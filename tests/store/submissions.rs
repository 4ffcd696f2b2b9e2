//! Submissions: bundles, the runs of verified ones, and the change log.

use stellar_score::card::MethodCard;
use stellar_score::store::{
    NewImport, NewSubmission, NewVerification, RunFacts, RunName, RunState, ScoreColumn,
    ScoreValue, Store, StoreError, SubmissionRecord, SubmissionState, SubmissionsQuery,
    Verification,
};
use uuid::Uuid;

use crate::builders::import;
use crate::harness::*;

fn submission(digit: char) -> NewSubmission {
    NewSubmission {
        id: Uuid::now_v7(),
        created: at(0),
        digest: digit.to_string().repeat(64),
        name: RunName::new("A", Some("run".to_owned())),
        dataset: Some("stellar".to_owned()),
        split: None,
        pack: official(),
        samples: 3,
        facts: r#"{"made": "up"}"#.to_owned(),
        bundle: vec![0, 255, 7],
        key: Some(Uuid::from_u128(7)),
    }
}

fn verification(of: &SubmissionRecord) -> NewVerification {
    let import = import(Uuid::now_v7(), &["1", "2", "3"], &[0.25, 0.75, f64::NAN]);
    NewVerification {
        submission: of.id,
        verification: Verification {
            share: 0.5,
            seed: u64::MAX,
            samples: 2,
            note: "checked".to_owned(),
            at: at(1),
        },
        key: None,
        facts: RunFacts { dataset: Some("stellar".to_owned()), ..RunFacts::default() },
        card: Some(MethodCard::default()),
        import: NewImport {
            pack: official(),
            contents: ["a", "b", "c"].map(|digit| digit.repeat(64)).to_vec(),
            ..import
        },
    }
}

/// The change log, the newest entry first: action, note, and whether the submission is there.
async fn log(store: &Store) -> Vec<(SubmissionState, String, bool)> {
    let changes = store.board_changes(None, 100).await.unwrap();
    changes.into_iter().map(|of| (of.action, of.note, of.submission.is_some())).collect()
}

fn entry(action: SubmissionState, note: &str, is_there: bool) -> (SubmissionState, String, bool) {
    (action, note.to_owned(), is_there)
}

pub(crate) async fn the_same_bundle_is_received_once(db: Database) {
    let store = db.open().await;
    let new = submission('a');
    let (stored, is_new) = store.receive_submission(&new).await.unwrap();
    assert!(is_new);
    assert_eq!((stored.id, stored.state), (new.id, SubmissionState::Received));
    assert_eq!((&stored.name, &stored.pack, stored.samples), (&new.name, &new.pack, 3));
    let again = NewSubmission { id: Uuid::now_v7(), ..new.clone() };
    assert_eq!(store.receive_submission(&again).await.unwrap(), (stored.clone(), false));
    assert_eq!(store.submission_bundle(new.id).await.unwrap(), Some(new.bundle.clone()));
    assert_eq!(store.submission_facts(new.id).await.unwrap(), Some(new.facts.clone()));
    assert_eq!(store.submission_bundle(Uuid::nil()).await.unwrap(), None);
    assert_eq!(store.submission_of_digest(&new.digest).await.unwrap(), Some(stored.clone()));
    assert_eq!(by_run(&store).await.rows.len(), 0, "it is on no leaderboard");

    let other = submission('b');
    store.receive_submission(&other).await.unwrap();
    let ids = |state, before, limit| {
        let query = SubmissionsQuery { state, before, limit, method: Some("A".to_owned()) };
        let store = store.clone();
        async move {
            let found = store.submissions(&query).await.unwrap();
            found.into_iter().map(|of| of.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(ids(None, None, 1).await, [other.id], "the newest first");
    assert_eq!(ids(None, Some(other.id), 10).await, [new.id]);
    assert!(ids(Some(SubmissionState::Verified), None, 10).await.is_empty());
    assert_eq!(store.count_submissions(SubmissionState::Received).await.unwrap(), 2);
    let changes = store.board_changes(None, 1).await.unwrap();
    assert_eq!((changes[0].submission, changes[0].key), (Some(other.id), other.key));
    let older = store.board_changes(Some(changes[0].id), 10).await.unwrap();
    assert_eq!(older.iter().map(|of| of.submission).collect::<Vec<_>>(), [Some(new.id)]);
}

pub(crate) async fn a_verified_submission_is_a_run_until_it_is_withdrawn(db: Database) {
    let store = db.open().await;
    let (received, _) = store.receive_submission(&submission('a')).await.unwrap();
    let mut new = verification(&received);
    // A sample without a score of the metric has no row, and is no null.
    new.import.columns.push(ScoreColumn {
        metric: "some".into(),
        metric_version: 2,
        values: vec![Some(ScoreValue::Number(1.0)), None, None],
    });
    let verified = store.verify_submission(&new).await.unwrap().unwrap();
    assert_eq!(verified.state, SubmissionState::Verified);
    assert_eq!((verified.run, verified.changed), (Some(new.import.run), at(1)));
    assert_eq!(verified.verification.as_ref(), Some(&new.verification));
    let run = store.run(new.import.run).await.unwrap().unwrap();
    assert_eq!((run.state, run.counts.scored), (RunState::Finishing, 3));
    assert_eq!((run.name, run.facts), (received.name.clone(), new.facts.clone()));
    let listed = store.accepted_samples(run.id, None, "", 1).await.unwrap().unwrap();
    assert_eq!(listed[0].content, "a".repeat(64));
    let of_runs = store.submissions_of_runs(&[run.id, Uuid::nil()]).await.unwrap();
    assert_eq!(of_runs.into_values().collect::<Vec<_>>(), std::slice::from_ref(&verified));
    assert!(store.method("A").await.unwrap().unwrap().card.is_some());
    let board = by_run(&store).await;
    let metrics = summaries(&board.rows[0]);
    let counts: Vec<_> = metrics.iter().map(|of| (of.n, of.nulls, of.mean)).collect();
    assert_eq!(counts, [(2, 1, Some(0.5)), (1, 0, Some(1.0))]);

    let again = store.verify_submission(&verification(&received)).await.unwrap_err();
    assert!(matches!(again, StoreError::SubmissionState { state: "verified", .. }), "{again}");
    let (withdrawn, deleted) =
        store.withdraw_submission(received.id, "wrong", None, at(2)).await.unwrap().unwrap();
    assert_eq!((withdrawn.state, withdrawn.run), (SubmissionState::Withdrawn, None));
    assert_eq!((deleted.samples, deleted.scores), (3, 4));
    assert_eq!(store.run(run.id).await.unwrap(), None);
    assert_eq!(by_run(&store).await.rows.len(), 0);
    assert!(store.submission_bundle(received.id).await.unwrap().is_some(), "the bundle stays");
    let again = store.withdraw_submission(received.id, "", None, at(3)).await.unwrap_err();
    assert!(matches!(again, StoreError::SubmissionState { state: "withdrawn", .. }), "{again}");
    assert_eq!(
        log(&store).await,
        [
            entry(SubmissionState::Withdrawn, "wrong", true),
            entry(SubmissionState::Verified, "checked", true),
            entry(SubmissionState::Received, "", true),
        ]
    );
}

pub(crate) async fn a_submission_whose_run_exists_stays_received(db: Database) {
    let store = db.open().await;
    store.record(&scored("A", "1", vec![number("m", 0.5)])).await.unwrap();
    let (received, _) = store.receive_submission(&submission('a')).await.unwrap();
    let refused = store.verify_submission(&verification(&received)).await.unwrap_err();
    assert!(matches!(refused, StoreError::RunExists { .. }), "{refused}");
    assert!(refused.to_string().contains("DELETE /v1/runs/"), "{refused}");
    let stored = store.submission(received.id).await.unwrap().unwrap();
    assert_eq!(stored, received);
    let unknown = NewVerification { submission: Uuid::nil(), ..verification(&received) };
    assert_eq!(store.verify_submission(&unknown).await.unwrap(), None);
    assert!(store.withdraw_submission(Uuid::nil(), "", None, at(0)).await.unwrap().is_none());
    assert!(store.delete_submission(Uuid::nil(), at(0)).await.unwrap().is_none());
}

pub(crate) async fn deletions_leave_digest_names_and_times_in_the_log(db: Database) {
    let store = db.open().await;
    let (received, _) = store.receive_submission(&submission('a')).await.unwrap();
    let new = verification(&received);
    store.verify_submission(&new).await.unwrap().unwrap();
    store.delete_run(new.import.run).await.unwrap().unwrap();
    let withdrawn = store.submission(received.id).await.unwrap().unwrap();
    assert_eq!((withdrawn.state, withdrawn.run), (SubmissionState::Withdrawn, None));
    assert_eq!(log(&store).await[0], entry(withdrawn.state, "the run was deleted", true));

    let (other, _) = store.receive_submission(&submission('b')).await.unwrap();
    let new = verification(&other);
    store.verify_submission(&new).await.unwrap().unwrap();
    let deleted = store.delete_submission(other.id, at(5)).await.unwrap().unwrap();
    assert_eq!((deleted.samples, deleted.scores), (3, 3));
    assert_eq!(store.submission(other.id).await.unwrap(), None);
    assert_eq!(store.run(new.import.run).await.unwrap(), None);
    store.delete_submission(received.id, at(6)).await.unwrap().unwrap();
    let log = store.board_changes(None, 100).await.unwrap();
    let words: Vec<_> = log.iter().rev().map(|of| of.action.as_str()).collect();
    assert_eq!(
        words,
        ["received", "verified", "withdrawn", "received", "verified", "withdrawn"],
        "one entry for each change"
    );
    for of in log {
        assert_eq!((of.submission, of.note.as_str(), of.key), (None, "", None));
        assert_eq!(of.name, received.name);
        assert!(of.digest == received.digest || of.digest == other.digest);
    }
}
