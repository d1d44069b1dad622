//! Verification: recomputes all sums from the entries and compares them with the stored ones.

pub(crate) mod differences;
mod limits;
pub(crate) mod recount;
