//! The plumbing of the HTTP API: it knows no resource.

pub(crate) mod access;
pub(crate) mod admission;
pub(crate) mod analyses;
pub(crate) mod audit;
pub(crate) mod bodies;
pub(crate) mod body;
pub(crate) mod check;
pub(crate) mod csv;
pub(crate) mod drain;
pub(crate) mod error;
mod extract;
pub(crate) mod fair;
pub(crate) mod fallback;
pub(crate) mod filters;
pub(crate) mod form;
pub(crate) mod forward;
pub(crate) mod hosts;
mod key_limits;
pub(crate) mod keys;
pub(crate) mod leaving;
mod model_routes;
pub(crate) mod multipart;
mod page;
pub(crate) mod request_id;
pub(crate) mod telemetry;

pub use check::Check;
pub use error::{ApiError, Code, Problem};
pub(crate) use extract::{
    Id, InPath, Query, Resource, encode, form_of, not_found, pairs, query_of,
};
pub(crate) use page::{PageQuery, cut, page, page_of};
