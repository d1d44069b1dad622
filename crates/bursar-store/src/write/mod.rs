//! The one way to write: commands in, one transaction for a group, outcomes out.

pub(crate) mod job;
pub(crate) mod ledger;
pub(crate) mod observe;
pub(crate) mod queue;
pub(crate) mod writable;
pub(crate) mod writer;
pub(crate) mod writer_connection;
