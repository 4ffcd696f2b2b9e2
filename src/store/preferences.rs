//! Judgements of annotators: votes between two runs on one prompt, and ratings of single images.

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::db::{
    Argument, Connection, Connections, Reader, Row, Sql, StoreError, check_name, new_id,
    on_backend, read, to_microseconds, with_retries, write,
};

/// Rows per statement: SQLite accepts 32,766 arguments.
const BATCH: usize = 1_000;

/// Question that annotators are asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// Which image is better overall?
    Overall,
    /// Are the objects of the prompt in the image?
    Object,
    /// Are the relations of the prompt right?
    Relation,
    /// Which image looks more like the person?
    Identity,
    /// A question that the operator defines.
    Own(Box<str>),
}

/// Maximum length of a question's word in bytes.
const WORD_BYTES: usize = 32;

impl Question {
    /// Questions that every service has.
    pub const KNOWN: [Self; 4] = [Self::Overall, Self::Object, Self::Relation, Self::Identity];

    /// Returns the word that requests and the database use.
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

    /// Parses the word of a question: 1 to 32 lower-case letters, digits and underscores, starting
    /// with a letter.
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

/// Judgement of an annotator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judgement {
    /// A vote between the images of two runs for the same prompt.
    Vote {
        /// Id of run A.
        a: Uuid,
        /// Id of run B.
        b: Uuid,
        /// 1 if A's image is preferred, −1 if B's is, 0 if neither.
        preference: i8,
    },
    /// A rating of one image.
    Rating {
        /// Id of the run of the image.
        run: Uuid,
        /// Higher is better, on the scale that the annotator was given.
        rating: f64,
    },
}

/// A stored judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Preference {
    /// Id of the judgement.
    pub id: Uuid,
    /// Question that was asked.
    pub question: Question,
    /// Name of the annotator.
    pub annotator: String,
    /// Name of the sample in the run, or of the samples in both runs.
    pub name: String,
    /// The vote or rating.
    pub judgement: Judgement,
    /// Time of recording, UTC, to the microsecond.
    pub created: OffsetDateTime,
}

/// A judgement to record.
#[derive(Clone, Debug, PartialEq)]
pub struct NewPreference {
    /// Question that was asked.
    pub question: Question,
    /// Name of the annotator.
    pub annotator: String,
    /// Name of the sample in the run, or of the samples in both runs.
    pub name: String,
    /// The vote or rating.
    pub judgement: Judgement,
}

/// Filter and page of judgements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreferencesQuery {
    /// Only judgements on this question.
    pub question: Option<Question>,
    /// Only judgements of this annotator.
    pub annotator: Option<String>,
    /// Only judgements about this run.
    pub run: Option<Uuid>,
    /// Only judgements after this id.
    pub after: Option<Uuid>,
    /// Maximum number of judgements; `None` for all.
    pub limit: Option<u32>,
}

/// First judgement of a batch that cannot be recorded, because its sample does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSample {
    /// Position in the batch, counted from 0.
    pub place: usize,
    /// Run that has no such sample, or does not exist itself.
    pub run: Uuid,
    /// Name of the sample.
    pub name: String,
}

impl Judgement {
    /// Returns the two runs in order of their ids, and the value for the first of them.
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

impl Store {
    /// Records judgements of annotators, all or none, and returns their number. An annotator's
    /// judgement replaces an earlier one on the same question about the same images.
    pub async fn add_preferences(
        &self,
        preferences: &[NewPreference],
        created: OffsetDateTime,
    ) -> Result<Result<usize, UnknownSample>, StoreError> {
        on_backend!(self, pool => add(pool, preferences, created).await)
    }

    /// Returns judgements of annotators in order of arrival.
    pub async fn preferences(
        &self,
        query: &PreferencesQuery,
    ) -> Result<Vec<Preference>, StoreError> {
        let mut sql = Sql::new(
            "SELECT id, question, annotator, name, run_a, run_b, value, created
             FROM preferences
             WHERE 1 = 1",
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
        on_backend!(self, pool => read(pool, sql, preference).await)
    }

    /// Deletes a judgement; `false` if none has this id.
    pub async fn delete_preference(&self, id: Uuid) -> Result<bool, StoreError> {
        let mut sql = Sql::new("DELETE FROM preferences WHERE id = ");
        sql.bind(id);
        Ok(on_backend!(self, pool => write(pool, sql).await)? > 0)
    }

    /// Deletes all judgements of an annotator, and returns their number.
    pub async fn delete_annotator(&self, annotator: &str) -> Result<u64, StoreError> {
        let mut sql = Sql::new("DELETE FROM preferences WHERE annotator = ");
        sql.bind(annotator);
        on_backend!(self, pool => write(pool, sql).await)
    }

    /// Returns the names of at most `most` samples that both runs have and that have no vote on
    /// this question.
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
            Judgement::Vote { a, b, .. } if a == b => {
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
    // PostgreSQL cannot replace a row twice in one statement: of equal keys the last one wins.
    let mut last = BTreeMap::new();
    for new in preferences {
        let (a, b, value) = new.judgement.columns();
        last.insert((&new.question, &new.annotator, &new.name, a, b), value);
    }
    let rows: Vec<_> = last.into_iter().collect();
    for rows in rows.chunks(BATCH) {
        let mut sql = Sql::new(
            "INSERT INTO preferences (id, question, annotator, name, run_a, run_b, value,
                 created)
             VALUES ",
        );
        sql.tuples(rows.iter().map(
            |&((question, annotator, name, a, b), value)| -> [Argument; 8] {
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
            },
        ));
        sql.push(
            " ON CONFLICT (question, annotator, name, run_a, run_b) DO UPDATE SET
                  value = excluded.value, created = excluded.created",
        );
        connection.execute(sql).await?;
    }
    transaction.commit().await?;
    Ok(Ok(rows.len()))
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

/// Deletes the judgements about a run, or about one sample of it, in the transaction that deletes
/// the run or sample.
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
