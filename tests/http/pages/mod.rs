//! Pages for people.

mod runs;
