//! Studies, their items and the annotators that are left out.

use std::collections::BTreeSet;

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::db::{
    Argument, Connection, Connections, ROWS_PER_STATEMENT, Reader, Row, Sql, StoreError,
    check_name, check_text, on_backend, read, read_first, to_microseconds, with_retries, write,
};
use super::study_plan::{StudyPlan, StudyState};

/// A stored study.
#[derive(Clone, Debug, PartialEq)]
pub struct StudyRecord {
    /// Id of the study.
    pub id: Uuid,
    /// What it asks.
    pub plan: StudyPlan,
    /// Its state.
    pub state: StudyState,
    /// Secret of its completion codes.
    pub secret: String,
    /// Time of creation, UTC, to the microsecond.
    pub created: OffsetDateTime,
}

/// An item of a study.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StudyItem {
    /// Position within the study, counted from 0.
    pub place: u32,
    /// Name of the samples.
    pub name: String,
    /// Runs of the images.
    pub runs: Vec<Uuid>,
    /// The run whose image is the right answer, of a gold item.
    pub right: Option<Uuid>,
}

/// Why an annotator is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExclusionCause {
    /// The operator said so.
    Operator,
    /// Too many wrong answers to gold items.
    Gold,
}

impl ExclusionCause {
    /// Returns the word that is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Gold => "gold",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Operator, Self::Gold].into_iter().find(|cause| cause.as_str() == word)
    }
}

/// An annotator whose answers no analysis counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// Name of the annotator.
    pub annotator: String,
    /// Who left the annotator out.
    pub cause: ExclusionCause,
    /// Reason in words.
    pub reason: String,
    /// Time of the exclusion.
    pub created: OffsetDateTime,
}

impl Store {
    /// Stores a study with its items. If there is one with this name, it is returned with `false`,
    /// and nothing is written.
    pub async fn create_study(
        &self,
        study: &StudyRecord,
        items: &[StudyItem],
    ) -> Result<(StudyRecord, bool), StoreError> {
        check_name("the study's name", &study.plan.name)?;
        check_text("the study", &json(&study.plan))?;
        on_backend!(self, pool => with_retries(|| create(pool, study, items)).await)
    }

    /// Looks up a study, or returns `None` if none has this id.
    pub async fn study(&self, id: Uuid) -> Result<Option<StudyRecord>, StoreError> {
        let mut sql = Sql::new(STUDIES);
        sql.push(" WHERE id = ").bind(id);
        on_backend!(self, pool => read_first(pool, sql, record).await)
    }

    /// Lists at most `limit` studies, newest first, older than the study `before`.
    pub async fn studies(
        &self,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<StudyRecord>, StoreError> {
        let mut sql = Sql::new(STUDIES);
        if let Some(before) = before {
            sql.push(" WHERE id < ").bind(before);
        }
        sql.push(" ORDER BY id DESC LIMIT ").bind(limit);
        on_backend!(self, pool => read(pool, sql, record).await)
    }

    /// Changes the state of a study; `false` if none has this id.
    pub async fn set_study_state(&self, id: Uuid, state: StudyState) -> Result<bool, StoreError> {
        let mut sql = Sql::new("UPDATE studies SET state = ");
        sql.bind(state.as_str()).push(" WHERE id = ").bind(id);
        Ok(on_backend!(self, pool => write(pool, sql).await)? > 0)
    }

    /// Deletes a study with its items and answers; `false` if none has this id.
    pub async fn delete_study(&self, id: Uuid) -> Result<bool, StoreError> {
        let mut sql = Sql::new("DELETE FROM studies WHERE id = ");
        sql.bind(id);
        Ok(on_backend!(self, pool => write(pool, sql).await)? > 0)
    }

    /// Returns all items of a study in order.
    pub async fn study_items(&self, study: Uuid) -> Result<Vec<StudyItem>, StoreError> {
        let mut sql = Sql::new(ITEMS);
        sql.bind(study).push(" ORDER BY place");
        on_backend!(self, pool => read(pool, sql, item).await)
    }

    /// Returns the first items of a study in order: at most so many.
    pub async fn first_study_items(
        &self,
        study: Uuid,
        most: u32,
    ) -> Result<Vec<StudyItem>, StoreError> {
        let mut sql = Sql::new(ITEMS);
        sql.bind(study).push(" ORDER BY place LIMIT ").bind(most);
        on_backend!(self, pool => read(pool, sql, item).await)
    }

    /// Returns the gold items of a study in order.
    pub async fn gold_items(&self, study: Uuid) -> Result<Vec<StudyItem>, StoreError> {
        let mut sql = Sql::new(ITEMS);
        sql.bind(study).push(" AND right_run IS NOT NULL ORDER BY place");
        on_backend!(self, pool => read(pool, sql, item).await)
    }

    /// Returns one item of a study.
    pub async fn study_item(
        &self,
        study: Uuid,
        place: u32,
    ) -> Result<Option<StudyItem>, StoreError> {
        let mut sql = Sql::new(ITEMS);
        sql.bind(study).push(" AND place = ").bind(place);
        on_backend!(self, pool => read_first(pool, sql, item).await)
    }

    /// Returns the position of the last item of a study.
    pub async fn last_study_place(&self, study: Uuid) -> Result<Option<u32>, StoreError> {
        let mut sql = Sql::new("SELECT MAX(place) AS place FROM study_items WHERE study = ");
        sql.bind(study);
        let found = on_backend!(self, pool => {
            read_first(pool, sql, |row| {
                Reader::new(row, "study_items", study).optional_int("place")
            })
            .await
        })?;
        Ok(found.flatten())
    }

    /// Leaves an annotator out of a study for a reason, in place of an earlier reason.
    pub async fn exclude_annotator(
        &self,
        study: Uuid,
        annotator: &str,
        reason: &str,
        created: OffsetDateTime,
    ) -> Result<(), StoreError> {
        check_name("the annotator", annotator)?;
        check_text("the reason", reason)?;
        let (cause, created) = (ExclusionCause::Operator, to_microseconds(created));
        let sql = exclusion_insert(study, annotator, cause, reason.to_owned(), created);
        on_backend!(self, pool => write(pool, sql).await).map(drop)
    }

    /// Counts an annotator again that the operator left out; `false` if nobody was.
    pub async fn include_annotator(
        &self,
        study: Uuid,
        annotator: &str,
    ) -> Result<bool, StoreError> {
        let mut sql = Sql::new("DELETE FROM study_exclusions WHERE study = ");
        sql.bind(study).push(" AND cause = 'operator' AND annotator = ").bind(annotator);
        Ok(on_backend!(self, pool => write(pool, sql).await)? > 0)
    }

    /// Returns the annotators that a study leaves out, by name.
    pub async fn exclusions(&self, study: Uuid) -> Result<Vec<Exclusion>, StoreError> {
        let mut sql = Sql::new(
            "SELECT annotator, cause, reason, created FROM study_exclusions WHERE study = ",
        );
        sql.bind(study).push(" ORDER BY annotator, cause DESC");
        on_backend!(self, pool => read(pool, sql, exclusion).await)
    }
}

const STUDIES: &str = "SELECT id, plan, state, secret, created FROM studies";

const ITEMS: &str = "SELECT place, name, runs, right_run FROM study_items WHERE study = ";

fn record<R: Row>(row: &R) -> Result<StudyRecord, StoreError> {
    let id = Reader::new(row, "studies", "").uuid("id")?;
    let row = Reader::new(row, "studies", id);
    Ok(StudyRecord {
        id,
        plan: row.json("plan")?,
        state: row.word("state", StudyState::parse)?,
        secret: row.text("secret")?,
        created: row.time("created")?,
    })
}

pub(super) fn item<R: Row>(row: &R) -> Result<StudyItem, StoreError> {
    let row = Reader::new(row, "study_items", "");
    Ok(StudyItem {
        place: row.int("place")?,
        name: row.text("name")?,
        runs: row.json("runs")?,
        right: row.optional_uuid("right_run")?,
    })
}

fn exclusion<R: Row>(row: &R) -> Result<Exclusion, StoreError> {
    let row = Reader::new(row, "study_exclusions", "");
    Ok(Exclusion {
        annotator: row.text("annotator")?,
        cause: row.word("cause", ExclusionCause::parse)?,
        reason: row.text("reason")?,
        created: row.time("created")?,
    })
}

pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data always serialises")
}

async fn create<P: Connections>(
    pool: &P,
    study: &StudyRecord,
    items: &[StudyItem],
) -> Result<(StudyRecord, bool), StoreError> {
    let mut transaction = pool.begin_large().await?;
    let connection = &mut *transaction;
    let mut sql = Sql::new("INSERT INTO studies (id, name, plan, state, secret, created) VALUES ");
    sql.tuple([
        study.id.into(),
        study.plan.name.as_str().into(),
        json(&study.plan).into(),
        study.state.as_str().into(),
        study.secret.as_str().into(),
        to_microseconds(study.created).into(),
    ]);
    sql.push(" ON CONFLICT (name) DO NOTHING");
    let is_new = connection.execute(sql).await? > 0;
    if is_new {
        for items in items.chunks(ROWS_PER_STATEMENT) {
            let mut sql =
                Sql::new("INSERT INTO study_items (study, place, name, runs, right_run) VALUES ");
            sql.tuples(items.iter().map(|item| -> [Argument; 5] {
                [
                    study.id.into(),
                    item.place.into(),
                    item.name.as_str().into(),
                    json(&item.runs).into(),
                    item.right.into(),
                ]
            }));
            connection.execute(sql).await?;
        }
        let runs: BTreeSet<Uuid> =
            items.iter().flat_map(|item| item.runs.iter().copied()).collect();
        for runs in runs.into_iter().collect::<Vec<_>>().chunks(ROWS_PER_STATEMENT) {
            let mut sql = Sql::new("INSERT INTO study_runs (run, study) VALUES ");
            sql.tuples(
                runs.iter().map(|run| -> [Argument; 2] { [(*run).into(), study.id.into()] }),
            );
            connection.execute(sql).await?;
        }
    }
    let mut sql = Sql::new(STUDIES);
    sql.push(" WHERE name = ").bind(study.plan.name.as_str());
    let rows = connection.fetch(sql).await?;
    let stored = rows.first().map(record).transpose()?;
    transaction.commit().await?;
    // If it was deleted between the two statements, the next attempt creates it.
    Ok((stored.ok_or(StoreError::Contended(sqlx::Error::RowNotFound))?, is_new))
}

pub(super) fn exclusion_insert(
    study: Uuid,
    annotator: &str,
    cause: ExclusionCause,
    reason: String,
    created: OffsetDateTime,
) -> Sql {
    let mut sql =
        Sql::new("INSERT INTO study_exclusions (study, annotator, cause, reason, created) VALUES ");
    sql.tuple([
        study.into(),
        annotator.into(),
        cause.as_str().into(),
        reason.into(),
        created.into(),
    ]);
    sql.push(
        " ON CONFLICT (study, annotator, cause) DO UPDATE SET reason = excluded.reason,
             created = excluded.created",
    );
    sql
}

/// Deletes the items with an image of a run, or of one sample of it, with their answers.
pub(super) async fn forget<C: Connection>(
    connection: &mut C,
    run: Uuid,
    name: Option<&str>,
) -> Result<(), StoreError> {
    connection.execute(forgetting(run, name)).await?;
    Ok(())
}

/// The statement of [`forget`]. Studies that have no row in `study_runs` were written by a program
/// that does not know of the table.
fn forgetting(run: Uuid, name: Option<&str>) -> Sql {
    let mut sql = Sql::new(
        "DELETE FROM study_items
         WHERE study IN (SELECT study FROM study_runs WHERE run = ",
    );
    sql.bind(run);
    sql.push(
        " UNION ALL SELECT id FROM studies
             WHERE NOT EXISTS (SELECT 1 FROM study_runs WHERE study_runs.study = studies.id))
             AND runs LIKE ",
    );
    sql.bind(format!("%{run}%"));
    if let Some(name) = name {
        sql.push(" AND name = ").bind(name);
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreOptions, db::Backend};

    #[tokio::test]
    async fn a_deletion_reads_only_items_of_the_studies_that_show_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("stellar.db").display());
        let store = Store::open(&url, &StoreOptions::default()).await.unwrap();
        let Backend::Sqlite(pool) = &store.backend else { panic!("it is SQLite") };
        let mut connection = pool.reader().await.unwrap();
        for (name, index) in [
            (Some("1"), "study_items USING INDEX study_items_by_name (study=? AND name=?)"),
            (None, "study_items USING INDEX"),
        ] {
            let mut sql = forgetting(Uuid::nil(), name);
            sql.text.insert_str(0, connection.explain().0);
            let plan = connection.fetch(sql).await.unwrap();
            let plan: Vec<String> =
                plan.iter().map(|row| row.text("detail").unwrap().unwrap()).collect();
            assert!(plan.iter().any(|step| step.contains(index)), "{plan:#?}");
            assert!(!plan.iter().any(|step| step.contains("SCAN study_")), "{plan:#?}");
        }
    }
}
