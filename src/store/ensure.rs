//! Packs, methods and runs, which are created by the first row that names them.

use time::OffsetDateTime;
use uuid::Uuid;

use super::db::{Connection, Reader, Sql, StoreError, new_id};
use super::{PackId, RunName};

pub(super) async fn ensure_pack<C: Connection>(
    connection: &mut C,
    pack: &PackId,
    created: OffsetDateTime,
) -> Result<(), StoreError> {
    let mut sql = Sql::new("INSERT INTO packs (digest, name, weights, created) VALUES ");
    sql.tuple([
        pack.digest.as_str().into(),
        pack.name.as_str().into(),
        pack.weights.as_str().into(),
        created.into(),
    ]);
    sql.push(" ON CONFLICT (digest) DO NOTHING");
    connection.execute(sql).await?;
    Ok(())
}

/// Returns the id of a run, which is created with its method if it is new, and `true` if it is.
///
/// The run exists for all but its first sample, so it is looked up before anything is inserted. An
/// insert that loses a race does nothing, and the next lookup finds the winner's row.
pub(super) async fn ensure_run<C: Connection>(
    connection: &mut C,
    name: &RunName,
    created: OffsetDateTime,
) -> Result<(Uuid, bool), StoreError> {
    if let Some(run) = find_run(connection, name).await? {
        return Ok((run, false));
    }
    ensure_method(connection, &name.method, created).await?;
    let mut sql = Sql::new("INSERT INTO runs (id, method, name, created) SELECT ");
    sql.bind(new_id(created)).push(", id, ").bind(name.run.as_str()).push(", ").bind(created);
    sql.push(" FROM methods WHERE name = ").bind(name.method.as_str());
    sql.push(" ON CONFLICT (method, name) DO NOTHING");
    let is_new = connection.execute(sql).await? == 1;

    let run = find_run(connection, name).await?.ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?;
    Ok((run, is_new))
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

/// Returns the id of a run, and locks it against finishing and deletion.
pub(super) async fn find_run<C: Connection>(
    connection: &mut C,
    name: &RunName,
) -> Result<Option<Uuid>, StoreError> {
    let mut sql =
        Sql::new("SELECT runs.id FROM runs JOIN methods ON methods.id = runs.method WHERE methods.name = ");
    sql.bind(name.method.as_str()).push(" AND runs.name = ").bind(name.run.as_str());
    sql.push(connection.lock_shared_runs());
    let rows = connection.fetch(sql).await?;
    rows.first().map(|row| Reader::new(row, "runs", name.to_string()).uuid("id")).transpose()
}
