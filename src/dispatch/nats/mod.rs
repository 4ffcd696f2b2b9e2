//! Ids of pending samples through NATS `JetStream`.
//!
//! One stream keeps a message a sample until it is acknowledged. Its subject is
//! `PREFIX.work.PACK.RUN.SAMPLE`, so that a sample that is queued or in flight is not published
//! twice. Workers of a pack share a durable consumer. `JetStream` decides who has a sample, gives
//! it to another worker after `dispatch.nats.ack_seconds` of silence, and bounds how many are in
//! flight.
//!
//! - `broker.rs`: the connection, stream and consumers
//! - `publisher.rs`: ids into the stream, and again if they are missing
//! - `inbox.rs`: messages that this instance has
//! - `jetstream.rs`: the [`Dispatch`](super::Dispatch)
//! - `places.rs`: which worker has room for a request

mod broker;
mod inbox;
mod jetstream;
mod places;
mod publisher;
#[cfg(test)]
mod tests;

pub(crate) use self::broker::{Broker, Queue};
pub(crate) use self::jetstream::Jetstream;
pub(crate) use self::places::{NoPlace, Places};
