//! The real program: its commands, startup errors and shutdown.

mod backup;
mod commands;
mod compare;
mod compatibility;
#[allow(dead_code, reason = "parts only for `tests/store`")]
#[path = "../store/harness.rs"]
mod database;
mod datasets;
mod deaths;
mod disk;
mod doctor;
mod environment;
mod generate;
mod gpu;
mod harness;
mod health;
mod keys;
mod masks;
mod paper;
mod refusals;
mod rolling;
mod runs;
mod s3;
mod service;
mod start;
mod submissions;
#[path = "../support/mod.rs"]
mod support;
mod traces;
mod tutorial;
mod verify;
mod workers;
