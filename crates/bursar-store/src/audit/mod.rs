//! The audit log: its chain, and what a check of it finds.

pub(crate) mod chain;
pub(crate) mod check;
pub(crate) mod reads;
