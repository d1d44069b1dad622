//! The audit log: its hash chain, the check of a chain, and reads.

pub(crate) mod chain;
pub(crate) mod check;
pub(crate) mod reads;
