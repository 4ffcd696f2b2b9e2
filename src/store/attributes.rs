//! Attribute labels and predictions of samples: the evidence behind `aps`.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Store;
use super::db::{
    Column, Connection, Connections, Reader, SCORES_PER_STATEMENT, Sql, StoreError, on_backend,
};

/// For each attribute by name: `true` if the subject has it, and `true` if it was predicted for the
/// face in the image.
pub type AttributeLabels = BTreeMap<String, (bool, bool)>;

/// One attribute, sample by sample: `true` if the subject has it, and `true` if it was predicted
/// for the face in the image.
pub type AttributeColumn = Vec<Option<(bool, bool)>>;

/// Label and prediction of each attribute by name, sample by sample.
pub type Outcomes = BTreeMap<String, AttributeColumn>;

/// Maximum of attributes times samples in one table: the 40 attributes of `CelebA` for the largest
/// number of samples in a file.
const MOST_OUTCOMES: usize = 8_000_000;

impl Store {
    /// Returns the evidence behind `aps`: for each attribute by name, label and prediction of each
    /// of these samples of a run, as far as this pack has them. The names are in ascending order.
    pub async fn outcomes(
        &self,
        run: Uuid,
        pack: &str,
        names: &[String],
    ) -> Result<BTreeMap<String, AttributeColumn>, StoreError> {
        on_backend!(self, pool => outcomes(pool, run, pack, names).await)
    }
}

async fn outcomes<P: Connections>(
    pool: &P,
    run: Uuid,
    pack: &str,
    names: &[String],
) -> Result<BTreeMap<String, AttributeColumn>, StoreError> {
    const BATCH: u32 = 5_000;
    let mut connection = pool.reader().await?;
    let mut columns: BTreeMap<String, AttributeColumn> = BTreeMap::new();
    let mut after = String::new();
    loop {
        let mut sql = Sql::new(
            "SELECT name, outcomes FROM attribute_outcomes
             JOIN samples ON samples.id = attribute_outcomes.sample
             WHERE samples.run = ",
        );
        sql.bind(run).push(" AND pack = ").bind(pack).push(" AND name > ").bind(after.as_str());
        sql.push(" ORDER BY name LIMIT ").bind(BATCH);
        let rows = connection.fetch(sql).await?;
        for row in &rows {
            let row = Reader::new(row, "attribute_outcomes", run);
            after = row.text("name")?;
            // Skips samples that were added after the names were read.
            let Ok(at) = names.binary_search(&after) else { continue };
            for (attribute, outcome) in row.json::<AttributeLabels>("outcomes")? {
                if (columns.len() + 1) * names.len() > MOST_OUTCOMES
                    && !columns.contains_key(&attribute)
                {
                    return Err(StoreError::Invalid {
                        field: "a table of the run's attributes".to_owned(),
                        reason: format!(
                            "there are predictions of more than {} attributes of {} samples, and \
                             the product of both may be at most {MOST_OUTCOMES}: import fewer \
                             attributes or smaller runs",
                            columns.len(),
                            names.len()
                        ),
                    });
                }
                let column = columns.entry(attribute).or_insert_with(|| vec![None; names.len()]);
                column[at] = Some(outcome);
            }
        }
        if rows.len() < BATCH as usize {
            return Ok(columns);
        }
    }
}

/// Writes the attribute labels and predictions of each sample; `of` returns the id and the outcomes
/// as JSON.
pub(super) async fn write_outcomes<C: Connection, T: Sync>(
    connection: &mut C,
    pack: &str,
    rows: &[T],
    of: impl Fn(&T) -> (Uuid, String) + Send,
) -> Result<(), StoreError> {
    for rows in rows.chunks(SCORES_PER_STATEMENT) {
        let mut sql =
            Sql::new("INSERT INTO attribute_outcomes (sample, pack, outcomes) SELECT column1, ");
        sql.bind(pack).push(", column2");
        let (samples, texts) = rows.iter().map(&of).map(|(id, text)| (id, Some(text))).unzip();
        connection.push_rows(&mut sql, vec![Column::Uuid(samples), Column::Text(texts)]);
        sql.push(" ON CONFLICT (sample, pack) DO UPDATE SET outcomes = excluded.outcomes");
        connection.execute(sql).await?;
    }
    Ok(())
}

pub(super) fn json(outcomes: &impl serde::Serialize) -> String {
    serde_json::to_string(outcomes).expect("plain data always serialises")
}
