//! The layers around the routes.

pub mod access_log;
pub mod guard;
pub mod pipeline;
pub mod require_database;
pub mod response_headers;
