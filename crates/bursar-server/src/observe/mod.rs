//! Observability: the log, traces and metrics.

pub mod log;
pub(crate) mod log_queue;
pub mod metrics;
pub mod trace;
