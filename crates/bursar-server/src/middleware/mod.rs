//! The layers around the routes.

pub(crate) mod access_log;
pub(crate) mod guard;
pub(crate) mod pipeline;
pub(crate) mod require_database;
pub(crate) mod response_headers;
