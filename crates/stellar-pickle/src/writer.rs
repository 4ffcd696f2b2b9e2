//! Writes plain dicts at protocol 3, which every Python 3 reads without a global.

use crate::opcode;

/// Returns a dict in which each of these names has the same list of floats.
#[must_use]
pub fn numbers(names: &[&str], values: &[f64]) -> Vec<u8> {
    dict(names, |bytes| {
        bytes.push(opcode::EMPTY_LIST);
        bytes.push(opcode::MARK);
        for value in values {
            bytes.push(opcode::BINFLOAT);
            bytes.extend(value.to_be_bytes());
        }
        bytes.push(opcode::APPENDS);
    })
}

/// Returns the dict `{"error": text}`.
#[must_use]
pub fn error(text: &str) -> Vec<u8> {
    dict(&["error"], |bytes| write_text(bytes, text))
}

fn dict(names: &[&str], value: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![opcode::PROTO, 3, opcode::EMPTY_DICT, opcode::MARK];
    for name in names {
        write_text(&mut bytes, name);
        value(&mut bytes);
    }
    bytes.extend([opcode::SETITEMS, opcode::STOP]);
    bytes
}

fn write_text(bytes: &mut Vec<u8>, text: &str) {
    // Texts here are names and errors, far below 4 GiB.
    let length = u32::try_from(text.len()).expect("a short text");
    bytes.push(opcode::BINUNICODE);
    bytes.extend(length.to_le_bytes());
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Value, read};

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = numbers(&["scores", "outputs"], &[0.5, -1.25]);
        let value = read(&bytes).unwrap();
        for name in ["scores", "outputs"] {
            let items = value.get(name).and_then(Value::items).unwrap();
            assert!(matches!(items, [Value::Float(0.5), Value::Float(-1.25)]), "{items:?}");
        }
        let bytes = error("größer");
        assert_eq!(read(&bytes).unwrap().get("error").and_then(Value::text), Some("größer"));
    }

    #[test]
    fn bytes_are_those_of_the_format() {
        let expected = b"\x80\x03}(X\x06\0\0\0scores](G\x3f\xe0\0\0\0\0\0\0eu.";
        assert_eq!(numbers(&["scores"], &[0.5]), expected);
    }
}
