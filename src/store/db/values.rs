//! Converts values to the form that both databases store, and rejects those that they cannot store.

use std::num::NonZero;

use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;
use time::format_description::well_known::iso8601::{Config, EncodedConfig, TimePrecision};
use uuid::{NoContext, Timestamp, Uuid};

use super::error::StoreError;
use crate::content::ContentHash;

/// Maximum length of the name of a method, run, sample, metric or pack, in bytes of UTF-8.
/// PostgreSQL cannot index more than 2,704 bytes of a row; both databases use the same limit.
pub const MAX_NAME_BYTES: usize = 2_000;

/// ISO 8601 with exactly six decimal digits of a second, so that text sorts like time.
const MICROSECONDS: EncodedConfig = Config::DEFAULT
    .set_time_precision(TimePrecision::Second { decimal_digits: NonZero::new(6) })
    .encode();

/// Returns a time as SQLite and backups store it.
pub(crate) fn time_text(time: OffsetDateTime) -> Result<String, time::error::Format> {
    time.format(&Iso8601::<MICROSECONDS>)
}

/// Parses [`time_text`].
pub(crate) fn parse_time(text: &str) -> Result<OffsetDateTime, time::error::Parse> {
    OffsetDateTime::parse(text, &Iso8601::PARSING)
}

pub(crate) fn check_name(field: &str, name: &str) -> Result<(), StoreError> {
    if name.is_empty() {
        return Err(StoreError::invalid(field, "it is empty"));
    }
    if name.len() > MAX_NAME_BYTES {
        let reason = format!("it has {} bytes; at most {MAX_NAME_BYTES} are allowed", name.len());
        return Err(StoreError::invalid(field, reason));
    }
    check_text(field, name)
}

/// Rejects U+0000, which PostgreSQL's text cannot contain. SQLite rejects it too, so that data can
/// move between the two.
pub(crate) fn check_text(field: &str, text: &str) -> Result<(), StoreError> {
    if text.contains('\0') {
        return Err(StoreError::invalid(field, "it contains the character U+0000; remove it"));
    }
    Ok(())
}

/// Returns a number as both databases store it: subnormal numbers, which they round differently,
/// are 0.
pub(crate) fn storable(value: f64) -> f64 {
    if value.is_normal() { value } else { 0.0 }
}

/// Returns a `UUIDv7` of the given time.
pub(crate) fn new_id(created: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(created.unix_timestamp()).unwrap_or_default();
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, created.nanosecond()))
}

pub(crate) fn hashes_to_json(hashes: &[ContentHash]) -> String {
    json_strings(&hashes.iter().map(ContentHash::to_hex).collect::<Vec<_>>())
}

pub(crate) fn json_strings(strings: &[String]) -> String {
    serde_json::Value::from(strings).to_string()
}
