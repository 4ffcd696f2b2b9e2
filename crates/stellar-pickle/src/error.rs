//! Reasons why bytes are not read.

/// Reason why bytes are no pickle of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The opcode is not read.
    Opcode {
        /// Name or number of the opcode.
        name: String,
        /// Its position in the input.
        at: usize,
    },
    /// The class or function is not known.
    Global {
        /// Its module.
        module: String,
        /// Its name.
        name: String,
    },
    /// The input ends too early, or announces a length that it does not have.
    Truncated {
        /// Position of the value in the input.
        at: usize,
    },
    /// A bound is exceeded.
    Limit {
        /// What there is too much of, with the bound.
        what: String,
    },
    /// The input is inconsistent.
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Position in the input.
        at: usize,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Opcode { name, at } => write!(
                f,
                "the pickle has the opcode {name} at byte {at}, which is not read: pickle a dict of \
                    lists, bytes, texts and numbers"
            ),
            Self::Global { module, name } => write!(
                f,
                "the pickle names `{module} {name}`, which is not known here and never called: \
                    pickle plain lists, bytes, texts and numbers"
            ),
            Self::Truncated { at } => {
                write!(f, "the pickle is truncated: it ends within the value at byte {at}")
            }
            Self::Limit { what } => write!(f, "the pickle has {what}: send less at once"),
            Self::Malformed { what, at } => {
                write!(f, "the pickle is malformed at byte {at}: {what}")
            }
        }
    }
}

impl std::error::Error for Error {}
