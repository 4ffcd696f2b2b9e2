//! Pages for people.

mod sample;
