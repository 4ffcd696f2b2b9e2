//! The classes and functions that numpy's arrays of text need, known by name and never called.

/// Classes and functions that are known by name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Global {
    Reconstruct,
    ArrayClass,
    Type,
    FromBuffer,
    Encode,
}

const GLOBALS: [(&str, &str, Global); 7] = [
    ("numpy.core.multiarray", "_reconstruct", Global::Reconstruct),
    ("numpy._core.multiarray", "_reconstruct", Global::Reconstruct),
    ("numpy", "ndarray", Global::ArrayClass),
    ("numpy", "dtype", Global::Type),
    ("numpy.core.numeric", "_frombuffer", Global::FromBuffer),
    ("numpy._core.numeric", "_frombuffer", Global::FromBuffer),
    ("_codecs", "encode", Global::Encode),
];

/// Returns what a pickle names, if it is known.
pub(crate) fn find(module: &str, name: &str) -> Option<Global> {
    let known = GLOBALS.iter().find(|(of, each, _)| *of == module && *each == name);
    known.map(|(_, _, global)| *global)
}
