//! Pages for people.

mod sample;
mod runs;
mod board;
