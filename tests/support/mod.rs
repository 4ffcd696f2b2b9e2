//! Helpers shared by the test programs.

pub(crate) mod client;
pub(crate) mod form;
pub(crate) mod images;
pub(crate) mod pending;
