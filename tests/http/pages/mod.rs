//! Pages for people.

mod board;
mod people;
mod runs;
mod sample;
mod studies;
pub(crate) mod votes;
