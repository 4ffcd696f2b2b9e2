//! A value of a row in a form that both databases have.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::store::db::{Argument, ColumnType, Row, parse_time, time_text};

/// A value of a row. Ids and times are text, as in SQLite.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// Text, JSON, an id or a time; bytes in base 64.
    Text(String),
    /// An integer.
    Int(i64),
    /// A number. Those that JSON cannot express are text.
    Real(f64),
}

impl Cell {
    /// Reads a column of a row.
    pub(super) fn read(
        row: &impl Row,
        column: &str,
        kind: ColumnType,
    ) -> Result<Self, sqlx::Error> {
        let cell = match kind {
            ColumnType::Text => row.text(column)?.map(Self::Text),
            ColumnType::Int => row.int(column)?.map(Self::Int),
            ColumnType::Real => row.real(column)?.map(Self::Real),
            ColumnType::Uuid => row.uuid(column)?.map(|id| Self::Text(id.to_string())),
            ColumnType::Bytes => row.bytes(column)?.map(|bytes| Self::Text(STANDARD.encode(bytes))),
            ColumnType::Time => {
                let text = row.time(column)?.map(time_text).transpose();
                text.map_err(|error| sqlx::Error::Decode(error.into()))?.map(Self::Text)
            }
        };
        Ok(cell.unwrap_or(Self::Null))
    }

    /// Returns the value as an argument for a column of this type; `None` if it does not fit.
    pub(super) fn argument(self, kind: ColumnType) -> Option<Argument> {
        Some(match (kind, self) {
            (_, Self::Null) => Argument::Null(kind),
            (ColumnType::Text, Self::Text(text)) => Argument::Text(Some(text)),
            (ColumnType::Int, Self::Int(int)) => Argument::Int(int),
            (ColumnType::Real, Self::Real(real)) => Argument::Real(Some(real)),
            (ColumnType::Real, Self::Int(int)) => Argument::Real(Some(int as f64)),
            (ColumnType::Real, Self::Text(text)) => Argument::Real(Some(text.parse().ok()?)),
            (ColumnType::Uuid, Self::Text(text)) => {
                Argument::Uuid(Some(Uuid::parse_str(&text).ok()?))
            }
            (ColumnType::Time, Self::Text(text)) => Argument::Time(Some(parse_time(&text).ok()?)),
            (ColumnType::Bytes, Self::Text(text)) => Argument::Bytes(STANDARD.decode(text).ok()?),
            _ => return None,
        })
    }

    /// Returns the size of the value, roughly.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            _ => 8,
        }
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => to.serialize_none(),
            Self::Text(text) => to.serialize_str(text),
            Self::Int(int) => to.serialize_i64(*int),
            Self::Real(real) if real.is_finite() => to.serialize_f64(*real),
            Self::Real(real) => to.serialize_str(&real.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Value)
    }
}

/// A value of a row in JSON: null, a text or a number.
struct Value;

impl Visitor<'_> for Value {
    type Value = Cell;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("null, a text or a number")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Cell, E> {
        Ok(Cell::Text(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Cell, E> {
        Ok(Cell::Text(text))
    }

    fn visit_i64<E: de::Error>(self, int: i64) -> Result<Cell, E> {
        Ok(Cell::Int(int))
    }

    fn visit_u64<E: de::Error>(self, int: u64) -> Result<Cell, E> {
        i64::try_from(int).map(Cell::Int).map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, real: f64) -> Result<Cell, E> {
        Ok(Cell::Real(real))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_survive_json_to_the_last_bit() {
        let cells = vec![
            Cell::Null,
            Cell::Text("a \"quoted\"\nline".into()),
            Cell::Int(i64::MIN),
            Cell::Int(i64::MAX),
            Cell::Real(0.1 + 0.2),
            Cell::Real(-0.0),
            Cell::Real(5.0),
            Cell::Real(f64::MAX),
            Cell::Real(f64::MIN_POSITIVE),
        ];
        let json = serde_json::to_string(&cells).unwrap();
        let read: Vec<Cell> = serde_json::from_str(&json).unwrap();
        assert_eq!(read, cells, "{json}");
        assert!(matches!(read[5], Cell::Real(zero) if zero.is_sign_negative()));
        let json = serde_json::to_string(&Cell::Real(f64::INFINITY)).unwrap();
        let infinite = serde_json::from_str::<Cell>(&json).unwrap().argument(ColumnType::Real);
        assert!(matches!(infinite, Some(Argument::Real(Some(f64::INFINITY)))), "{json}");
        assert!(serde_json::from_str::<Cell>("[1]").is_err());
    }

    #[test]
    fn values_that_do_not_fit_a_column_are_refused() {
        for (cell, kind) in [
            (Cell::Text("no id".into()), ColumnType::Uuid),
            (Cell::Text("yesterday".into()), ColumnType::Time),
            (Cell::Text("*".into()), ColumnType::Bytes),
            (Cell::Text("many".into()), ColumnType::Real),
            (Cell::Int(1), ColumnType::Text),
            (Cell::Real(1.5), ColumnType::Int),
        ] {
            assert!(cell.clone().argument(kind).is_none(), "{cell:?} {kind:?}");
        }
    }
}
