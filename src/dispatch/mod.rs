//! How pending samples come to those who score them, behind one trait with two implementations: the
//! database, which one instance reads (`local.rs`), and NATS `JetStream`, which brings ids of
//! samples to any number of workers (`nats/`).
//!
//! The rows of pending samples are the truth. A dispatch may lose, repeat and reorder samples:
//! recording a sample and removing it from the pending ones is one transaction, so a second result
//! finds no row. `contract.rs` tests what both guarantee.

#[cfg(test)]
mod contract;
mod interface;
mod local;
mod nats;
mod note;
mod suspects;

pub(crate) use self::interface::{Dispatch, Outcome, Taken};
pub(crate) use self::local::Local;
pub(crate) use self::nats::{Broker, Jetstream, NoPlace, Places, Queue};
