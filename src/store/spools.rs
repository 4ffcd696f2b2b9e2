//! Spool folders as the database knows them: the id of the database, and the files that were
//! released.

use time::OffsetDateTime;
use uuid::Uuid;

use super::db::{Connection, Connections, Reader, Sql, StoreError, to_microseconds, with_retries};
use crate::content::ContentHash;

/// Released files per query.
const AT_ONCE: i64 = 500;

/// Returns the id of the database, which is generated on first use and is the same in every copy.
pub(super) async fn installation<P: Connections>(pool: &P) -> Result<String, StoreError> {
    let known = async || {
        let sql = Sql::new("SELECT id FROM installation");
        let rows = pool.reader().await?.fetch(sql).await?;
        rows.first().map(|row| Reader::new(row, "installation", "").text("id")).transpose()
    };
    if let Some(id) = known().await? {
        return Ok(id);
    }
    let transaction = || async {
        let mut transaction = pool.begin().await?;
        let mut sql = Sql::new("INSERT INTO installation (one, id, created) VALUES ");
        let (id, now) = (Uuid::now_v7().to_string(), to_microseconds(OffsetDateTime::now_utc()));
        sql.tuple([1_i64.into(), id.into(), now.into()]);
        // Another instance may start at the same moment: the first id inserted wins.
        sql.push(" ON CONFLICT (one) DO NOTHING");
        transaction.execute(sql).await?;
        transaction.commit().await?;
        Ok(())
    };
    with_retries(Uuid::now_v7(), transaction).await?;
    known().await?.ok_or(StoreError::Contended(sqlx::Error::RowNotFound))
}

/// Notifies the owners of the folders that files of a run, or one image of all runs, are released.
/// It must be called before the rows of `kept_files` are deleted.
pub(super) async fn release<C: Connection>(
    connection: &mut C,
    run: Option<Uuid>,
    image: Option<ContentHash>,
) -> Result<(), StoreError> {
    let mut sql = Sql::new(
        "INSERT INTO released_files (folder, image) SELECT DISTINCT folder, image FROM kept_files WHERE 1 = 1",
    );
    if let Some(run) = run {
        sql.push(" AND run = ").bind(run);
    }
    if let Some(image) = image {
        sql.push(" AND image = ").bind(image.to_hex());
    }
    // Sorted, so that two transactions never wait for each other.
    sql.push(" ORDER BY folder, image ON CONFLICT DO NOTHING");
    connection.execute(sql).await?;
    Ok(())
}

/// Returns some released files of this folder.
pub(super) async fn released<P: Connections>(pool: &P, folder: &str) -> Result<Vec<ContentHash>, StoreError> {
    let mut sql = Sql::new("SELECT image FROM released_files WHERE folder = ");
    sql.bind(folder).push(" ORDER BY image LIMIT ").bind(AT_ONCE);
    let rows = pool.reader().await?.fetch(sql).await?;
    rows.iter().map(|row| Reader::new(row, "released_files", folder).hash("image")).collect()
}

/// Removes releases that were carried out.
pub(super) async fn forget_released<P: Connections>(
    pool: &P,
    folder: &str,
    files: &[ContentHash],
) -> Result<(), StoreError> {
    if files.is_empty() {
        return Ok(());
    }
    let transaction = || async {
        let mut transaction = pool.begin().await?;
        let mut sql = Sql::new("DELETE FROM released_files WHERE folder = ");
        sql.bind(folder).push(" AND image IN ");
        sql.tuple(files.iter().map(|image| image.to_hex().into()));
        transaction.execute(sql).await?;
        transaction.commit().await?;
        Ok(())
    };
    with_retries(Uuid::now_v7(), transaction).await
}
