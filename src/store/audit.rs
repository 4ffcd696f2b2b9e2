//! The audit log: who wrote or deleted what, when and from where. It holds no prompts, images or
//! metadata.

use std::net::IpAddr;

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::db::{
    Argument, Connection, Connections, ROWS_PER_STATEMENT, Reader, Row, Sql, StoreError,
    on_backend, read, to_microseconds, with_retries, write,
};

/// A write or a deletion, completed or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Id of the entry, a `UUIDv7`: entries sort by it in the order of their requests.
    pub id: Uuid,
    /// Time at which the request arrived.
    pub time: OffsetDateTime,
    /// Id and name of the key; `None` if keys are not in use.
    pub key: Option<(Uuid, String)>,
    /// HTTP method.
    pub method: String,
    /// Template of the route, such as `/v1/runs/{id}`.
    pub route: String,
    /// Values of the template's parameters, separated by slashes.
    pub resource: String,
    /// Address of the client.
    pub address: Option<IpAddr>,
    /// Id of the request in the log.
    pub request_id: String,
    /// HTTP status of the response; 499 if the client left before it.
    pub status: u16,
}

/// Selects entries of the audit log.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Only those of the key with this name.
    pub key: Option<String>,
    /// Only those about this resource.
    pub resource: Option<String>,
    /// Only those since this time.
    pub since: Option<OffsetDateTime>,
    /// Only those older than this entry.
    pub before: Option<Uuid>,
    /// Most entries.
    pub limit: u32,
}

impl Store {
    /// Stores entries of the audit log in one transaction. An entry that is stored already is
    /// skipped.
    pub async fn record_audit(&self, entries: &[AuditEntry]) -> Result<(), StoreError> {
        on_backend!(self, pool => {
            with_retries(|| record_audit(pool, entries)).await
        })
    }

    /// Returns entries of the audit log, the newest first.
    pub async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, StoreError> {
        let mut sql = Sql::new(
            "SELECT id, time, key_id, key_name, method, route, resource, address, request_id, \
                status FROM audit WHERE 1 = 1",
        );
        if let Some(key) = &query.key {
            sql.push(" AND key_name = ").bind(key.as_str());
        }
        if let Some(resource) = &query.resource {
            sql.push(" AND resource = ").bind(resource.as_str());
        }
        if let Some(since) = query.since {
            // A year before 0 would have no text.
            let since = since.max(OffsetDateTime::UNIX_EPOCH);
            sql.push(" AND time >= ").bind(to_microseconds(since));
        }
        if let Some(before) = query.before {
            sql.push(" AND id < ").bind(before);
        }
        sql.push(" ORDER BY id DESC LIMIT ").bind(query.limit);
        on_backend!(self, pool => read(pool, sql, entry).await)
    }

    /// Deletes the entries of the audit log before a time. Returns their number.
    pub async fn forget_audit(&self, before: OffsetDateTime) -> Result<u64, StoreError> {
        let mut sql = Sql::new("DELETE FROM audit WHERE time < ");
        sql.bind(to_microseconds(before));
        on_backend!(self, pool => write(pool, sql).await)
    }
}

async fn record_audit<P: Connections>(pool: &P, entries: &[AuditEntry]) -> Result<(), StoreError> {
    let mut transaction = pool.begin().await?;
    for entries in entries.chunks(ROWS_PER_STATEMENT) {
        let mut sql = Sql::new(
            "INSERT INTO audit (id, time, key_id, key_name, method, route, resource, address, \
                request_id, status) VALUES ",
        );
        sql.tuples(entries.iter().map(|entry| -> [Argument; 10] {
            [
                entry.id.into(),
                to_microseconds(entry.time).into(),
                entry.key.as_ref().map(|(id, _)| *id).into(),
                entry.key.as_ref().map(|(_, name)| name.clone()).into(),
                entry.method.as_str().into(),
                entry.route.as_str().into(),
                entry.resource.as_str().into(),
                entry.address.map(|address| address.to_string()).into(),
                entry.request_id.as_str().into(),
                u32::from(entry.status).into(),
            ]
        }));
        sql.push(" ON CONFLICT (id) DO NOTHING");
        transaction.execute(sql).await?;
    }
    transaction.commit().await?;
    Ok(())
}

fn entry<R: Row>(row: &R) -> Result<AuditEntry, StoreError> {
    let id = Reader::new(row, "audit", "").uuid("id")?;
    let row = Reader::new(row, "audit", id);
    let address = row.optional_text("address")?;
    let address = address.map(|address| address.parse()).transpose();
    Ok(AuditEntry {
        id,
        time: row.time("time")?,
        key: row.optional_uuid("key_id")?.zip(row.optional_text("key_name")?),
        method: row.text("method")?,
        route: row.text("route")?,
        resource: row.text("resource")?,
        address: address.map_err(|_| row.corrupt("address", "is not an address"))?,
        request_id: row.text("request_id")?,
        status: row.int("status")?,
    })
}
