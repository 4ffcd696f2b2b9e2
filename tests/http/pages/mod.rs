//! Pages for people.

mod people;
mod votes;
