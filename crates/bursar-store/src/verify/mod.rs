//! Counting everything a second time from the entries.

pub(crate) mod differences;
pub(crate) mod recount;
