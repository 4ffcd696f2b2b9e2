//! Prompts of datasets.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::datasets::ensure_dataset;
use super::db::{
    self, Argument, Connection, Connections, Reader, Sql, StoreError, check_name, check_text,
    on_backend, read, to_microseconds, with_retries,
};
use crate::content::ContentHash;

/// Maximum number of prompts per registration: a statement accepts a limited number of arguments.
pub const MAX_PROMPTS: usize = 1_000;

/// A prompt for one identity of a dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptRecord {
    /// Identity that it is for.
    pub identity: String,
    /// Text as written; `{}` stands for the person.
    pub text: String,
    /// Free label; Stellar uses `T` and `H`.
    pub kind: Option<String>,
    /// Categories, objects and relations that it names.
    pub facts: PromptFacts,
}

/// Categories, objects and relations that a prompt names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PromptFacts {
    /// Categories, for slices of the leaderboard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
    /// Objects, as words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub detectables: Vec<String>,
    /// Relations as subject, predicate and object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relations: Vec<[String; 3]>,
}

/// Result of registering prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// Number of new prompts.
    pub created: u64,
    /// Number of existing prompts whose kind or facts were replaced.
    pub changed: u64,
    /// Number of existing prompts that did not change.
    pub repeated: u64,
}

/// Start of a page of prompts: after the prompt at this position of this identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptCursor {
    /// Identity of the prompt.
    pub identity: String,
    /// Position among the identity's prompts.
    pub position: u64,
}

/// Filter and page of a dataset's prompts.
#[derive(Clone, Debug, Default)]
pub struct PromptQuery {
    /// Only prompts for this identity.
    pub identity: Option<String>,
    /// Only prompts of this kind.
    pub kind: Option<String>,
    /// Only prompts after this one.
    pub after: Option<PromptCursor>,
    /// Maximum number of prompts.
    pub limit: u32,
}

impl Store {
    /// Registers prompts in a dataset, which is created if it is new: at most [`MAX_PROMPTS`] at
    /// once.
    ///
    /// A prompt is identified by its identity and text: repeating it changes nothing; another kind
    /// or other facts replace the stored ones.
    pub async fn register_prompts(
        &self,
        dataset: &str,
        prompts: &[PromptRecord],
        created: OffsetDateTime,
    ) -> Result<Registered, StoreError> {
        on_backend!(self, pool => register(pool, dataset, prompts, created).await)
    }

    /// Returns one page of a dataset's prompts, by identity and then in order of registration, each
    /// with the cursor that continues after it.
    pub async fn prompts(
        &self,
        dataset: Uuid,
        query: &PromptQuery,
    ) -> Result<Vec<(PromptCursor, PromptRecord)>, StoreError> {
        let mut sql =
            Sql::new("SELECT identity, position, text, kind, facts FROM prompts WHERE dataset = ");
        sql.bind(dataset);
        if let Some(identity) = &query.identity {
            sql.push(" AND identity = ").bind(identity.as_str());
        }
        if let Some(kind) = &query.kind {
            sql.push(" AND kind = ").bind(kind.as_str());
        }
        if let Some(after) = &query.after {
            sql.push(" AND (identity, position) > ");
            let position = i64::try_from(after.position).unwrap_or(i64::MAX);
            sql.tuple([after.identity.as_str().into(), position.into()]);
        }
        sql.push(" ORDER BY identity, position LIMIT ").bind(query.limit);
        on_backend!(self, pool => read(pool, sql, |row| prompt_record(row, dataset)).await)
    }

    /// Returns the kinds of a dataset's prompts, those with most prompts first.
    pub async fn largest_prompt_kinds(
        &self,
        dataset: Uuid,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        let mut sql = Sql::new("SELECT kind FROM prompts WHERE dataset = ");
        sql.bind(dataset);
        sql.push(" AND kind IS NOT NULL GROUP BY kind ORDER BY COUNT(*) DESC, kind LIMIT ");
        sql.bind(limit);
        on_backend!(self, pool => {
            read(pool, sql, |row| Reader::new(row, "prompts", dataset).text("kind")).await
        })
    }
}

async fn register<P: Connections>(
    pool: &P,
    dataset: &str,
    prompts: &[PromptRecord],
    created: OffsetDateTime,
) -> Result<Registered, StoreError> {
    check_name("the dataset's name", dataset)?;
    if prompts.len() > MAX_PROMPTS {
        let reason = format!("there are {}; register at most {MAX_PROMPTS} at once", prompts.len());
        return Err(StoreError::invalid("the list of prompts", reason));
    }
    for prompt in prompts {
        check_name("the identity", &prompt.identity)?;
        check_text("the prompt", &prompt.text)?;
        if let Some(kind) = &prompt.kind {
            check_name("the kind", kind)?;
        }
    }
    with_retries(|| transaction(pool, dataset, prompts, created)).await
}

/// An existing prompt.
struct Stored {
    position: u64,
    kind: Option<String>,
    facts: PromptFacts,
}

async fn transaction<P: Connections>(
    pool: &P,
    dataset: &str,
    prompts: &[PromptRecord],
    created: OffsetDateTime,
) -> Result<Registered, StoreError> {
    let created = to_microseconds(created);
    let mut transaction = pool.begin().await?;
    let connection = &mut *transaction;
    // Locks the dataset's row, so that two registrations cannot assign the same position.
    let dataset = ensure_dataset(connection, dataset, created).await?;
    let mut stored = stored(connection, dataset, prompts).await?;
    let mut next: HashMap<&str, u64> = HashMap::new();
    for ((identity, _), prompt) in &stored {
        if let Some(known) = prompts.iter().find(|new| new.identity == *identity) {
            let next = next.entry(&known.identity).or_default();
            *next = (*next).max(prompt.position + 1);
        }
    }
    let mut done = Registered::default();
    let mut rows = Vec::new();
    for prompt in prompts {
        let address = ContentHash::of(prompt.text.as_bytes()).to_hex();
        let facts = serde_json::to_string(&prompt.facts).expect("plain data always serialises");
        let key = (prompt.identity.clone(), address.clone());
        match stored.get_mut(&key) {
            Some(known) if known.kind == prompt.kind && known.facts == prompt.facts => {
                done.repeated += 1;
            }
            Some(known) => {
                (known.kind, known.facts) = (prompt.kind.clone(), prompt.facts.clone());
                let position = known.position;
                // A prompt that this call creates is not written yet.
                if let Some(row) = rows.iter_mut().find(|row: &&mut Row<'_>| {
                    row.prompt.identity == prompt.identity && row.position == position
                }) {
                    (row.prompt, row.facts) = (prompt, facts);
                    continue;
                }
                let mut sql = Sql::new("UPDATE prompts SET kind = ");
                sql.bind(prompt.kind.clone()).push(", facts = ").bind(facts);
                sql.push(" WHERE dataset = ").bind(dataset);
                sql.push(" AND identity = ").bind(prompt.identity.as_str());
                sql.push(" AND position = ").bind(position as i64);
                connection.execute(sql).await?;
                done.changed += 1;
            }
            None => {
                let next = next.entry(&prompt.identity).or_default();
                let position = *next;
                *next += 1;
                let (kind, known) = (prompt.kind.clone(), prompt.facts.clone());
                stored.insert(key, Stored { position, kind, facts: known });
                rows.push(Row { prompt, position, address, facts });
                done.created += 1;
            }
        }
    }
    if !rows.is_empty() {
        let mut sql = Sql::new(
            "INSERT INTO prompts (dataset, identity, position, address, text, kind, facts,
                 created)
             VALUES ",
        );
        sql.tuples(rows.into_iter().map(|row| {
            [
                dataset.into(),
                row.prompt.identity.as_str().into(),
                (row.position as i64).into(),
                row.address.into(),
                row.prompt.text.as_str().into(),
                row.prompt.kind.clone().into(),
                row.facts.into(),
                created.into(),
            ]
        }));
        connection.execute(sql).await?;
    }
    transaction.commit().await?;
    Ok(done)
}

/// A prompt to insert.
struct Row<'a> {
    prompt: &'a PromptRecord,
    position: u64,
    address: String,
    facts: String,
}

/// Returns the existing prompts of these identities, by identity and hash of the text.
async fn stored<C: Connection>(
    connection: &mut C,
    dataset: Uuid,
    prompts: &[PromptRecord],
) -> Result<BTreeMap<(String, String), Stored>, StoreError> {
    let identities: BTreeSet<&str> =
        prompts.iter().map(|prompt| prompt.identity.as_str()).collect();
    if identities.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut sql =
        Sql::new("SELECT identity, position, address, kind, facts FROM prompts WHERE dataset = ");
    sql.bind(dataset).push(" AND identity IN ").tuple(identities.into_iter().map(Argument::from));
    let rows = connection.fetch(sql).await?;
    let read = rows.iter().map(|row| {
        let row = Reader::new(row, "prompts", dataset);
        let stored = Stored {
            position: row.int("position")?,
            kind: row.optional_text("kind")?,
            facts: row.json("facts")?,
        };
        Ok(((row.text("identity")?, row.text("address")?), stored))
    });
    read.collect()
}

fn prompt_record<R: db::Row>(
    row: &R,
    dataset: Uuid,
) -> Result<(PromptCursor, PromptRecord), StoreError> {
    let row = Reader::new(row, "prompts", dataset);
    let identity = row.text("identity")?;
    let cursor = PromptCursor { identity: identity.clone(), position: row.int("position")? };
    let prompt = PromptRecord {
        identity,
        text: row.text("text")?,
        kind: row.optional_text("kind")?,
        facts: row.json("facts")?,
    };
    Ok((cursor, prompt))
}
