//! The interpreter: a stack, a memo, and containers that are sealed when something contains them.
//!
//! A pickler fills a container before it puts it into another one. So a container is open while it
//! is filled, and immutable from the moment that something contains it: then its depth is known, no
//! value can contain itself, and all that refer to it share it.

use std::{collections::HashMap, sync::Arc};

use crate::{
    error::Error,
    names::Global,
    opcode,
    value::{Blob, Entries, Items, Kind, Part, Value},
};

/// Maximum depth of nested lists, tuples and dicts.
pub const DEPTH: usize = 32;

/// Maximum number of entries of the stack, and of the memo.
pub const ENTRIES: usize = 100_000;

/// Maximum number of values in a pickle, also in lists that are filled in parts.
pub const VALUES: usize = 200_000;

/// Maximum size of all text arrays of a pickle, in bytes of numpy's four for a character.
pub const TEXT_BYTES: usize = 16 << 20;

/// Longest name of a global, in bytes.
const NAME: usize = 256;

/// An entry of the stack or memo.
#[derive(Clone)]
pub(crate) enum Item<'a> {
    Value(Value<'a>),
    /// Index of an object that was open when it was pushed.
    Open(usize),
    Global(Global),
}

/// An object that is being built.
pub(crate) enum Object<'a> {
    List(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// A dtype without its state.
    Type {
        chars: usize,
    },
    /// An array without its state.
    Array,
    Sealed(Value<'a>),
}

/// Reads a pickle of protocol 2 to 5.
///
/// # Errors
/// The input is no pickle, or not one of data within the bounds.
pub fn read(input: &[u8]) -> Result<Value<'_>, Error> {
    let mut reader = Reader {
        input,
        at: 0,
        start: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        objects: Vec::new(),
        values: 0,
        text_bytes: 0,
        // All bytes of protocol 2, whose texts are in the input, and no more.
        encoded: input.len(),
    };
    reader.run()
}

pub(crate) struct Reader<'a> {
    input: &'a [u8],
    at: usize,
    /// Position of the current opcode.
    start: usize,
    stack: Vec<Item<'a>>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Item<'a>>,
    objects: Vec<Object<'a>>,
    values: usize,
    pub(crate) text_bytes: usize,
    /// How many bytes may still be copied out of texts.
    pub(crate) encoded: usize,
}

pub(crate) type Outcome<T = ()> = Result<T, Error>;

pub(crate) fn too_many<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Error::Limit { what: what.into() })
}

/// Refuses values that are nested too deep.
fn shallow(value: Value<'_>) -> Outcome<Value<'_>> {
    if value.depth() > DEPTH {
        return too_many(format!("values nested more than {DEPTH} deep"));
    }
    Ok(value)
}

impl<'a> Reader<'a> {
    fn run(&mut self) -> Outcome<Value<'a>> {
        if self.byte()? != opcode::PROTO || !(2..=5).contains(&self.byte()?) {
            return self.malformed("it does not begin with a protocol from 2 to 5");
        }
        loop {
            self.start = self.at;
            let code = self.byte()?;
            if code == opcode::STOP {
                break;
            }
            self.step(code)?;
        }
        let item = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() {
            return self.malformed("values are left on the stack");
        }
        if self.at != self.input.len() {
            return self.malformed("data follow the end");
        }
        self.seal(item)
    }

    fn step(&mut self, code: u8) -> Outcome {
        match code {
            opcode::FRAME => {
                let length = self.length(8)?;
                if length > self.input.len() - self.at {
                    return Err(Error::Truncated { at: self.start });
                }
                Ok(())
            }
            opcode::NONE => self.push(Value::None),
            opcode::NEWTRUE => self.push(Value::Bool(true)),
            opcode::NEWFALSE => self.push(Value::Bool(false)),
            opcode::BININT => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()))
            }
            opcode::BININT1 => self.length(1).and_then(|it| self.push(Value::Int(it as i64))),
            opcode::BININT2 => self.length(2).and_then(|it| self.push(Value::Int(it as i64))),
            opcode::LONG1 => self.length(1).and_then(|length| self.long(length)),
            opcode::LONG4 => self.length(4).and_then(|length| self.long(length)),
            opcode::BINFLOAT => {
                let number = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(number))
            }
            opcode::SHORT_BINUNICODE => self.text(1),
            opcode::BINUNICODE => self.text(4),
            opcode::BINUNICODE8 => self.text(8),
            opcode::SHORT_BINBYTES => self.bytes(1),
            opcode::BINBYTES => self.bytes(4),
            opcode::BINBYTES8 | opcode::BYTEARRAY8 => self.bytes(8),
            opcode::EMPTY_LIST => self.open(Object::List(Vec::new())),
            opcode::EMPTY_DICT => self.open(Object::Dict(Vec::new())),
            opcode::EMPTY_TUPLE => self.tuple(0),
            opcode::TUPLE1 => self.tuple(1),
            opcode::TUPLE2 => self.tuple(2),
            opcode::TUPLE3 => self.tuple(3),
            opcode::TUPLE => self.marked().and_then(|count| self.tuple(count)),
            opcode::MARK => {
                self.room()?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            opcode::APPEND => self.append(1),
            opcode::APPENDS => self.marked().and_then(|count| self.append(count)),
            opcode::SETITEM => self.set(2),
            opcode::SETITEMS => self.marked().and_then(|count| self.set(count)),
            opcode::MEMOIZE => self.memoize(self.memo.len() as u32),
            opcode::BINPUT => self.length(1).and_then(|index| self.memoize(index as u32)),
            opcode::LONG_BINPUT => self.length(4).and_then(|index| self.memoize(index as u32)),
            opcode::BINGET => self.length(1).and_then(|index| self.recall(index as u32)),
            opcode::LONG_BINGET => self.length(4).and_then(|index| self.recall(index as u32)),
            opcode::GLOBAL => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)
            }
            opcode::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (module, name) {
                    (Item::Value(Value::Text(module)), Item::Value(Value::Text(name))) => {
                        self.global(module, name)
                    }
                    _ => self.malformed("the name of a global is not a text"),
                }
            }
            opcode::REDUCE => self.reduce(),
            opcode::BUILD => self.build(),
            _ => {
                let name =
                    opcode::refused(code).map_or_else(|| format!("{code:#04x}"), str::to_owned);
                Err(Error::Opcode { name, at: self.start })
            }
        }
    }

    // Input

    pub(crate) fn malformed<T>(&self, what: &'static str) -> Outcome<T> {
        Err(Error::Malformed { what, at: self.start })
    }

    fn take(&mut self, length: usize) -> Outcome<&'a [u8]> {
        let rest = &self.input[self.at..];
        let taken = rest.get(..length).ok_or(Error::Truncated { at: self.start })?;
        self.at += length;
        Ok(taken)
    }

    fn byte(&mut self) -> Outcome<u8> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as long as was taken"))
    }

    /// Reads an unsigned number of so many bytes.
    fn length(&mut self, bytes: usize) -> Outcome<usize> {
        let mut number = [0; 8];
        number[..bytes].copy_from_slice(self.take(bytes)?);
        let number = usize::try_from(u64::from_le_bytes(number));
        number.map_err(|_| Error::Truncated { at: self.start })
    }

    fn line(&mut self) -> Outcome<&'a str> {
        let rest = &self.input[self.at..];
        let rest = &rest[..rest.len().min(NAME + 1)];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            if rest.len() > NAME {
                return self.malformed("the name of a global is too long");
            }
            return Err(Error::Truncated { at: self.start });
        };
        let line = self.take(end + 1)?;
        match std::str::from_utf8(&line[..end]) {
            Ok(line) => Ok(line),
            Err(_) => self.malformed("the name of a global is not UTF-8"),
        }
    }

    fn long(&mut self, length: usize) -> Outcome {
        let bytes = self.take(length)?;
        if bytes.len() > 8 {
            return too_many("an integer of more than 64 bits");
        }
        let sign = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut number = [if sign { 0xff } else { 0 }; 8];
        number[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(number)))
    }

    fn text(&mut self, bytes: usize) -> Outcome {
        let length = self.length(bytes)?;
        match std::str::from_utf8(self.take(length)?) {
            Ok(text) => self.push(Value::Text(text)),
            Err(_) => self.malformed("a text is not UTF-8; lone surrogates are no text either"),
        }
    }

    fn bytes(&mut self, bytes: usize) -> Outcome {
        let length = self.length(bytes)?;
        let bytes = self.take(length)?;
        self.push(Value::Bytes(Blob::Input(bytes)))
    }

    // Stack and memo

    fn room(&self) -> Outcome {
        if self.stack.len() + self.marks.len() >= ENTRIES {
            return too_many(format!("more than {ENTRIES} values on the stack"));
        }
        Ok(())
    }

    pub(crate) fn push_item(&mut self, item: Item<'a>) -> Outcome {
        self.room()?;
        self.values += 1;
        if self.values > VALUES {
            return too_many(format!("more than {VALUES} values"));
        }
        self.stack.push(item);
        Ok(())
    }

    pub(crate) fn push(&mut self, value: Value<'a>) -> Outcome {
        self.push_item(Item::Value(value))
    }

    pub(crate) fn open(&mut self, object: Object<'a>) -> Outcome {
        self.objects.push(object);
        self.push_item(Item::Open(self.objects.len() - 1))
    }

    /// Returns the height down to which the stack may be popped: that of the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(crate) fn pop(&mut self) -> Outcome<Item<'a>> {
        if self.stack.len() <= self.floor() {
            return self.malformed("the stack is empty");
        }
        Ok(self.stack.pop().expect("above the floor"))
    }

    /// Removes the last mark and returns the number of entries above it.
    fn marked(&mut self) -> Outcome<usize> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.len() - height),
            None => self.malformed("there is no mark"),
        }
    }

    /// Pops entries as values, in the order in which they were pushed.
    fn pop_values(&mut self, count: usize) -> Outcome<Vec<Value<'a>>> {
        if self.stack.len() - self.floor() < count {
            return self.malformed("the stack is empty");
        }
        let items = self.stack.split_off(self.stack.len() - count);
        items.into_iter().map(|item| self.seal(item)).collect()
    }

    fn memoize(&mut self, index: u32) -> Outcome {
        let Some(top) = self.stack[self.floor()..].last() else {
            return self.malformed("the stack is empty");
        };
        self.memo.insert(index, top.clone());
        if self.memo.len() > ENTRIES {
            return too_many(format!("more than {ENTRIES} values in the memo"));
        }
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Outcome {
        match self.memo.get(&index).cloned() {
            Some(item) => self.push_item(item),
            None => self.malformed("it refers to a value that is not in the memo"),
        }
    }

    // Values

    /// Returns the value of an entry. From now on, nothing can change it.
    pub(crate) fn seal(&mut self, item: Item<'a>) -> Outcome<Value<'a>> {
        let index = match item {
            Item::Value(value) => return Ok(value),
            Item::Global(Global::ArrayClass) => return Ok(Value::Part(Part(Kind::ArrayClass))),
            Item::Global(_) => return self.malformed("a function is not a value"),
            Item::Open(index) => index,
        };
        let depth = |deepest: Option<usize>| 1 + deepest.unwrap_or(0);
        let value = match &mut self.objects[index] {
            Object::Sealed(value) => return Ok(value.clone()),
            Object::List(values) => {
                let values = std::mem::take(values);
                let depth = depth(values.iter().map(Value::depth).max());
                Value::List(Arc::new(Items { values, depth }))
            }
            Object::Dict(pairs) => {
                let pairs = std::mem::take(pairs);
                let each = pairs.iter().map(|(key, value)| key.depth().max(value.depth()));
                let depth = depth(each.max());
                Value::Dict(Arc::new(Entries { pairs, depth }))
            }
            Object::Type { .. } | Object::Array => {
                return self.malformed("an array or its type has no state");
            }
        };
        self.objects[index] = Object::Sealed(value.clone());
        shallow(value)
    }

    fn tuple(&mut self, count: usize) -> Outcome {
        let values = self.pop_values(count)?;
        let depth = 1 + values.iter().map(Value::depth).max().unwrap_or(0);
        let tuple = shallow(Value::Tuple(Arc::new(Items { values, depth })))?;
        self.push(tuple)
    }

    /// Returns the object at the top of the stack.
    pub(crate) fn top(&mut self) -> Outcome<&mut Object<'a>> {
        match self.stack[self.floor()..].last() {
            Some(Item::Open(index)) => Ok(&mut self.objects[*index]),
            _ => self.malformed("a value is not one that can be filled"),
        }
    }

    fn append(&mut self, count: usize) -> Outcome {
        let values = self.pop_values(count)?;
        match self.top()? {
            Object::List(list) => {
                list.extend(values);
                Ok(())
            }
            Object::Sealed(_) => self.malformed("a list changes after something contains it"),
            _ => self.malformed("what is appended to is not a list"),
        }
    }

    fn set(&mut self, count: usize) -> Outcome {
        let values = self.pop_values(count)?;
        if !values.len().is_multiple_of(2) {
            return self.malformed("a key has no value");
        }
        match self.top()? {
            Object::Dict(pairs) => {
                let mut values = values.into_iter();
                while let (Some(key), Some(value)) = (values.next(), values.next()) {
                    pairs.push((key, value));
                }
                Ok(())
            }
            Object::Sealed(_) => self.malformed("a dict changes after something contains it"),
            _ => self.malformed("items are set on what is not a dict"),
        }
    }
}
