//! Methods.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::Store;
use super::cards::keep_card;
use super::db::{
    Connection, Connections, Reader, Row, Sql, StoreError, check_name, check_text, new_id,
    on_backend, read, read_first, to_microseconds, with_retries,
};
use crate::card::MethodCard;

/// A method with its number of runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = MethodEntry)]
pub struct MethodRecord {
    /// Name of the method.
    pub name: String,
    /// Description in free text.
    pub description: Option<String>,
    /// What its authors declare; null if they declare nothing.
    #[serde(default)]
    pub card: Option<MethodCard>,
    /// Number of runs.
    pub runs: u64,
    /// Time of creation, UTC, to the microsecond.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
}

impl Store {
    /// Creates a method or updates its description and its card, as far as they are given. Returns
    /// `true` if it is new.
    pub async fn create_method(
        &self,
        name: &str,
        description: Option<&str>,
        card: Option<&MethodCard>,
        created: OffsetDateTime,
    ) -> Result<(MethodRecord, bool), StoreError> {
        on_backend!(self, pool => create_method(pool, name, description, card, created).await)
    }

    /// Looks up a method by its name.
    pub async fn method(&self, name: &str) -> Result<Option<MethodRecord>, StoreError> {
        let mut sql = Sql::new(METHODS);
        sql.push("= ").bind(name);
        on_backend!(self, pool => read_first(pool, sql, method_record).await)
    }

    /// Lists at most `limit` methods by name, starting after the name `after`.
    pub async fn methods(&self, after: &str, limit: u32) -> Result<Vec<MethodRecord>, StoreError> {
        let mut sql = Sql::new(METHODS);
        sql.push("> ").bind(after).push(" ORDER BY name LIMIT ").bind(limit);
        on_backend!(self, pool => read(pool, sql, method_record).await)
    }
}

async fn create_method<P: Connections>(
    pool: &P,
    name: &str,
    description: Option<&str>,
    card: Option<&MethodCard>,
    created: OffsetDateTime,
) -> Result<(MethodRecord, bool), StoreError> {
    check_name("the method's name", name)?;
    check_text("the description", description.unwrap_or_default())?;
    let transaction = || async {
        let mut transaction = pool.begin().await?;
        let connection = &mut *transaction;
        let is_new = ensure_method(connection, name, to_microseconds(created)).await?;
        if let Some(description) = description {
            let mut sql = Sql::new("UPDATE methods SET description = ");
            sql.bind(description).push(" WHERE name = ").bind(name);
            connection.execute(sql).await?;
        }
        if let Some(card) = card {
            connection.execute(keep_card(name, card, created)).await?;
        }
        let mut sql = Sql::new(METHODS);
        sql.push("= ").bind(name);
        let rows = connection.fetch(sql).await?;
        let method = rows.first().ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
        let method = method_record(method)?;
        transaction.commit().await?;
        Ok((method, is_new))
    };
    with_retries(transaction).await
}

const METHODS: &str = "SELECT name, description, created, card,
        (SELECT COUNT(*) FROM runs WHERE runs.method = methods.id) AS runs
    FROM methods LEFT JOIN method_cards ON method_cards.method = methods.id WHERE name ";

fn method_record<R: Row>(row: &R) -> Result<MethodRecord, StoreError> {
    let row = Reader::new(row, "methods", "");
    Ok(MethodRecord {
        name: row.text("name")?,
        description: row.optional_text("description")?,
        card: row.optional_text("card")?.map(|_| row.json("card")).transpose()?,
        runs: row.int("runs")?,
        created: row.time("created")?,
    })
}

/// Creates a method if it does not exist, and returns `true` if it is new.
pub(super) async fn ensure_method<C: Connection>(
    connection: &mut C,
    name: &str,
    created: OffsetDateTime,
) -> Result<bool, StoreError> {
    let mut sql = Sql::new("INSERT INTO methods (id, name, created) VALUES ");
    sql.tuple([new_id(created).into(), name.into(), created.into()]);
    sql.push(" ON CONFLICT (name) DO NOTHING");
    Ok(connection.execute(sql).await? == 1)
}
