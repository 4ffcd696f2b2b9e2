//! Packs that have stored scores.

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::db::{Connection, Reader, Row, Sql, StoreError, on_backend, read};
use crate::pack_id::{PackId, Weights};

impl Store {
    /// Returns the packs that a run has scores of, by name and digest.
    pub async fn run_packs(&self, run: Uuid) -> Result<Vec<PackId>, StoreError> {
        let mut sql = Sql::new(
            "SELECT DISTINCT packs.digest, packs.name, weights
             FROM summaries JOIN packs ON packs.digest = summaries.pack WHERE run = ",
        );
        sql.bind(run).push(" ORDER BY packs.name, packs.digest");
        on_backend!(self, pool => read(pool, sql, pack).await)
    }

    /// Returns all packs that have stored scores, by name and digest.
    pub async fn packs(&self) -> Result<Vec<PackId>, StoreError> {
        let sql = Sql::new("SELECT digest, name, weights FROM packs ORDER BY name, digest");
        on_backend!(self, pool => read(pool, sql, pack).await)
    }
}

fn pack<R: Row>(row: &R) -> Result<PackId, StoreError> {
    read_pack(&Reader::new(row, "packs", ""), "digest", "name")
}

/// Reads a pack from its digest, its name and the column `weights`.
pub(super) fn read_pack<R: Row>(
    row: &Reader<'_, R>,
    digest: &'static str,
    name: &'static str,
) -> Result<PackId, StoreError> {
    let (digest, name) = (row.text(digest)?, row.text(name)?);
    Ok(PackId { digest, name, weights: row.word("weights", Weights::parse)? })
}

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
