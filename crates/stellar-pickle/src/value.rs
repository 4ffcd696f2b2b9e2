//! What a pickle contains.

use std::{fmt, sync::Arc};

/// A value. Clones share their content.
#[derive(Clone)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// `bytes` or `bytearray`.
    Bytes(Blob<'a>),
    /// `str`, in the input.
    Text(&'a str),
    /// A list.
    List(Arc<Items<'a>>),
    /// A tuple.
    Tuple(Arc<Items<'a>>),
    /// A dict.
    Dict(Arc<Entries<'a>>),
    /// A numpy array of text with one dimension.
    Texts(Arc<Vec<String>>),
    /// A part of such an array, of no use without it.
    Part(Part),
}

/// Bytes, in the input or shared.
#[derive(Clone, Debug)]
pub enum Blob<'a> {
    /// A part of the input.
    Input(&'a [u8]),
    /// Bytes that are not as such in the input: protocol 2 has them as text.
    Shared(Arc<Vec<u8>>),
}

impl Blob<'_> {
    /// Returns the bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Input(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Values of a list or tuple.
pub struct Items<'a> {
    pub(crate) values: Vec<Value<'a>>,
    pub(crate) depth: usize,
}

/// Keys and values of a dict, in the order of the pickle.
pub struct Entries<'a> {
    pub(crate) pairs: Vec<(Value<'a>, Value<'a>)>,
    pub(crate) depth: usize,
}

/// A part of a numpy array.
#[derive(Clone)]
pub struct Part(pub(crate) Kind);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The class `numpy.ndarray`.
    ArrayClass,
    /// A dtype of texts of so many characters.
    TextType(usize),
}

impl<'a> Value<'a> {
    /// Returns the values of a list or tuple.
    #[must_use]
    pub fn items(&self) -> Option<&[Value<'a>]> {
        match self {
            Self::List(items) | Self::Tuple(items) => Some(&items.values),
            _ => None,
        }
    }

    /// Returns the keys and values of a dict.
    #[must_use]
    pub fn entries(&self) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self {
            Self::Dict(entries) => Some(&entries.pairs),
            _ => None,
        }
    }

    /// Returns the value of a key of a dict. Of equal keys, the last one counts, as in Python.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        let pairs = self.entries()?.iter().rev();
        pairs.into_iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    /// Returns a text.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the Python type, for errors.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Bytes(_) => "bytes",
            Self::Text(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Texts(_) => "ndarray of str",
            Self::Part(_) => "part of an ndarray",
        }
    }

    /// Returns how deep values are nested in this one.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::List(items) | Self::Tuple(items) => items.depth,
            Self::Dict(entries) => entries.depth,
            _ => 0,
        }
    }
}

impl fmt::Debug for Value<'_> {
    /// Shows the type only: shared values that contain each other would be shown exponentially
    /// often.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name())
    }
}
