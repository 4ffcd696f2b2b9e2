//! Arguments of statements.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::content::ContentHash;

/// An argument; optional if some column of its type is nullable.
#[derive(Clone)]
pub(crate) enum Argument {
    Text(Option<String>),
    Int(i64),
    Real(Option<f64>),
    Uuid(Option<Uuid>),
    Time(Option<OffsetDateTime>),
    Bytes(Vec<u8>),
    /// All values of a column; PostgreSQL only.
    Array(Column),
    /// Null for a column of any type.
    Null(ColumnType),
}

/// Types of columns that the tables use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnType {
    Text,
    Int,
    Real,
    Uuid,
    Time,
    Bytes,
}

/// A column of rows that a statement is given ([`push_rows`](super::Connection::push_rows)).
#[derive(Clone)]
pub(crate) enum Column {
    Text(Vec<Option<String>>),
    Int(Vec<i64>),
    Real(Vec<Option<f64>>),
    Uuid(Vec<Uuid>),
}

impl Column {
    pub(crate) fn texts<T: Into<String>>(of: impl IntoIterator<Item = T>) -> Self {
        Self::Text(of.into_iter().map(|text| Some(text.into())).collect())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(values) => values.len(),
            Self::Int(values) => values.len(),
            Self::Real(values) => values.len(),
            Self::Uuid(values) => values.len(),
        }
    }

    /// Takes the value of a row.
    pub(super) fn take(&mut self, row: usize) -> Argument {
        match self {
            Self::Text(values) => values[row].take().into(),
            Self::Int(values) => values[row].into(),
            Self::Real(values) => values[row].into(),
            Self::Uuid(values) => values[row].into(),
        }
    }
}

impl From<ContentHash> for Argument {
    fn from(value: ContentHash) -> Self {
        Self::Text(Some(value.to_hex()))
    }
}

impl From<&ContentHash> for Argument {
    fn from(value: &ContentHash) -> Self {
        (*value).into()
    }
}

impl From<&str> for Argument {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<String> for Argument {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<Option<String>> for Argument {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}

impl From<i64> for Argument {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Argument {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl From<f64> for Argument {
    fn from(value: f64) -> Self {
        Self::Real(Some(value))
    }
}

impl From<Option<f64>> for Argument {
    fn from(value: Option<f64>) -> Self {
        Self::Real(value)
    }
}

impl From<Uuid> for Argument {
    fn from(value: Uuid) -> Self {
        Self::Uuid(Some(value))
    }
}

impl From<Option<Uuid>> for Argument {
    fn from(value: Option<Uuid>) -> Self {
        Self::Uuid(value)
    }
}

impl From<OffsetDateTime> for Argument {
    fn from(value: OffsetDateTime) -> Self {
        Self::Time(Some(value))
    }
}

impl From<Option<OffsetDateTime>> for Argument {
    fn from(value: Option<OffsetDateTime>) -> Self {
        Self::Time(value)
    }
}

impl From<Vec<u8>> for Argument {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}
