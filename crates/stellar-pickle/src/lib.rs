//! Reads Python pickles as data, and writes plain ones.
//!
//! A pickle is a program: `pickle.loads` runs whatever it names. This reader keeps values only. It
//! knows the constructors of numpy's text arrays by name, and calls nothing. Every other opcode or
//! name is an [`Error`] that says which.
//!
//! Bounds: depth [`DEPTH`]; [`ENTRIES`] entries of the stack and of the memo each; [`VALUES`]
//! values in all; [`TEXT_BYTES`] of text arrays. Texts and bytes refer to the input, and what a
//! pickle memoises is shared, so memory is at most a small multiple of the input.

#![forbid(unsafe_code)]

mod error;
mod names;
mod numpy;
mod opcode;
mod reader;
mod value;
mod writer;

pub use error::Error;
pub use reader::{DEPTH, ENTRIES, TEXT_BYTES, VALUES, read};
pub use value::{Blob, Entries, Items, Part, Value};
pub use writer::{error, numbers};
