//! What the test programs share.

pub(crate) mod client;
pub(crate) mod form;
pub(crate) mod images;
pub(crate) mod pending;
