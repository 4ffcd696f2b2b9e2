//! The real program: its commands, startup errors and shutdown.

mod backup;
mod commands;
mod compare;
mod compatibility;
mod datasets;
mod deaths;
mod disk;
mod doctor;
mod environment;
mod gpu;
mod harness;
mod keys;
mod refusals;
mod runs;
mod service;
#[path = "../support/mod.rs"]
mod support;
mod traces;
mod tutorial;
mod verify;
