//! Reads, the same for every database.

pub(crate) mod aggregate;
pub(crate) mod breakdown;
pub(crate) mod history;
pub(crate) mod near_limit;
pub(crate) mod read_context;
pub(crate) mod slots;
pub(crate) mod store;
pub(crate) mod sums;
pub(crate) mod tenant_sums;
