//! Studies, their items and answers, and the votes that these are.

use std::collections::BTreeSet;

use stellar_score::store::{
    GoldPlan, Judgement, NewSample, NewStudyAnswer, PreferencesQuery, Question, Store, StudyAnswer,
    StudyChoice, StudyItem, StudyPlan, StudyRecord, StudyState, VoteCount,
};
use uuid::Uuid;

use crate::harness::*;

/// Three runs with the samples `1` to `3`, and a study of them with an item for each sample and a
/// gold item, whose right answer is the first run.
async fn study(store: &Store) -> (StudyRecord, Vec<Uuid>, Vec<StudyItem>) {
    let mut runs = Vec::new();
    for method in ["A", "B", "C"] {
        let mut run = None;
        for name in ["1", "2", "3"] {
            let mut new =
                NewSample { created: at(0), ..scored(method, name, vec![number("m", 0.5)]) };
            new.inputs.metadata =
                serde_json::json!({"prompt_kind": if name == "1" { "T" } else { "H" }});
            run = store.record(&new).await.unwrap().run;
        }
        runs.push(run.unwrap());
    }
    let gold = serde_json::json!({"items": [{"name": "3", "runs": runs, "right": runs[0]}],
        "share": 1.0, "least": 1});
    let plan = serde_json::json!({"name": "which", "runs": runs, "form": "best_of", "gold": gold});
    let plan: StudyPlan = serde_json::from_value(plan).unwrap();
    let item = |place: u32, name: &str, right| StudyItem {
        place,
        name: name.to_owned(),
        runs: runs.clone(),
        right,
    };
    let items = vec![
        item(0, "1", None),
        item(1, "2", None),
        item(2, "3", None),
        item(3, "3", Some(runs[0])),
    ];
    let study = StudyRecord {
        id: Uuid::now_v7(),
        plan,
        state: StudyState::Draft,
        secret: "s".to_owned(),
        created: at(1),
    };
    let (stored, is_new) = store.create_study(&study, &items).await.unwrap();
    assert!(is_new && stored == study);
    (study, runs, items)
}

fn answer(item: &StudyItem, annotator: &str, choice: StudyChoice) -> NewStudyAnswer {
    NewStudyAnswer {
        item: item.clone(),
        question: Question::Overall,
        annotator: annotator.to_owned(),
        choice,
        shown: item.runs.iter().rev().copied().collect(),
    }
}

async fn give(store: &Store, study: &StudyRecord, answer: NewStudyAnswer) -> Uuid {
    let gold: Option<&GoldPlan> = study.plan.gold.as_ref();
    store.add_study_answers(study.id, gold, &[answer], at(2)).await.unwrap()[0]
}

async fn votes(store: &Store, query: PreferencesQuery) -> usize {
    store.preferences(&query).await.unwrap().len()
}

pub(crate) async fn a_choice_of_one_out_of_three_is_two_votes_of_one_trial(db: Database) {
    let store = db.open().await;
    let (study, runs, items) = study(&store).await;
    let again = StudyRecord { id: Uuid::now_v7(), ..study.clone() };
    assert_eq!(store.create_study(&again, &items).await.unwrap(), (study.clone(), false));
    assert_eq!(store.study_items(study.id).await.unwrap(), items);
    assert_eq!(store.gold_items(study.id).await.unwrap(), items[3..]);
    assert_eq!(store.last_study_place(study.id).await.unwrap(), Some(3));
    assert!(store.set_study_state(study.id, StudyState::Open).await.unwrap());
    assert_eq!(store.study(study.id).await.unwrap().unwrap().state, StudyState::Open);

    let first = answer(&items[0], "ada", StudyChoice::One(runs[1]));
    let id = give(&store, &study, first.clone()).await;
    assert_eq!(give(&store, &study, first).await, id, "the same answer again");
    let found = store.preferences(&PreferencesQuery::default()).await.unwrap();
    let wins: BTreeSet<(Uuid, Uuid)> = found
        .iter()
        .map(|vote| match vote.judgement {
            Judgement::Vote { a, b, preference: 1 } => (a, b),
            Judgement::Vote { a, b, preference: -1 } => (b, a),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(wins, BTreeSet::from([(runs[1], runs[0]), (runs[1], runs[2])]));
    assert!(found.iter().all(|vote| vote.trial == Some(id) && vote.name == "1"));
    let other = give(&store, &study, answer(&items[0], "ada", StudyChoice::CannotTell)).await;
    assert_ne!(other, id);
    assert_eq!(votes(&store, PreferencesQuery::default()).await, 0);
    give(&store, &study, answer(&items[1], "ada", StudyChoice::One(runs[0]))).await;
    for (query, count) in [
        (PreferencesQuery { study: Some(study.id), ..<_>::default() }, 2),
        (PreferencesQuery { study: Some(Uuid::nil()), ..<_>::default() }, 0),
        (PreferencesQuery { dataset: Some("d".to_owned()), ..<_>::default() }, 0),
        (PreferencesQuery { run: Some(runs[2]), ..<_>::default() }, 1),
        (PreferencesQuery { limit: Some(1), ..<_>::default() }, 1),
        (PreferencesQuery { uncounted: true, ..<_>::default() }, 0),
    ] {
        assert_eq!(votes(&store, query.clone()).await, count, "{query:?}");
    }
    let kinds = BTreeSet::from([runs[0], runs[1]]);
    let of_kind = store.samples_of_kind(&kinds, "T").await.unwrap();
    assert_eq!(of_kind, kinds.iter().map(|run| (*run, "1".to_owned())).collect());
    // An answer goes with the images that it is about.
    store.delete_run(runs[2]).await.unwrap();
    assert_eq!(store.study_answers(study.id, None).await.unwrap(), []);
    assert_eq!(votes(&store, PreferencesQuery::default()).await, 0);
    assert!(store.delete_study(study.id).await.unwrap());
    assert_eq!(store.studies(None, 10).await.unwrap(), []);
}

pub(crate) async fn the_next_item_has_the_fewest_answers_of_those_who_count(db: Database) {
    let store = db.open().await;
    let (study, runs, items) = study(&store).await;
    let next = async |annotator: &str, start| {
        let question = Question::Overall;
        let next = store.next_study_item(study.id, &question, annotator, 2, start).await.unwrap();
        next.map(|item| item.place)
    };
    assert_eq!((next("ada", 0).await, next("ada", 1).await), (Some(0), Some(1)));
    give(&store, &study, answer(&items[0], "ada", StudyChoice::One(runs[0]))).await;
    assert_eq!((next("bob", 0).await, next("bob", 2).await), (Some(1), Some(2)));
    for place in [1, 2] {
        give(&store, &study, answer(&items[place], "ada", StudyChoice::One(runs[0]))).await;
    }
    assert_eq!(next("ada", 0).await, None, "no gold item, and none twice");
    give(&store, &study, answer(&items[0], "bob", StudyChoice::One(runs[1]))).await;
    assert_eq!(next("eve", 0).await, Some(1));
    let progress = store.study_progress(study.id, 2).await.unwrap();
    assert_eq!((progress.items, progress.by_question["overall"]), (3, 4));
    assert_eq!((progress.complete["overall"], progress.by_annotator["ada"].answers), (1, 3));

    // Bob misses the gold item, and his answers count no more, until he takes it back.
    let wrong = give(&store, &study, answer(&items[3], "bob", StudyChoice::One(runs[1]))).await;
    let out = store.exclusions(study.id).await.unwrap();
    assert_eq!((out.len(), &*out[0].annotator, out[0].cause.as_str()), (1, "bob", "gold"));
    let bob = store.study_progress(study.id, 2).await.unwrap().by_annotator["bob"];
    assert_eq!((bob.answers, bob.gold, bob.gold_right), (2, 1, 0));
    assert_eq!(votes(&store, PreferencesQuery::default()).await, 6);
    assert_eq!(next("eve", 0).await, Some(0));
    assert_eq!(store.study_progress(study.id, 2).await.unwrap().by_question["overall"], 3);
    let gold = study.plan.gold.as_ref();
    let withdraw =
        async |who: &str| store.withdraw_study_answer(study.id, gold, wrong, who).await.unwrap();
    assert_eq!(withdraw("ada").await, None);
    assert!(matches!(withdraw("bob").await, Some(StudyAnswer { item: 3, .. })));
    assert_eq!(store.exclusions(study.id).await.unwrap(), []);
    assert_eq!(votes(&store, PreferencesQuery::default()).await, 8);

    store.exclude_annotator(study.id, "ada", "a test", at(3)).await.unwrap();
    store.exclude_annotator(study.id, "ada", "again", at(4)).await.unwrap();
    assert_eq!(store.exclusions(study.id).await.unwrap()[0].reason, "again");
    assert_eq!(votes(&store, PreferencesQuery::default()).await, 2);
    assert!(store.include_annotator(study.id, "ada").await.unwrap());
    assert!(!store.include_annotator(study.id, "ada").await.unwrap());
    assert_eq!(store.own_study_answers(study.id, "ada").await.unwrap().len(), 3);
    assert_eq!(store.delete_annotator("ada").await.unwrap(), 3);
    assert_eq!(votes(&store, PreferencesQuery::default()).await, 2);
}

/// The names of all items of a study.
async fn names_of_items(store: &Store, study: Uuid) -> Vec<String> {
    store.study_items(study).await.unwrap().into_iter().map(|item| item.name).collect()
}

/// Whoever wrote a study: this program, one that did not know of `study_runs` before the
/// migration, or such a one afterwards.
pub(crate) async fn a_deleted_sample_takes_its_items_of_all_studies_along(db: Database) {
    let store = db.open().await;
    let (three, runs, _) = study(&store).await;
    let mut two = three.clone();
    (two.id, two.plan.name, two.plan.gold) = (Uuid::now_v7(), "two".to_owned(), None);
    let item = |place: u32, name: &str| StudyItem {
        place,
        name: name.to_owned(),
        runs: vec![runs[0], runs[2]],
        right: None,
    };
    let items = [item(0, "1"), item(1, "2"), item(2, "3")];
    assert!(store.create_study(&two, &items).await.unwrap().1);
    assert_eq!(db.count("study_runs").await, 3 + 2);
    let delete = async |store: &Store, run: Uuid, name: &str| {
        let sample = store.run_samples(run).await.unwrap().unwrap();
        let sample = sample.into_iter().find(|sample| sample.name == name).unwrap().id;
        assert_eq!(store.delete_sample(sample).await.unwrap().unwrap().samples, 1);
    };
    delete(&store, runs[1], "1").await;
    assert_eq!(names_of_items(&store, three.id).await, ["2", "3", "3"]);
    assert_eq!(names_of_items(&store, two.id).await, ["1", "2", "3"], "it does not show the run");
    store.close().await;

    db.execute("DROP TABLE study_runs").await;
    db.execute("DROP INDEX study_items_by_name").await;
    db.execute("DELETE FROM _sqlx_migrations WHERE version = 23").await;
    let store = db.open().await;
    assert_eq!(db.count("study_runs").await, 3 + 2, "filled from the items");
    delete(&store, runs[0], "2").await;
    assert_eq!(names_of_items(&store, three.id).await, ["3", "3"]);
    assert_eq!(names_of_items(&store, two.id).await, ["1", "3"]);

    db.execute("DELETE FROM study_runs").await;
    delete(&store, runs[1], "3").await;
    assert_eq!(names_of_items(&store, three.id).await, [""; 0]);
    store.delete_run(runs[2]).await.unwrap();
    assert_eq!(names_of_items(&store, two.id).await, [""; 0]);
}

pub(crate) async fn votes_are_counted_by_pair_of_runs(db: Database) {
    let store = db.open().await;
    let (study, runs, items) = study(&store).await;
    let (a, b) = (runs[0].min(runs[1]), runs[0].max(runs[1]));
    let new = |annotator: &str, name: &str, judgement| stellar_score::store::NewPreference {
        question: Question::Overall,
        annotator: annotator.to_owned(),
        name: name.to_owned(),
        judgement,
        shown_first: None,
        is_repeat: false,
    };
    let vote =
        |annotator, name, preference| new(annotator, name, Judgement::Vote { a, b, preference });
    let rating = |run, rating| new("eve", "3", Judgement::Rating { run, rating });
    let given = [
        vote("ada", "1", 1),
        vote("ada", "2", 1),
        vote("bob", "2", -1),
        vote("bob", "3", 0),
        vote("eve", "3", 0),
        new("eve", "2", Judgement::CannotTell { a, b }),
        rating(a, 2.0),
        rating(b, 3.5),
    ];
    store.add_preferences(&given, at(0)).await.unwrap().unwrap();
    let mut counts = store.vote_counts(&Question::Overall).await.unwrap();
    counts.sort_by_key(|of| of.preference);
    // The ratings are a vote against the first run.
    let expected = [(-1, 2), (0, 2), (1, 2)];
    assert_eq!(counts, expected.map(|(preference, times)| VoteCount { a, b, preference, times }));
    // A choice of one out of three is two votes, but for those who are left out.
    give(&store, &study, answer(&items[0], "zoe", StudyChoice::One(a))).await;
    let all = store.vote_counts(&Question::Overall).await.unwrap();
    assert_eq!(all.iter().map(|of| of.times).sum::<usize>(), 8);
    assert!(all.contains(&VoteCount { a, b, preference: 1, times: 3 }), "{all:?}");
    store.exclude_annotator(study.id, "zoe", "a test", at(3)).await.unwrap();
    let mut without = store.vote_counts(&Question::Overall).await.unwrap();
    without.sort_by_key(|of| of.preference);
    assert_eq!(without, counts);
    let names = async |annotator: &str, most| {
        let found = store.judged_by_others(&Question::Overall, annotator, most).await.unwrap();
        found.into_iter().map(|(name, ..)| name).collect::<Vec<_>>()
    };
    assert_eq!(names("zoe", 10).await, ["1", "2", "3"]);
    assert_eq!(
        (names("ada", 10).await, names("eve", 10).await),
        (vec!["3".to_owned()], vec!["1".to_owned()])
    );
    assert_eq!(names("zoe", 1).await, ["1"], "those with the fewest votes first");
}
