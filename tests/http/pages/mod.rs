//! Pages for people.

mod board;
mod people;
mod runs;
mod sample;
mod votes;
