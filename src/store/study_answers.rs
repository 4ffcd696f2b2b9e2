//! Answers of annotators in studies.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::db::{
    Argument, Connection, Connections, Reader, Row, Sql, StoreError, check_name, new_id,
    on_backend, read, read_first, to_microseconds, with_retries,
};
use super::judgements::Question;
use super::studies::{ExclusionCause, StudyItem, exclusion_insert, item, json};
use super::study_plan::GoldPlan;
use crate::clock;

/// What an annotator answered about an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StudyChoice {
    /// The image of this run.
    One(Uuid),
    /// All images are equally good.
    Tie,
    /// The annotator could not tell.
    CannotTell,
}

impl StudyChoice {
    /// Returns the word that is stored and exported, and the chosen run.
    #[must_use]
    pub fn parts(self) -> (&'static str, Option<Uuid>) {
        match self {
            Self::One(run) => ("one", Some(run)),
            Self::Tie => ("tie", None),
            Self::CannotTell => ("cannot_tell", None),
        }
    }
}

/// A stored answer.
#[derive(Clone, Debug, PartialEq)]
pub struct StudyAnswer {
    /// Id of the answer.
    pub id: Uuid,
    /// Position of its item.
    pub item: u32,
    /// The question.
    pub question: Question,
    /// Name of the annotator.
    pub annotator: String,
    /// What was answered.
    pub choice: StudyChoice,
    /// Runs in the order in which their images were shown.
    pub shown: Vec<Uuid>,
    /// Time of recording.
    pub created: OffsetDateTime,
}

/// An answer to record.
#[derive(Clone, Debug)]
pub struct NewStudyAnswer {
    /// The item.
    pub item: StudyItem,
    /// The question.
    pub question: Question,
    /// Name of the annotator.
    pub annotator: String,
    /// What was answered.
    pub choice: StudyChoice,
    /// Runs in the order in which their images were shown.
    pub shown: Vec<Uuid>,
}

/// Numbers of answers of a study.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StudyProgress {
    /// Number of items without those of gold.
    pub items: u64,
    /// Answers by question, without those of annotators who are left out and to gold items.
    pub by_question: BTreeMap<String, u64>,
    /// Items with at least the wanted number of such answers, by question.
    pub complete: BTreeMap<String, u64>,
    /// The answers of each annotator.
    pub by_annotator: BTreeMap<String, AnnotatorAnswers>,
}

/// Numbers of answers of one annotator in a study.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnnotatorAnswers {
    /// All answers.
    pub answers: u64,
    /// Those of them about gold items.
    pub gold: u64,
    /// Those of them that are right.
    pub gold_right: u64,
}

/// Condition that leaves out the answers of excluded annotators.
pub(super) const COUNTED: &str = " AND NOT EXISTS (SELECT 1 FROM study_exclusions AS out
     WHERE out.study = answers.study AND out.annotator = answers.annotator)";

const ANSWERS: &str = "SELECT id, item, question, annotator, choice, chosen, shown, created
     FROM study_answers AS answers WHERE study = ";

impl Store {
    /// Returns the answers of one annotator in order of time.
    pub async fn own_study_answers(
        &self,
        study: Uuid,
        annotator: &str,
    ) -> Result<Vec<StudyAnswer>, StoreError> {
        let mut sql = Sql::new(ANSWERS);
        sql.bind(study).push(" AND annotator = ").bind(annotator).push(" ORDER BY created, id");
        on_backend!(self, pool => read(pool, sql, answer).await)
    }

    /// Returns all answers, or those to one question, in order of time.
    pub async fn study_answers(
        &self,
        study: Uuid,
        question: Option<&Question>,
    ) -> Result<Vec<StudyAnswer>, StoreError> {
        let mut sql = Sql::new(ANSWERS);
        sql.bind(study);
        if let Some(question) = question {
            sql.push(" AND question = ").bind(question.as_str());
        }
        sql.push(" ORDER BY created, id");
        on_backend!(self, pool => read(pool, sql, answer).await)
    }

    /// Returns the item with the fewest answers to a question that an annotator has not answered,
    /// without gold items and those with `enough` answers. Of equal ones, the first from `start`
    /// on.
    pub async fn next_study_item(
        &self,
        study: Uuid,
        question: &Question,
        annotator: &str,
        enough: u32,
        start: u32,
    ) -> Result<Option<StudyItem>, StoreError> {
        let mut sql = Sql::new(
            "SELECT place, name, runs, right_run FROM (
                 SELECT place, name, runs, right_run,
                     (SELECT COUNT(*) FROM study_answers AS answers
                      WHERE answers.study = study_items.study AND answers.item = place
                          AND answers.question = ",
        );
        sql.bind(question.as_str()).push(COUNTED);
        sql.push(") AS answered FROM study_items WHERE study = ").bind(study);
        sql.push(
            " AND right_run IS NULL AND NOT EXISTS (SELECT 1 FROM study_answers AS own
                 WHERE own.study = study_items.study AND own.item = place AND own.annotator = ",
        );
        sql.bind(annotator).push(")) AS open WHERE answered < ").bind(enough);
        sql.push(" ORDER BY answered, CASE WHEN place >= ").bind(start);
        sql.push(" THEN 0 ELSE 1 END, place LIMIT 1");
        on_backend!(self, pool => read_first(pool, sql, item).await)
    }

    /// Records answers, all or none, in place of earlier ones of the same annotator to the same
    /// question about the same item. The same answer again changes nothing. Returns the ids.
    pub async fn add_study_answers(
        &self,
        study: Uuid,
        gold: Option<&GoldPlan>,
        answers: &[NewStudyAnswer],
        created: OffsetDateTime,
    ) -> Result<Vec<Uuid>, StoreError> {
        for answer in answers {
            check_name("the annotator", &answer.annotator)?;
        }
        let created = to_microseconds(created);
        on_backend!(self, pool => {
            with_retries(|| add(pool, study, gold, answers, created)).await
        })
    }

    /// Withdraws an answer of an annotator. Returns it, or `None` if there is none with this id.
    pub async fn withdraw_study_answer(
        &self,
        study: Uuid,
        gold: Option<&GoldPlan>,
        id: Uuid,
        annotator: &str,
    ) -> Result<Option<StudyAnswer>, StoreError> {
        on_backend!(self, pool => {
            with_retries(|| withdraw(pool, study, gold, id, annotator)).await
        })
    }

    /// Counts the answers of a study. An item is complete with `enough` answers.
    pub async fn study_progress(
        &self,
        study: Uuid,
        enough: u32,
    ) -> Result<StudyProgress, StoreError> {
        on_backend!(self, pool => progress(pool, study, enough).await)
    }
}

fn answer<R: Row>(row: &R) -> Result<StudyAnswer, StoreError> {
    let row = Reader::new(row, "study_answers", "");
    let choice = match (row.text("choice")?.as_str(), row.optional_uuid("chosen")?) {
        ("one", Some(run)) => StudyChoice::One(run),
        ("tie", None) => StudyChoice::Tie,
        ("cannot_tell", None) => StudyChoice::CannotTell,
        _ => return Err(row.corrupt("choice", "does not fit the chosen run")),
    };
    Ok(StudyAnswer {
        id: row.uuid("id")?,
        item: row.int("item")?,
        question: row.word("question", Question::parse)?,
        annotator: row.text("annotator")?,
        choice,
        shown: row.json("shown")?,
        created: row.time("created")?,
    })
}

async fn add<P: Connections>(
    pool: &P,
    study: Uuid,
    gold: Option<&GoldPlan>,
    answers: &[NewStudyAnswer],
    created: OffsetDateTime,
) -> Result<Vec<Uuid>, StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    let mut ids = Vec::with_capacity(answers.len());
    for new in answers {
        let mut sql = Sql::new(ANSWERS);
        sql.bind(study).push(" AND item = ").bind(new.item.place);
        sql.push(" AND question = ").bind(new.question.as_str());
        sql.push(" AND annotator = ").bind(new.annotator.as_str());
        let before = connection.fetch(sql).await?.first().map(answer).transpose()?;
        if let Some(before) = before {
            if before.choice == new.choice {
                ids.push(before.id);
                continue;
            }
            delete(connection, before.id).await?;
        }
        let id = new_id(created);
        ids.push(id);
        let (choice, chosen) = new.choice.parts();
        let mut sql = Sql::new(
            "INSERT INTO study_answers (id, study, item, question, annotator, choice, chosen,
                 shown, created)
             VALUES ",
        );
        sql.tuple([
            id.into(),
            study.into(),
            new.item.place.into(),
            new.question.as_str().into(),
            new.annotator.as_str().into(),
            choice.into(),
            chosen.into(),
            json(&new.shown).into(),
            created.into(),
        ]);
        sql.push(" ON CONFLICT (study, item, question, annotator) DO NOTHING");
        if connection.execute(sql).await? == 0 {
            // A request at the same moment inserted an answer: the next attempt finds it.
            return Err(StoreError::Contended(sqlx::Error::RowNotFound));
        }
        if new.item.right.is_some() {
            judge(connection, study, gold, &new.annotator, created).await?;
        } else {
            vote(connection, study, id, new, created).await?;
        }
    }
    transaction.commit().await?;
    Ok(ids)
}

/// Writes the votes of an answer: the chosen image over each other one.
async fn vote<C: Connection>(
    connection: &mut C,
    study: Uuid,
    answer: Uuid,
    new: &NewStudyAnswer,
    created: OffsetDateTime,
) -> Result<(), StoreError> {
    let pairs: Vec<(Uuid, Uuid, Option<f64>)> = match (new.choice, &new.shown[..]) {
        (StudyChoice::One(chosen), shown) => shown
            .iter()
            .filter(|run| **run != chosen)
            .map(|other| {
                let value = if chosen < *other { 1.0 } else { -1.0 };
                (chosen.min(*other), chosen.max(*other), Some(value))
            })
            .collect(),
        (StudyChoice::Tie, [one, other]) => vec![(*one.min(other), *one.max(other), Some(0.0))],
        (StudyChoice::CannotTell, [one, other]) => vec![(*one.min(other), *one.max(other), None)],
        // Nothing is said of any two of several images.
        _ => return Ok(()),
    };
    // Of several images, none is on the left of all others.
    let first = if new.shown.len() == 2 { new.shown.first().copied() } else { None };
    let mut sql = Sql::new(
        "INSERT INTO study_votes (id, answer, study, question, annotator, name, run_a, run_b,
             value, shown_first, created)
         VALUES ",
    );
    sql.tuples(pairs.into_iter().map(|(a, b, value)| -> [Argument; 11] {
        [
            new_id(created).into(),
            answer.into(),
            study.into(),
            new.question.as_str().into(),
            new.annotator.as_str().into(),
            new.item.name.as_str().into(),
            a.into(),
            b.into(),
            value.into(),
            first.into(),
            created.into(),
        ]
    }));
    connection.execute(sql).await?;
    Ok(())
}

async fn delete<C: Connection>(connection: &mut C, answer: Uuid) -> Result<(), StoreError> {
    let mut sql = Sql::new("DELETE FROM study_answers WHERE id = ");
    sql.bind(answer);
    connection.execute(sql).await?;
    Ok(())
}

async fn withdraw<P: Connections>(
    pool: &P,
    study: Uuid,
    gold: Option<&GoldPlan>,
    id: Uuid,
    annotator: &str,
) -> Result<Option<StudyAnswer>, StoreError> {
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    let mut sql = Sql::new(ANSWERS);
    sql.bind(study).push(" AND annotator = ").bind(annotator).push(" AND id = ").bind(id);
    let Some(found) = connection.fetch(sql).await?.first().map(answer).transpose()? else {
        return Ok(None);
    };
    delete(connection, id).await?;
    let created = clock::now();
    judge(connection, study, gold, annotator, created).await?;
    transaction.commit().await?;
    Ok(Some(found))
}

/// Leaves an annotator out, or counts them again, by all of their answers to gold items.
async fn judge<C: Connection>(
    connection: &mut C,
    study: Uuid,
    gold: Option<&GoldPlan>,
    annotator: &str,
    created: OffsetDateTime,
) -> Result<(), StoreError> {
    let Some(gold) = gold else { return Ok(()) };
    let mut sql = Sql::new(
        "SELECT COUNT(*) AS answers,
             CAST(COALESCE(SUM(CASE WHEN chosen = right_run THEN 1 ELSE 0 END), 0) AS bigint)
                 AS hits
         FROM study_answers
         JOIN study_items ON study_items.study = study_answers.study AND place = item
         WHERE right_run IS NOT NULL AND study_answers.study = ",
    );
    sql.bind(study).push(" AND annotator = ").bind(annotator);
    let rows = connection.fetch(sql).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let row = Reader::new(row, "study_answers", study);
    let (answers, right): (u32, u32) = (row.int("answers")?, row.int("hits")?);
    let sql = if answers >= gold.least() && f64::from(right) < gold.share * f64::from(answers) {
        let reason = format!(
            "{right} of {answers} gold items right, which is less than {} %",
            (gold.share * 100.0).round()
        );
        exclusion_insert(study, annotator, ExclusionCause::Gold, reason, created)
    } else {
        let mut sql = Sql::new("DELETE FROM study_exclusions WHERE cause = 'gold' AND study = ");
        sql.bind(study).push(" AND annotator = ").bind(annotator);
        sql
    };
    connection.execute(sql).await?;
    Ok(())
}

async fn progress<P: Connections>(
    pool: &P,
    study: Uuid,
    enough: u32,
) -> Result<StudyProgress, StoreError> {
    let mut connection = pool.reader().await?;
    let mut found = StudyProgress::default();
    let mut sql =
        Sql::new("SELECT COUNT(*) AS n FROM study_items WHERE right_run IS NULL AND study = ");
    sql.bind(study);
    if let Some(row) = connection.fetch(sql).await?.first() {
        found.items = Reader::new(row, "study_items", study).int("n")?;
    }
    let mut sql =
        Sql::new("SELECT question, CAST(SUM(n) AS bigint) AS answers, CAST(SUM(CASE WHEN n >= ");
    sql.bind(enough).push(
        " THEN 1 ELSE 0 END) AS bigint) AS complete FROM (
             SELECT question, answers.item, COUNT(*) AS n FROM study_answers AS answers
             JOIN study_items ON study_items.study = answers.study AND place = answers.item
             WHERE right_run IS NULL AND answers.study = ",
    );
    sql.bind(study)
        .push(COUNTED)
        .push(" GROUP BY question, answers.item) AS items GROUP BY question");
    for row in &connection.fetch(sql).await? {
        let row = Reader::new(row, "study_answers", study);
        let question = row.text("question")?;
        found.by_question.insert(question.clone(), row.int("answers")?);
        found.complete.insert(question, row.int("complete")?);
    }
    let mut sql = Sql::new(
        "SELECT annotator, COUNT(*) AS n, COUNT(right_run) AS gold,
             CAST(SUM(CASE WHEN chosen = right_run THEN 1 ELSE 0 END) AS bigint) AS hits
         FROM study_answers AS answers
         JOIN study_items ON study_items.study = answers.study AND place = answers.item
         WHERE answers.study = ",
    );
    sql.bind(study).push(" GROUP BY annotator");
    for row in &connection.fetch(sql).await? {
        let row = Reader::new(row, "study_answers", study);
        let of = AnnotatorAnswers {
            answers: row.int("n")?,
            gold: row.int("gold")?,
            gold_right: row.int("hits")?,
        };
        found.by_annotator.insert(row.text("annotator")?, of);
    }
    Ok(found)
}
