//! Reads, the same for every database.

pub(crate) mod accounts;
pub(crate) mod aggregate;
pub(crate) mod breakdown;
pub(crate) mod days;
pub(crate) mod entries;
pub(crate) mod history;
pub(crate) mod near_limit;
pub(crate) mod page;
pub(crate) mod read_context;
pub(crate) mod slots;
pub(crate) mod store;
pub(crate) mod summaries;
pub(crate) mod sums;
pub(crate) mod tenant_sums;
