//! What surrounds the routes.

pub mod access_log;
pub mod database_gate;
pub mod guard;
pub mod pipeline;
pub mod response_headers;
