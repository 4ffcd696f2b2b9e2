//! Pages for people.

mod board;
