//! What people say of images: votes between two runs on one prompt, and ratings of single images.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;
use uuid::Uuid;

use super::StoreError;
use super::sql::{Argument, Connection, Connections, Reader, Row, Sql, with_retries};
use super::words::{check_name, new_id, to_microseconds};

/// Rows of one statement: SQLite allows 32,766 arguments.
const BATCH: usize = 1_000;

/// What people were asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// Which is better altogether.
    Overall,
    /// Are the objects of the prompt there?
    Object,
    /// Are its relations right?
    Relation,
    /// Which is more like the person?
    Identity,
    /// One that the operator names.
    Own(Box<str>),
}

/// Bytes of a question's word.
const WORD_BYTES: usize = 32;

impl Question {
    /// Those that every service knows.
    pub const KNOWN: [Self; 4] = [Self::Overall, Self::Object, Self::Relation, Self::Identity];

    /// The word in requests and in the database.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Overall => "overall",
            Self::Object => "object",
            Self::Relation => "relation",
            Self::Identity => "identity",
            Self::Own(word) => word,
        }
    }

    /// The question of this word: 1 to 32 lower-case letters, digits and underscores, of which the first is a letter.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !word.starts_with(|first: char| first.is_ascii_lowercase())
            || word.len() > WORD_BYTES
            || !word.bytes().all(plain)
        {
            return None;
        }
        Some(
            Self::KNOWN
                .into_iter()
                .find(|known| known.as_str() == word)
                .unwrap_or_else(|| Self::Own(word.into())),
        )
    }
}

/// What was said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judgement {
    /// Of the same prompt in two runs.
    Vote {
        /// One run.
        a: Uuid,
        /// The other.
        b: Uuid,
        /// 1 where A's image is preferred, −1 where B's is, 0 where neither.
        preference: i8,
    },
    /// Of one image.
    Rating {
        /// Its run.
        run: Uuid,
        /// More is better, on whatever scale the annotator was given.
        rating: f64,
    },
}

/// One answer of an annotator.
#[derive(Clone, Debug, PartialEq)]
pub struct Preference {
    /// Its id.
    pub id: Uuid,
    /// What was asked.
    pub question: Question,
    /// Who answered.
    pub annotator: String,
    /// The samples' name in the run, or in both.
    pub name: String,
    /// The answer.
    pub judgement: Judgement,
    /// When it was taken down, UTC, to the microsecond.
    pub created: OffsetDateTime,
}

/// An answer to take down.
#[derive(Clone, Debug, PartialEq)]
pub struct NewPreference {
    /// What was asked.
    pub question: Question,
    /// Who answered.
    pub annotator: String,
    /// The samples' name.
    pub name: String,
    /// The answer.
    pub judgement: Judgement,
}

/// Which answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreferencesQuery {
    /// To this question.
    pub question: Option<Question>,
    /// Of this annotator.
    pub annotator: Option<String>,
    /// About this run.
    pub run: Option<Uuid>,
    /// Those behind this id.
    pub after: Option<Uuid>,
    /// At most so many; all where none is given.
    pub limit: Option<u32>,
}

/// The first of a batch of answers that cannot be taken down: it is about a sample that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSample {
    /// Its place in the batch.
    pub place: usize,
    /// The run that has no such sample, or is not there itself.
    pub run: Uuid,
    /// The name.
    pub name: String,
}

impl Judgement {
    /// The runs in their order, and the value of the first.
    fn columns(self) -> (Uuid, Uuid, f64) {
        match self {
            Self::Vote { a, b, preference } if a < b => (a, b, preference.into()),
            Self::Vote { a, b, preference } => (b, a, (-preference).into()),
            Self::Rating { run, rating } => (run, run, rating),
        }
    }

    fn runs(self) -> [Uuid; 2] {
        match self {
            Self::Vote { a, b, .. } => [a, b],
            Self::Rating { run, .. } => [run, run],
        }
    }
}

/// Takes answers down, all or none; the same annotator's answer to the same question replaces the one before.
pub(super) async fn add<P: Connections>(
    pool: &P,
    preferences: &[NewPreference],
    created: OffsetDateTime,
) -> Result<Result<usize, UnknownSample>, StoreError> {
    for preference in preferences {
        check_name("the annotator", &preference.annotator)?;
        check_name("the sample's name", &preference.name)?;
        match preference.judgement {
            Judgement::Vote { a, b, .. } if a == b => {
                return Err(StoreError::invalid("run_b", "it is run_a: a vote is between two runs"));
            }
            Judgement::Rating { rating, .. } if !rating.is_finite() || rating.abs() > 1e6 => {
                return Err(StoreError::invalid(
                    "rating",
                    format!("{rating} is not a number within ±1,000,000"),
                ));
            }
            _ => {}
        }
    }
    with_retries(Uuid::now_v7(), || insert(pool, preferences, to_microseconds(created))).await
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
        for names in names.iter().collect::<Vec<_>>().chunks(BATCH) {
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
    // PostgreSQL refuses to replace a row twice in one statement: of equal keys the last one stands.
    let mut last = BTreeMap::new();
    for new in preferences {
        let (a, b, value) = new.judgement.columns();
        last.insert((&new.question, &new.annotator, &new.name, a, b), value);
    }
    let rows: Vec<_> = last.into_iter().collect();
    for rows in rows.chunks(BATCH) {
        let mut sql = Sql::new(
            "INSERT INTO preferences (id, question, annotator, name, run_a, run_b, value, created) VALUES ",
        );
        sql.tuples(rows.iter().map(|&((question, annotator, name, a, b), value)| -> [Argument; 8] {
            [
                new_id(created).into(),
                question.as_str().into(),
                annotator.as_str().into(),
                name.as_str().into(),
                a.into(),
                b.into(),
                value.into(),
                created.into(),
            ]
        }));
        sql.push(
            " ON CONFLICT (question, annotator, name, run_a, run_b) DO UPDATE SET
                  value = excluded.value, created = excluded.created",
        );
        connection.execute(sql).await?;
    }
    transaction.commit().await?;
    Ok(Ok(rows.len()))
}

/// Answers in the order in which they came.
pub(super) async fn list<P: Connections>(
    pool: &P,
    query: &PreferencesQuery,
) -> Result<Vec<Preference>, StoreError> {
    let mut connection = pool.reader().await?;
    let mut sql = Sql::new(
        "SELECT id, question, annotator, name, run_a, run_b, value, created FROM preferences WHERE 1 = 1",
    );
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
    connection.fetch(sql).await?.iter().map(preference).collect()
}

fn preference<R: Row>(row: &R) -> Result<Preference, StoreError> {
    let row = Reader::new(row, "preferences", "");
    let (a, b, value) = (row.uuid("run_a")?, row.uuid("run_b")?, row.real("value")?);
    let judgement = if a == b {
        Judgement::Rating { run: a, rating: value }
    } else {
        Judgement::Vote { a, b, preference: value as i8 }
    };
    Ok(Preference {
        id: row.uuid("id")?,
        question: row.word("question", Question::parse)?,
        annotator: row.text("annotator")?,
        name: row.text("name")?,
        judgement,
        created: row.time("created")?,
    })
}

/// Deletes an answer; `false` where none has this id.
pub(super) async fn delete<P: Connections>(pool: &P, id: Uuid) -> Result<bool, StoreError> {
    let mut transaction = pool.begin().await?;
    let mut sql = Sql::new("DELETE FROM preferences WHERE id = ");
    sql.bind(id);
    let connection = &mut *transaction;
    let deleted = connection.execute(sql).await?;
    transaction.commit().await?;
    Ok(deleted > 0)
}

/// Deletes all answers of an annotator, and says how many there were.
pub(super) async fn delete_annotator<P: Connections>(pool: &P, annotator: &str) -> Result<u64, StoreError> {
    let mut transaction = pool.begin().await?;
    let mut sql = Sql::new("DELETE FROM preferences WHERE annotator = ");
    sql.bind(annotator);
    let connection = &mut *transaction;
    let deleted = connection.execute(sql).await?;
    transaction.commit().await?;
    Ok(deleted)
}

/// Deletes what was said of a run, or of one sample of it, in a transaction that deletes those.
pub(super) async fn forget<C: Connection>(
    connection: &mut C,
    run: Uuid,
    name: Option<&str>,
) -> Result<(), StoreError> {
    let mut sql = Sql::new("DELETE FROM preferences WHERE (run_a = ");
    sql.bind(run).push(" OR run_b = ").bind(run).push(")");
    if let Some(name) = name {
        sql.push(" AND name = ").bind(name);
    }
    connection.execute(sql).await?;
    Ok(())
}

/// Names of samples that two runs both have and on which nobody voted with this question.
pub(super) async fn unjudged<P: Connections>(
    pool: &P,
    question: &Question,
    a: Uuid,
    b: Uuid,
    most: u32,
) -> Result<Vec<String>, StoreError> {
    let (a, b) = (a.min(b), a.max(b));
    let mut connection = pool.reader().await?;
    let mut sql = Sql::new(
        "SELECT one.name FROM samples AS one JOIN samples AS other ON other.name = one.name AND other.run = ",
    );
    sql.bind(b).push(" WHERE one.run = ").bind(a);
    sql.push(" AND NOT EXISTS (SELECT 1 FROM preferences WHERE preferences.name = one.name AND question = ");
    sql.bind(question.as_str()).push(" AND run_a = ").bind(a).push(" AND run_b = ").bind(b);
    sql.push(") ORDER BY one.name LIMIT ").bind(most);
    let rows = connection.fetch(sql).await?;
    rows.iter().map(|row| Reader::new(row, "samples", a).text("name")).collect()
}
