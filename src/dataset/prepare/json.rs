//! JSON in the format of Python's `json.dump(…, indent=4)`, so that files can be compared byte by
//! byte with the reference's.

use std::io;

use serde::Serialize;
use serde::ser::SerializeMap as _;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::annotations::Labels;

/// Serialises a value.
pub(super) fn to_text(value: &impl Serialize) -> Vec<u8> {
    let mut text = Vec::new();
    let formatter = Python(PrettyFormatter::with_indent(b"    "));
    value
        .serialize(&mut Serializer::with_formatter(&mut text, formatter))
        .expect("plain data always serialises");
    text
}

/// Labels as a JSON object, in the order of their columns.
pub(super) struct Object<'a>(pub(super) &'a Labels);

impl Serialize for Object<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Pretty-printed, with all characters beyond ASCII escaped as UTF-16.
struct Python<'a>(PrettyFormatter<'a>);

impl Formatter for Python<'_> {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        to: &mut W,
        text: &str,
    ) -> io::Result<()> {
        for character in text.chars() {
            // DEL is ASCII too and is not escaped.
            if character.is_ascii() {
                to.write_all(&[character as u8])?;
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(to, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.begin_array(to)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.end_array(to)
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(to, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.end_array_value(to)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.begin_object(to)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.end_object(to)
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        to: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(to, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.begin_object_value(to)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, to: &mut W) -> io::Result<()> {
        self.0.end_object_value(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_python_writes() {
        // Python: json.dumps({"a": ["é", "𝄞\"\n\x7f"], "b": [], "c": {}}, indent=4)
        let value = serde_json::json!({"a": ["é", "𝄞\"\n\u{7f}"], "b": [], "c": {}});
        let expected = "{\n    \"a\": \
            [\n        \"\\u00e9\",\n        \"\\ud834\\udd1e\\\"\\n\u{7f}\"\n    ],\n    \"b\": \
            [],\n    \"c\": {}\n}";
        assert_eq!(String::from_utf8(to_text(&value)).unwrap(), expected);
    }

    #[test]
    fn labels_keep_the_order_of_their_columns() {
        let labels = vec![("Young".to_owned(), 1), ("Male".to_owned(), -1)];
        assert_eq!(to_text(&Object(&labels)), b"{\n    \"Young\": 1,\n    \"Male\": -1\n}");
    }
}
