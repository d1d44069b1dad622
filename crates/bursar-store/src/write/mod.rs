//! The write path: a queue of commands, one transaction for each group, and the outcomes.

pub(crate) mod job;
pub(crate) mod ledger;
pub(crate) mod observe;
pub(crate) mod queue;
pub(crate) mod steps;
pub(crate) mod turns;
pub(crate) mod writable;
pub(crate) mod writer;
pub(crate) mod writer_connection;
