//! Cards of methods, and the settings of the images of runs.

use std::collections::HashMap;

use time::OffsetDateTime;
use uuid::Uuid;

use super::Store;
use super::db::{Reader, Sql, StoreError, on_backend, read, to_microseconds, write};
use crate::card::{CollectedSettings, MethodCard};

impl Store {
    /// Returns the cards of all methods that have one, by the method's name.
    pub async fn cards(&self) -> Result<HashMap<String, MethodCard>, StoreError> {
        let sql = Sql::new(
            "SELECT name, card FROM method_cards JOIN methods ON methods.id = method_cards.method",
        );
        let cards = on_backend!(self, pool => {
            read(pool, sql, |row| {
                let row = Reader::new(row, "method_cards", "");
                Ok((row.text("name")?, row.json("card")?))
            })
            .await
        })?;
        Ok(cards.into_iter().collect())
    }

    /// Stores the settings of a run's images, in place of earlier ones.
    pub async fn keep_settings(
        &self,
        run: Uuid,
        settings: &CollectedSettings,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_string(settings).expect("plain data always serialises");
        let mut sql = Sql::new("INSERT INTO run_settings (run, settings) VALUES ");
        sql.tuple([run.into(), text.into()]);
        sql.push(" ON CONFLICT (run) DO UPDATE SET settings = excluded.settings");
        on_backend!(self, pool => write(pool, sql).await).map(drop)
    }

    /// Returns the settings of the images of those of these runs that have any.
    pub async fn settings_of(
        &self,
        runs: &[Uuid],
    ) -> Result<HashMap<Uuid, CollectedSettings>, StoreError> {
        if runs.is_empty() {
            return Ok(HashMap::new());
        }
        let mut sql = Sql::new("SELECT run, settings FROM run_settings WHERE run IN ");
        sql.tuple(runs.iter().map(|run| (*run).into()));
        let found = on_backend!(self, pool => {
            read(pool, sql, |row| {
                let row = Reader::new(row, "run_settings", "");
                Ok((row.uuid("run")?, row.json("settings")?))
            })
            .await
        })?;
        Ok(found.into_iter().collect())
    }
}

/// Returns the statement that stores the card of a method, in place of an earlier one.
pub(super) fn keep_card(name: &str, card: &MethodCard, changed: OffsetDateTime) -> Sql {
    let mut sql = insert(name, card, changed);
    sql.push(" DO UPDATE SET card = excluded.card, changed = excluded.changed");
    sql
}

/// Returns the statement that stores the card of a method which has none.
pub(super) fn adopt_card(name: &str, card: &MethodCard, changed: OffsetDateTime) -> Sql {
    let mut sql = insert(name, card, changed);
    sql.push(" DO NOTHING");
    sql
}

fn insert(name: &str, card: &MethodCard, changed: OffsetDateTime) -> Sql {
    let text = serde_json::to_string(card).expect("plain data always serialises");
    let mut sql = Sql::new("INSERT INTO method_cards (method, card, changed) SELECT id, ");
    sql.bind(text).push(", ").bind(to_microseconds(changed));
    sql.push(" FROM methods WHERE name = ").bind(name).push(" ON CONFLICT (method)");
    sql
}
