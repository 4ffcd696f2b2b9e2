//! API keys: the hashes of their secrets, with scopes, limits, expiry and revocation.

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::db::{
    Argument, Connections, Reader, Row, Sql, StoreError, check_name, on_backend, read, read_first,
    to_microseconds, write,
};
use crate::key::{KeyLimits, Scope, SecretHash};

/// A stored key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Id of the key, a part of its text.
    pub id: Uuid,
    /// Name of the key, unique among those that are not revoked.
    pub name: String,
    /// Hash of its secret.
    pub hash: SecretHash,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Its limits.
    pub limits: KeyLimits,
    /// Time of creation.
    pub created: OffsetDateTime,
    /// Time from which it is refused, if it expires.
    pub expires: Option<OffsetDateTime>,
    /// Time of its revocation.
    pub revoked: Option<OffsetDateTime>,
}

impl KeyRecord {
    /// Returns true if the key is accepted at this time.
    #[must_use]
    pub fn is_valid(&self, now: OffsetDateTime) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|expires| now < expires)
    }
}

impl Store {
    /// Stores a key. Returns `false` if another one that is not revoked has its name.
    pub async fn create_key(&self, key: &KeyRecord) -> Result<bool, StoreError> {
        check_name("the key's name", &key.name)?;
        Ok(on_backend!(self, pool => write(pool, insert(key)).await)? == 1)
    }

    /// Returns a key by its id, in any state.
    pub async fn key(&self, id: Uuid) -> Result<Option<KeyRecord>, StoreError> {
        let mut sql = Sql::new(KEYS);
        sql.push(" WHERE id = ").bind(id);
        on_backend!(self, pool => read_first(pool, sql, record).await)
    }

    /// Returns whether there is any key, also a revoked or expired one.
    pub async fn has_keys(&self) -> Result<bool, StoreError> {
        let sql = Sql::new("SELECT id FROM api_keys LIMIT 1");
        let found = on_backend!(self, pool => {
            read_first(pool, sql, |row| Reader::new(row, "api_keys", "").uuid("id")).await
        })?;
        Ok(found.is_some())
    }

    /// Lists all keys in the order of their creation.
    pub async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        let mut sql = Sql::new(KEYS);
        sql.push(" ORDER BY created, id");
        on_backend!(self, pool => read(pool, sql, record).await)
    }

    /// Revokes the key with this id or name. Returns it, or `None` if there is no such key that is
    /// not revoked yet.
    pub async fn revoke_key(
        &self,
        id_or_name: &str,
        now: OffsetDateTime,
    ) -> Result<Option<KeyRecord>, StoreError> {
        let now = to_microseconds(now);
        on_backend!(self, pool => {
            revoke(pool, id_or_name, now).await
        })
    }

    /// Removes all keys, so that the service needs none. Returns their number.
    pub async fn remove_keys(&self) -> Result<u64, StoreError> {
        on_backend!(self, pool => write(pool, Sql::new("DELETE FROM api_keys")).await)
    }
}

const KEYS: &str = "SELECT id, name, hash, scopes, limits, created, expires, revoked FROM api_keys";

fn record<R: Row>(row: &R) -> Result<KeyRecord, StoreError> {
    let id = Reader::new(row, "api_keys", "").uuid("id")?;
    let row = Reader::new(row, "api_keys", id);
    Ok(KeyRecord {
        id,
        name: row.text("name")?,
        hash: row.word("hash", SecretHash::from_hex)?,
        scopes: row.json("scopes")?,
        limits: row.json("limits")?,
        created: row.time("created")?,
        expires: row.optional_time("expires")?,
        revoked: row.optional_time("revoked")?,
    })
}

fn insert(key: &KeyRecord) -> Sql {
    let json = |value| Argument::from(serde_json::Value::to_string(&value));
    let mut sql = Sql::new(
        "INSERT INTO api_keys (id, name, hash, scopes, limits, created, expires, revoked) VALUES ",
    );
    sql.tuple([
        key.id.into(),
        key.name.as_str().into(),
        key.hash.to_hex().into(),
        json(serde_json::json!(key.scopes)),
        json(serde_json::json!(key.limits)),
        to_microseconds(key.created).into(),
        key.expires.map(to_microseconds).into(),
        key.revoked.map(to_microseconds).into(),
    ]);
    sql.push(" ON CONFLICT DO NOTHING");
    sql
}

async fn revoke<P: Connections>(
    pool: &P,
    id_or_name: &str,
    now: OffsetDateTime,
) -> Result<Option<KeyRecord>, StoreError> {
    let mut sql = Sql::new(KEYS);
    sql.push(" WHERE revoked IS NULL AND ");
    match id_or_name.parse::<Uuid>() {
        Ok(id) => sql.push("id = ").bind(id),
        Err(_) => sql.push("name = ").bind(id_or_name),
    };
    let Some(key) = read_first(pool, sql, record).await? else { return Ok(None) };
    let mut sql = Sql::new("UPDATE api_keys SET revoked = ");
    sql.bind(now).push(" WHERE revoked IS NULL AND id = ").bind(key.id);
    let revoked = write(pool, sql).await? == 1;
    Ok(revoked.then_some(KeyRecord { revoked: Some(now), ..key }))
}
