//! Judgements of annotators: votes between two runs on one prompt, and ratings of single images.
//!
//! `preferences` has the judgements that count. `uncounted_votes` has "cannot tell", and repeated
//! votes, which only measure consistency.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::db::{
    Argument, Connection, Connections, ROWS_PER_STATEMENT, Reader, Row, Sql, StoreError,
    check_name, new_id, on_backend, read, to_microseconds, with_retries,
};
use super::judgements::{
    Judgement, NewPreference, Preference, PreferencesQuery, Question, UnknownSample, VoteCount,
};
use super::{studies, study_answers};

/// Deletions from one of the two tables.
struct Deletions {
    one: &'static str,
    of_annotator: &'static str,
    of_run: &'static str,
}

const BOTH: [Deletions; 2] = [
    Deletions {
        one: "DELETE FROM preferences WHERE id = ",
        of_annotator: "DELETE FROM preferences WHERE annotator = ",
        of_run: "DELETE FROM preferences WHERE (run_a = ",
    },
    Deletions {
        one: "DELETE FROM uncounted_votes WHERE id = ",
        of_annotator: "DELETE FROM uncounted_votes WHERE annotator = ",
        of_run: "DELETE FROM uncounted_votes WHERE (run_a = ",
    },
];

/// Judgements that count, of no study.
const COUNTED: &str = "SELECT id, question, annotator, name, run_a, run_b, value, shown_first,
         CAST(0 AS bigint) AS is_repeat, created, NULL AS trial, NULL AS study
     FROM preferences";

/// Judgements that do not count, of no study.
const UNCOUNTED: &str = "SELECT id, question, annotator, name, run_a, run_b, value, shown_first,
         is_repeat, created, NULL AS trial, NULL AS study
     FROM uncounted_votes";

/// Votes of studies, without those of annotators who are left out.
const OF_STUDIES: &str = "SELECT id, question, annotator, name, run_a, run_b, value, shown_first,
         CAST(0 AS bigint) AS is_repeat, created, answer AS trial, study
     FROM study_votes
     WHERE NOT EXISTS (SELECT 1 FROM study_exclusions AS out
         WHERE out.study = study_votes.study AND out.annotator = study_votes.annotator)";

impl Store {
    /// Records judgements of annotators, all or none, and returns their number. An annotator's
    /// judgement replaces an earlier one on the same question about the same images; "cannot tell"
    /// and a vote replace each other. A repeat replaces only an earlier repeat.
    pub async fn add_preferences(
        &self,
        preferences: &[NewPreference],
        created: OffsetDateTime,
    ) -> Result<Result<usize, UnknownSample>, StoreError> {
        on_backend!(self, pool => add(pool, preferences, created).await)
    }

    /// Returns judgements of annotators in order of arrival: those that count, or those that do
    /// not.
    pub async fn preferences(
        &self,
        query: &PreferencesQuery,
    ) -> Result<Vec<Preference>, StoreError> {
        let mut sql = Sql::new(
            "SELECT id, question, annotator, name, run_a, run_b, value, shown_first, is_repeat,
                 created, trial
             FROM (",
        );
        if query.study.is_none() {
            sql.push(if query.uncounted { UNCOUNTED } else { COUNTED });
            sql.push(" UNION ALL ");
        }
        sql.push(OF_STUDIES);
        sql.push(if query.uncounted { " AND value IS NULL" } else { " AND value IS NOT NULL" });
        sql.push(") AS votes WHERE 1 = 1");
        if let Some(study) = query.study {
            sql.push(" AND study = ").bind(study);
        }
        if let Some(dataset) = &query.dataset {
            for side in [" AND run_a", " AND run_b"] {
                sql.push(side).push(" IN (SELECT id FROM runs WHERE dataset = ");
                sql.bind(dataset.as_str()).push(")");
            }
        }
        if let Some(question) = &query.question {
            sql.push(" AND question = ").bind(question.as_str());
        }
        if let Some(annotator) = &query.annotator {
            sql.push(" AND annotator = ").bind(annotator.as_str());
        }
        if let Some(run) = query.run {
            sql.push(" AND (run_a = ").bind(run).push(" OR run_b = ").bind(run).push(")");
        }
        if let Some(after) = query.after {
            sql.push(" AND id > ").bind(after);
        }
        sql.push(" ORDER BY id");
        if let Some(limit) = query.limit {
            sql.push(" LIMIT ").bind(limit);
        }
        on_backend!(self, pool => read(pool, sql, preference).await)
    }

    /// Deletes a judgement; `false` if none has this id.
    pub async fn delete_preference(&self, id: Uuid) -> Result<bool, StoreError> {
        let delete = BOTH.iter().map(|table| {
            let mut sql = Sql::new(table.one);
            sql.bind(id);
            sql
        });
        let delete: Vec<_> = delete.collect();
        let deleted = on_backend!(self, pool => together(pool, &delete).await)?;
        Ok(deleted.iter().sum::<u64>() > 0)
    }

    /// Deletes all judgements of an annotator, also those in studies, and returns their number.
    pub async fn delete_annotator(&self, annotator: &str) -> Result<u64, StoreError> {
        let of = |text| {
            let mut sql = Sql::new(text);
            sql.bind(annotator);
            sql
        };
        let answers = "DELETE FROM study_answers WHERE annotator = ";
        let exclusions = "DELETE FROM study_exclusions WHERE annotator = ";
        let judgements = BOTH.iter().map(|table| table.of_annotator).chain([answers]);
        let delete: Vec<_> = judgements.chain([exclusions]).map(of).collect();
        let deleted = on_backend!(self, pool => together(pool, &delete).await)?;
        let (_exclusions, judgements) = deleted.split_last().expect("exclusions come last");
        Ok(judgements.iter().sum())
    }

    /// Counts the votes on a question by the two runs and the preference, also those of studies,
    /// without those of annotators who are left out. Of an annotator's ratings for a prompt, every
    /// two are a vote.
    pub async fn vote_counts(&self, question: &Question) -> Result<Vec<VoteCount>, StoreError> {
        let mut sql = Sql::new(
            "SELECT run_a, run_b, value, COUNT(*) AS times FROM (
                 SELECT run_a, run_b, CAST(value AS bigint) AS value FROM preferences
                 WHERE run_a <> run_b AND question = ",
        );
        sql.bind(question.as_str()).push(
            " UNION ALL
                 SELECT one.run_a, other.run_a,
                     CASE WHEN one.value > other.value THEN CAST(1 AS bigint)
                         WHEN one.value < other.value THEN CAST(-1 AS bigint)
                         ELSE CAST(0 AS bigint) END
                 FROM preferences AS one
                 JOIN preferences AS other ON other.question = one.question
                     AND other.annotator = one.annotator AND other.name = one.name
                     AND other.run_a = other.run_b AND other.run_a > one.run_a
                 WHERE one.run_a = one.run_b AND one.question = ",
        );
        sql.bind(question.as_str()).push(
            " UNION ALL
                 SELECT run_a, run_b, CAST(value AS bigint)
                 FROM study_votes AS answers WHERE value IS NOT NULL AND question = ",
        );
        sql.bind(question.as_str()).push(study_answers::COUNTED);
        sql.push(") AS votes GROUP BY run_a, run_b, value");
        on_backend!(self, pool => read(pool, sql, vote_count).await)
    }

    /// Returns the pairs that others voted on and an annotator has not answered, those with the
    /// fewest votes first: the name of the samples and the two runs.
    pub async fn judged_by_others(
        &self,
        question: &Question,
        annotator: &str,
        most: u32,
    ) -> Result<Vec<(String, Uuid, Uuid)>, StoreError> {
        let mut sql = Sql::new(
            "SELECT name, run_a, run_b FROM preferences AS votes
             WHERE run_a <> run_b AND question = ",
        );
        sql.bind(question.as_str()).push(
            " AND NOT EXISTS (SELECT 1 FROM preferences AS own
                 WHERE own.question = votes.question AND own.name = votes.name
                     AND own.run_a = votes.run_a AND own.run_b = votes.run_b
                     AND own.annotator = ",
        );
        sql.bind(annotator).push(
            ") AND NOT EXISTS (SELECT 1 FROM uncounted_votes AS own
                 WHERE own.is_repeat = 0 AND own.question = votes.question
                     AND own.name = votes.name AND own.run_a = votes.run_a
                     AND own.run_b = votes.run_b AND own.annotator = ",
        );
        sql.bind(annotator)
            .push(") GROUP BY name, run_a, run_b ORDER BY COUNT(*), name, run_a, run_b LIMIT ");
        sql.bind(most);
        on_backend!(self, pool => read(pool, sql, |row| {
            let row = Reader::new(row, "preferences", "");
            Ok((row.text("name")?, row.uuid("run_a")?, row.uuid("run_b")?))
        }).await)
    }

    /// Returns the names of at most `most` samples that both runs have and that have no vote on
    /// this question outside studies.
    pub async fn unjudged(
        &self,
        question: &Question,
        a: Uuid,
        b: Uuid,
        most: u32,
    ) -> Result<Vec<String>, StoreError> {
        let (a, b) = (a.min(b), a.max(b));
        let mut sql = Sql::new(
            "SELECT one.name FROM samples AS one
             JOIN samples AS other ON other.name = one.name AND other.run = ",
        );
        sql.bind(b).push(" WHERE one.run = ").bind(a);
        sql.push(
            " AND NOT EXISTS (SELECT 1 FROM preferences
                 WHERE preferences.name = one.name AND question = ",
        );
        sql.bind(question.as_str()).push(" AND run_a = ").bind(a).push(" AND run_b = ").bind(b);
        sql.push(") ORDER BY one.name LIMIT ").bind(most);
        on_backend!(self, pool => read(pool, sql, |row| Reader::new(row, "samples", a).text("name")).await)
    }
}

async fn add<P: Connections>(
    pool: &P,
    preferences: &[NewPreference],
    created: OffsetDateTime,
) -> Result<Result<usize, UnknownSample>, StoreError> {
    for preference in preferences {
        check_name("the annotator", &preference.annotator)?;
        check_name("the sample's name", &preference.name)?;
        match preference.judgement {
            Judgement::Vote { a, b, .. } | Judgement::CannotTell { a, b } if a == b => {
                return Err(StoreError::invalid(
                    "run_b",
                    "it equals run_a: a vote needs two different runs",
                ));
            }
            Judgement::Rating { rating, .. } if !rating.is_finite() || rating.abs() > 1e6 => {
                return Err(StoreError::invalid(
                    "rating",
                    format!("{rating} is not a number within ±1,000,000"),
                ));
            }
            Judgement::Rating { .. } if preference.is_repeat => {
                return Err(StoreError::invalid("repeat", "only a vote can be a repeat"));
            }
            _ => {}
        }
        if preference.shown_first.is_some_and(|run| !preference.judgement.runs().contains(&run)) {
            return Err(StoreError::invalid("shown_first", "it is neither run of the vote"));
        }
    }
    with_retries(|| insert(pool, preferences, to_microseconds(created))).await
}

async fn insert<P: Connections>(
    pool: &P,
    preferences: &[NewPreference],
    created: OffsetDateTime,
) -> Result<Result<usize, UnknownSample>, StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    let mut wanted: BTreeMap<Uuid, BTreeSet<&str>> = BTreeMap::new();
    for preference in preferences {
        for run in preference.judgement.runs() {
            wanted.entry(run).or_default().insert(&preference.name);
        }
    }
    let mut known: BTreeSet<(Uuid, String)> = BTreeSet::new();
    for (run, names) in &wanted {
        for names in names.iter().collect::<Vec<_>>().chunks(ROWS_PER_STATEMENT) {
            let mut sql = Sql::new("SELECT name FROM samples WHERE run = ");
            sql.bind(*run).push(" AND name IN ").tuple(names.iter().map(|name| (**name).into()));
            for row in &connection.fetch(sql).await? {
                known.insert((*run, Reader::new(row, "samples", *run).text("name")?));
            }
        }
    }
    for (place, preference) in preferences.iter().enumerate() {
        for run in preference.judgement.runs() {
            if !known.contains(&(run, preference.name.clone())) {
                return Ok(Err(UnknownSample { place, run, name: preference.name.clone() }));
            }
        }
    }
    // PostgreSQL cannot replace a row twice in one statement: of equal keys the last one wins.
    let mut last: BTreeMap<Key<'_>, Answer> = BTreeMap::new();
    for new in preferences {
        let (a, b, value) = new.judgement.columns();
        let key = (new.question.as_str(), &*new.annotator, &*new.name, a, b, new.is_repeat);
        last.insert(key, Answer { value, shown_first: new.shown_first });
    }
    let count = last.len();
    let is_counted = |key: &Key<'_>, answer: &Answer| !key.5 && answer.value.is_some();
    let (counted, uncounted): (Vec<_>, Vec<_>) =
        last.into_iter().partition(|(key, answer)| is_counted(key, answer));
    count_votes(connection, &counted, created).await?;
    keep_uncounted(connection, &uncounted, created).await?;
    transaction.commit().await?;
    Ok(Ok(count))
}

/// Question, annotator, name, runs, and whether it is a repeat.
type Key<'a> = (&'a str, &'a str, &'a str, Uuid, Uuid, bool);

/// What was answered.
struct Answer {
    value: Option<f64>,
    shown_first: Option<Uuid>,
}

/// Writes judgements that count, which replace "cannot tell" about the same images.
async fn count_votes<C: Connection>(
    connection: &mut C,
    rows: &[(Key<'_>, Answer)],
    created: OffsetDateTime,
) -> Result<(), StoreError> {
    for rows in rows.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new(
            "INSERT INTO preferences (id, question, annotator, name, run_a, run_b, value,
                 shown_first, created)
             VALUES ",
        );
        sql.tuples(rows.iter().map(|((question, annotator, name, a, b, _), answer)| {
            let value = answer.value.unwrap_or_default();
            let row: [Argument; 9] = [
                new_id(created).into(),
                (*question).into(),
                (*annotator).into(),
                (*name).into(),
                (*a).into(),
                (*b).into(),
                value.into(),
                answer.shown_first.into(),
                created.into(),
            ];
            row
        }));
        sql.push(
            " ON CONFLICT (question, annotator, name, run_a, run_b) DO UPDATE SET
                  value = excluded.value, shown_first = excluded.shown_first,
                  created = excluded.created",
        );
        connection.execute(sql).await?;
        let mut sql = Sql::new(
            "DELETE FROM uncounted_votes WHERE is_repeat = 0 AND EXISTS (
                 SELECT 1 FROM preferences AS counted
                 WHERE counted.question = uncounted_votes.question
                     AND counted.annotator = uncounted_votes.annotator
                     AND counted.name = uncounted_votes.name
                     AND counted.run_a = uncounted_votes.run_a
                     AND counted.run_b = uncounted_votes.run_b)",
        );
        limit_to(&mut sql, rows);
        connection.execute(sql).await?;
    }
    Ok(())
}

/// Writes votes that do not count. "Cannot tell" replaces a vote about the same images.
async fn keep_uncounted<C: Connection>(
    connection: &mut C,
    rows: &[(Key<'_>, Answer)],
    created: OffsetDateTime,
) -> Result<(), StoreError> {
    for rows in rows.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new(
            "INSERT INTO uncounted_votes (id, question, annotator, name, run_a, run_b, is_repeat,
                 value, shown_first, created)
             VALUES ",
        );
        sql.tuples(rows.iter().map(|((question, annotator, name, a, b, is_repeat), answer)| {
            let row: [Argument; 10] = [
                new_id(created).into(),
                (*question).into(),
                (*annotator).into(),
                (*name).into(),
                (*a).into(),
                (*b).into(),
                i64::from(*is_repeat).into(),
                answer.value.into(),
                answer.shown_first.into(),
                created.into(),
            ];
            row
        }));
        sql.push(
            " ON CONFLICT (question, annotator, name, run_a, run_b, is_repeat) DO UPDATE SET
                  value = excluded.value, shown_first = excluded.shown_first,
                  created = excluded.created",
        );
        connection.execute(sql).await?;
        let mut sql = Sql::new(
            "DELETE FROM preferences WHERE EXISTS (
                 SELECT 1 FROM uncounted_votes AS unsure
                 WHERE unsure.is_repeat = 0
                     AND unsure.question = preferences.question
                     AND unsure.annotator = preferences.annotator
                     AND unsure.name = preferences.name
                     AND unsure.run_a = preferences.run_a
                     AND unsure.run_b = preferences.run_b)",
        );
        limit_to(&mut sql, rows);
        connection.execute(sql).await?;
    }
    Ok(())
}

/// Limits a statement to the annotators and questions of these rows, by which an index leads.
fn limit_to(sql: &mut Sql, rows: &[(Key<'_>, Answer)]) {
    let annotators: BTreeSet<&str> = rows.iter().map(|(key, _)| key.1).collect();
    let questions: BTreeSet<&str> = rows.iter().map(|(key, _)| key.0).collect();
    sql.push(" AND annotator IN ").tuple(annotators.into_iter().map(Argument::from));
    sql.push(" AND question IN ").tuple(questions.into_iter().map(Argument::from));
}

/// Runs deletions in one transaction, and returns the number of rows that each deleted.
async fn together<P: Connections>(pool: &P, deletions: &[Sql]) -> Result<Vec<u64>, StoreError> {
    let transaction = || async {
        let mut transaction = pool.begin().await?;
        let mut deleted = Vec::new();
        for sql in deletions {
            deleted.push(transaction.execute(sql.clone()).await?);
        }
        transaction.commit().await?;
        Ok(deleted)
    };
    with_retries(transaction).await
}

fn preference<R: Row>(row: &R) -> Result<Preference, StoreError> {
    let row = Reader::new(row, "preferences", "");
    let (a, b, value) = (row.uuid("run_a")?, row.uuid("run_b")?, row.optional_real("value")?);
    Ok(Preference {
        id: row.uuid("id")?,
        question: row.word("question", Question::parse)?,
        annotator: row.text("annotator")?,
        name: row.text("name")?,
        judgement: Judgement::of_columns(a, b, value),
        shown_first: row.optional_uuid("shown_first")?,
        is_repeat: row.int::<i64>("is_repeat")? != 0,
        trial: row.optional_uuid("trial")?,
        created: row.time("created")?,
    })
}

fn vote_count<R: Row>(row: &R) -> Result<VoteCount, StoreError> {
    let row = Reader::new(row, "preferences", "");
    Ok(VoteCount {
        a: row.uuid("run_a")?,
        b: row.uuid("run_b")?,
        preference: row.int("value")?,
        times: row.int("times")?,
    })
}

/// Deletes the judgements about a run, or about one sample of it, in the transaction that deletes
/// the run or sample.
pub(super) async fn forget<C: Connection>(
    connection: &mut C,
    run: Uuid,
    name: Option<&str>,
) -> Result<(), StoreError> {
    studies::forget(connection, run, name).await?;
    for text in BOTH.map(|table| table.of_run) {
        let mut sql = Sql::new(text);
        sql.bind(run).push(" OR run_b = ").bind(run).push(")");
        if let Some(name) = name {
            sql.push(" AND name = ").bind(name);
        }
        connection.execute(sql).await?;
    }
    Ok(())
}
