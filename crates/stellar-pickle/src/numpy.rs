//! Builds numpy's arrays of text from the arguments and states that numpy writes.

use std::sync::Arc;

use crate::{
    error::Error,
    names::{Global, find},
    reader::{ENTRIES, Item, Object, Outcome, Reader, TEXT_BYTES, too_many},
    value::{Blob, Kind, Part, Value},
};

impl<'a> Reader<'a> {
    pub(crate) fn global(&mut self, module: &str, name: &str) -> Outcome {
        let Some(global) = find(module, name) else {
            let short = |text: &str| text.chars().take(80).collect();
            return Err(Error::Global { module: short(module), name: short(name) });
        };
        self.push_item(Item::Global(global))
    }

    pub(crate) fn reduce(&mut self) -> Outcome {
        let arguments = self.pop()?;
        let Item::Global(callable) = self.pop()? else {
            return self.malformed("what is called is not a known function");
        };
        let Value::Tuple(arguments) = self.seal(arguments)? else {
            return self.malformed("arguments are not a tuple");
        };
        match (callable, &arguments.values[..]) {
            (
                Global::Reconstruct,
                [Value::Part(Part(Kind::ArrayClass)), Value::Tuple(shape), Value::Bytes(of)],
            ) if matches!(shape.values[..], [Value::Int(0)]) && of.as_slice() == b"b" => {
                self.open(Object::Array)
            }
            (Global::Type, [Value::Text(name), Value::Bool(false), Value::Bool(true)]) => {
                let chars = name.strip_prefix('U').and_then(|chars| chars.parse().ok());
                match chars {
                    Some(chars) => self.open(Object::Type { chars }),
                    None => self.malformed("the array is not one of text"),
                }
            }
            (
                Global::FromBuffer,
                [
                    Value::Bytes(data),
                    Value::Part(Part(Kind::TextType(chars))),
                    Value::Tuple(shape),
                    Value::Text("C"),
                ],
            ) => {
                let texts = self.texts(data.as_slice(), *chars, &shape.values)?;
                self.push(texts)
            }
            (Global::Encode, [Value::Text(text), Value::Text("latin1")]) => {
                let Some(left) = self.encoded.checked_sub(text.len()) else {
                    return too_many("more bytes in texts than it is long");
                };
                self.encoded = left;
                let bytes: Option<Vec<u8>> =
                    text.chars().map(|letter| u8::try_from(letter).ok()).collect();
                match bytes {
                    Some(bytes) => self.push(Value::Bytes(Blob::Shared(Arc::new(bytes)))),
                    None => self.malformed("a text is not bytes in Latin-1"),
                }
            }
            _ => self.malformed("a known function has other arguments than numpy gives it"),
        }
    }

    pub(crate) fn build(&mut self) -> Outcome {
        let state = self.pop()?;
        let Value::Tuple(state) = self.seal(state)? else {
            return self.malformed("a state is not a tuple");
        };
        let chars = match self.top()? {
            Object::Type { chars } => Some(*chars),
            Object::Array => None,
            _ => return self.malformed("a state is set on what has none"),
        };
        let built = match (chars, &state.values[..]) {
            (
                Some(chars),
                [
                    Value::Int(3),
                    Value::Text("<"),
                    Value::None,
                    Value::None,
                    Value::None,
                    Value::Int(size),
                    Value::Int(_),
                    Value::Int(_),
                ],
            ) if usize::try_from(*size).ok() == chars.checked_mul(4) => {
                Value::Part(Part(Kind::TextType(chars)))
            }
            (
                None,
                [
                    Value::Int(1),
                    Value::Tuple(shape),
                    Value::Part(Part(Kind::TextType(chars))),
                    Value::Bool(_),
                    Value::Bytes(data),
                ],
            ) => self.texts(data.as_slice(), *chars, &shape.values)?,
            _ => return self.malformed("the state is not that of an array of text"),
        };
        *self.top()? = Object::Sealed(built);
        Ok(())
    }

    /// Decodes an array of texts in UCS-4, each padded with zeros.
    fn texts(&mut self, data: &[u8], chars: usize, shape: &[Value<'a>]) -> Outcome<Value<'a>> {
        let &[Value::Int(count)] = shape else {
            return self.malformed("an array of text has not one dimension");
        };
        let Some(count) = usize::try_from(count).ok().filter(|count| *count <= ENTRIES) else {
            return too_many(format!("an array of more than {ENTRIES} texts"));
        };
        let size = chars.checked_mul(4).filter(|size| size.checked_mul(count) == Some(data.len()));
        let Some(size) = size else {
            return self.malformed("the data of an array do not fit its shape");
        };
        // The sum counts also what is empty, since each text takes memory of its own.
        self.text_bytes += data.len().max(count * size_of::<String>());
        if self.text_bytes > TEXT_BYTES {
            return too_many(format!("more than {} MiB of text arrays", TEXT_BYTES >> 20));
        }
        let decode = |at: usize| -> Option<String> {
            let letters = data[at * size..][..size].chunks_exact(4);
            let codes = letters.map(|it| u32::from_le_bytes(it.try_into().expect("four bytes")));
            let text: Option<String> = codes.map(char::from_u32).collect();
            text.map(|text| text.trim_end_matches('\0').to_owned())
        };
        let texts: Option<Vec<String>> = (0..count).map(decode).collect();
        match texts {
            Some(texts) => Ok(Value::Texts(Arc::new(texts))),
            None => self.malformed("an array of text has what is no character"),
        }
    }
}
