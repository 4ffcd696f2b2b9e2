//! Preferences of annotators.

use std::collections::{BTreeMap, BTreeSet};

use stellar_score::store::{
    Judgement, NewPreference, NewSample, PreferencesQuery, Question, RunName, Store, StoreError,
    UnknownSample,
};
use uuid::Uuid;

use crate::harness::*;

/// The runs `A/run` and `B/run` with the samples `1` to `3`.
async fn two_runs(store: &Store) -> (Uuid, Uuid) {
    let mut runs = Vec::new();
    // Ids are ordered by the creation time of the runs.
    for (method, created) in [("A", at(0)), ("B", at(1))] {
        for name in ["1", "2", "3"] {
            let new = NewSample { created, ..scored(method, name, vec![number("m", 0.5)]) };
            runs.push(store.record(&new).await.unwrap().run.unwrap());
        }
    }
    (runs[0], runs[3])
}

fn vote(annotator: &str, name: &str, a: Uuid, b: Uuid, preference: i8) -> NewPreference {
    NewPreference {
        question: Question::Overall,
        annotator: annotator.into(),
        name: name.into(),
        judgement: Judgement::Vote { a, b, preference },
        shown_first: None,
        is_repeat: false,
    }
}

fn rating(annotator: &str, name: &str, run: Uuid, rating: f64) -> NewPreference {
    let judgement = Judgement::Rating { run, rating };
    NewPreference {
        question: Question::Object,
        annotator: annotator.into(),
        name: name.into(),
        judgement,
        shown_first: None,
        is_repeat: false,
    }
}

async fn all(store: &Store) -> Vec<stellar_score::store::Preference> {
    store.preferences(&PreferencesQuery::default()).await.unwrap()
}

pub(crate) async fn preferences_read_back_page_by_page(db: Database) {
    let store = db.open().await;
    let (a, b) = two_runs(&store).await;
    let judgements =
        [vote("ada", "1", a, b, 1), vote("bob", "1", a, b, 0), rating("ada", "2", b, 4.5)];
    for (at_ms, judgement) in judgements.iter().enumerate() {
        let added =
            store.add_preferences(std::slice::from_ref(judgement), at(at_ms as i64)).await.unwrap();
        assert_eq!(added, Ok(1));
    }
    let found = all(&store).await;
    let read: Vec<_> = found
        .iter()
        .map(|p| (p.question.clone(), p.annotator.as_str(), p.name.as_str(), p.judgement))
        .collect();
    let expected: Vec<_> = judgements
        .iter()
        .map(|p| (p.question.clone(), p.annotator.as_str(), p.name.as_str(), p.judgement))
        .collect();
    assert_eq!(read, expected);
    assert_eq!(found[1].created, at(1));

    let page = |after, limit| PreferencesQuery {
        after,
        limit: Some(limit),
        ..PreferencesQuery::default()
    };
    assert_eq!(store.preferences(&page(None, 2)).await.unwrap(), found[..2]);
    assert_eq!(store.preferences(&page(Some(found[1].id), 2)).await.unwrap(), found[2..]);
    for (query, expected) in [
        (PreferencesQuery { question: Some(Question::Object), ..Default::default() }, &found[2..]),
        (PreferencesQuery { annotator: Some("bob".into()), ..Default::default() }, &found[1..2]),
        (PreferencesQuery { run: Some(a), ..Default::default() }, &found[..2]),
        (PreferencesQuery { run: Some(b), ..Default::default() }, &found[..]),
    ] {
        assert_eq!(store.preferences(&query).await.unwrap(), expected, "{query:?}");
    }
}

pub(crate) async fn a_new_vote_of_an_annotator_replaces_the_previous_one(db: Database) {
    let store = db.open().await;
    let (a, b) = two_runs(&store).await;
    store.add_preferences(&[vote("ada", "1", a, b, 1)], at(0)).await.unwrap().unwrap();
    // With the runs swapped, it is the same vote on the same question.
    store.add_preferences(&[vote("ada", "1", b, a, 1)], at(1)).await.unwrap().unwrap();
    let found = all(&store).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].judgement, Judgement::Vote { a, b, preference: -1 });
    // The last of several votes on the same question in a batch counts.
    let batch = [vote("ada", "1", a, b, 0), vote("ada", "1", a, b, 1)];
    assert_eq!(store.add_preferences(&batch, at(2)).await.unwrap(), Ok(1));
    assert_eq!(all(&store).await[0].judgement, Judgement::Vote { a, b, preference: 1 });
}

pub(crate) async fn preferences_on_unknown_samples_are_refused_as_a_batch(db: Database) {
    let store = db.open().await;
    let (a, b) = two_runs(&store).await;
    let nowhere = Uuid::now_v7();
    for (place, unknown, run) in
        [(1, vote("ada", "4", a, b, 1), a), (1, vote("ada", "1", a, nowhere, 1), nowhere)]
    {
        let name = unknown.name.clone();
        let refused =
            store.add_preferences(&[vote("ada", "1", a, b, 1), unknown], at(0)).await.unwrap();
        assert_eq!(refused, Err(UnknownSample { place, run, name }));
    }
    for bad in [vote("ada", "1", a, a, 1), vote("", "1", a, b, 1), rating("ada", "1", a, f64::NAN)]
    {
        let error = store.add_preferences(&[bad], at(0)).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
    }
    assert!(all(&store).await.is_empty());
}

async fn apart(store: &Store) -> Vec<stellar_score::store::Preference> {
    let query = PreferencesQuery { uncounted: true, ..PreferencesQuery::default() };
    store.preferences(&query).await.unwrap()
}

pub(crate) async fn votes_that_do_not_count_are_kept_apart(db: Database) {
    let store = db.open().await;
    let (a, b) = two_runs(&store).await;
    let cannot_tell = |name: &str| NewPreference {
        judgement: Judgement::CannotTell { a: b, b: a },
        shown_first: Some(b),
        ..vote("ada", name, a, b, 0)
    };
    let repeat = |of: NewPreference| NewPreference { is_repeat: true, ..of };
    let placed = NewPreference { shown_first: Some(b), ..vote("ada", "1", a, b, 1) };
    let batch = [placed, cannot_tell("2"), repeat(vote("ada", "1", a, b, -1))];
    assert_eq!(store.add_preferences(&batch, at(0)).await.unwrap(), Ok(3));
    let (counted, uncounted) = (all(&store).await, apart(&store).await);
    assert_eq!((counted.len(), counted[0].shown_first, counted[0].is_repeat), (1, Some(b), false));
    let read: BTreeSet<_> =
        uncounted.iter().map(|p| (p.name.as_str(), p.is_repeat, p.shown_first)).collect();
    assert_eq!(read, BTreeSet::from([("1", true, None), ("2", false, Some(b))]));
    let untold = uncounted.iter().find(|p| p.name == "2").unwrap();
    assert_eq!(untold.judgement, Judgement::CannotTell { a, b });

    // A vote and "cannot tell" replace each other; the last one of a batch counts.
    store.add_preferences(&[vote("ada", "2", a, b, 1)], at(1)).await.unwrap().unwrap();
    assert_eq!((all(&store).await.len(), apart(&store).await.len()), (2, 1));
    let batch = [vote("ada", "2", a, b, 0), cannot_tell("2"), cannot_tell("1")];
    assert_eq!(store.add_preferences(&batch, at(2)).await.unwrap(), Ok(2));
    assert_eq!((all(&store).await.len(), apart(&store).await.len()), (0, 3));
    // The answers of others stay.
    store.add_preferences(&[vote("bob", "1", a, b, 1)], at(3)).await.unwrap().unwrap();
    assert_eq!((all(&store).await.len(), apart(&store).await.len()), (1, 3));
    // A repeat replaces a repeat.
    let again = repeat(cannot_tell("1"));
    assert_eq!(store.add_preferences(&[again], at(4)).await.unwrap(), Ok(1));
    assert_eq!(apart(&store).await.len(), 3);

    let nobody = NewPreference { shown_first: Some(Uuid::now_v7()), ..cannot_tell("3") };
    for bad in [nobody, repeat(rating("ada", "1", a, 1.0))] {
        let error = store.add_preferences(&[bad], at(5)).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error:?}");
    }

    let one = apart(&store).await[0].id;
    assert!(store.delete_preference(one).await.unwrap());
    assert!(!store.delete_preference(one).await.unwrap());
    store.add_preferences(&[cannot_tell("3")], at(6)).await.unwrap().unwrap();
    assert_eq!(store.delete_annotator("bob").await.unwrap(), 1);
    let sample = NewSample { run: Some(RunName::new("A", Some("run".into()))), ..sample("A", "3") };
    let id = store.record(&sample).await.unwrap().sample;
    store.delete_sample(id).await.unwrap().unwrap();
    assert!(apart(&store).await.iter().all(|p| p.name != "3"));
    assert!(!apart(&store).await.is_empty());
    store.delete_run(a).await.unwrap().unwrap();
    assert_eq!(apart(&store).await, []);
}

pub(crate) async fn preferences_are_deleted_with_samples_runs_or_annotators(db: Database) {
    let store = db.open().await;
    let (a, b) = two_runs(&store).await;
    let judgements = [
        vote("ada", "1", a, b, 1),
        vote("ada", "2", a, b, 1),
        rating("bob", "3", b, 2.0),
        rating("cy", "1", a, 3.0),
    ];
    store.add_preferences(&judgements, at(0)).await.unwrap().unwrap();
    let first =
        all(&store).await.iter().find(|p| p.annotator == "ada" && p.name == "1").unwrap().id;
    assert!(store.delete_preference(first).await.unwrap());
    assert!(!store.delete_preference(first).await.unwrap());
    store.add_preferences(&judgements[..1], at(0)).await.unwrap().unwrap();

    let sample = NewSample { run: Some(RunName::new("A", Some("run".into()))), ..sample("A", "1") };
    let id = store.record(&sample).await.unwrap().sample;
    store.delete_sample(id).await.unwrap().unwrap();
    let left: Vec<_> = all(&store).await.into_iter().map(|p| p.name).collect();
    assert_eq!(BTreeSet::from_iter(left), BTreeSet::from(["2".to_owned(), "3".to_owned()]));
    store.delete_run(a).await.unwrap().unwrap();
    assert_eq!(all(&store).await.len(), 1);
    assert_eq!(store.delete_annotator("bob").await.unwrap(), 1);
    assert_eq!(store.delete_annotator("bob").await.unwrap(), 0);
    assert!(all(&store).await.is_empty());
}

pub(crate) async fn samples_of_several_runs_read_as_one(db: Database) {
    let store = db.open().await;
    let (a, b) = two_runs(&store).await;
    let names =
        |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let wanted = BTreeMap::from([(a, names(&["1", "3", "9"])), (b, names(&["2"]))]);
    let data = store.samples_data(&wanted, &official().digest).await.unwrap();
    assert_eq!(data.names, [format!("{a}/1"), format!("{a}/3"), format!("{b}/2")]);
    assert_eq!(data.metrics["m"].values, [Some(0.5); 3]);
    store.run_data(a, Some(&official().digest)).await.unwrap();
    let cached = store.samples_data(&wanted, &official().digest).await.unwrap();
    assert_eq!(cached, data, "of a cached run and of one that is read");
    let data = store.samples_data(&wanted, &demo().digest).await.unwrap();
    assert_eq!((data.names.len(), data.metrics.len()), (3, 0));
}

pub(crate) async fn unjudged_samples_are_found(db: Database) {
    let store = db.open().await;
    let (a, b) = two_runs(&store).await;
    store.record(&scored("A", "only in A", vec![number("m", 0.5)])).await.unwrap();
    store
        .add_preferences(&[vote("ada", "2", a, b, 1), rating("ada", "1", a, 1.0)], at(0))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(store.unjudged(&Question::Overall, b, a, 10).await.unwrap(), ["1", "3"]);
    assert_eq!(store.unjudged(&Question::Object, a, b, 2).await.unwrap(), ["1", "2"]);
    let names = |most| store.sample_names(a, most);
    assert_eq!(names(2).await.unwrap(), BTreeSet::from(["1".to_owned(), "3".to_owned()]));
    assert_eq!(names(9).await.unwrap().len(), 4);
    assert!(names(0).await.unwrap().is_empty());
}
