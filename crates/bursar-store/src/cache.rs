//! The interface of caches for the operator: their size, and clearing them.

use bursar_core::TenantId;

/// The size of a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// The number of entries.
    pub entries: usize,
    /// The limit on the entries of all tenants.
    pub entries_max: usize,
    /// The limit on the entries of one tenant.
    pub tenant_entries_max: usize,
    /// The approximate memory of the entries, if it is counted.
    pub bytes: Option<usize>,
    /// The limit on the memory, if it is counted.
    pub bytes_max: Option<usize>,
    /// The number of entries of each tenant.
    pub tenants: Vec<(TenantId, usize)>,
}

/// A cache of limited size. Clearing it loses no fact of the ledger.
pub trait Cache: Send + Sync {
    /// Its name, in lower case with hyphens.
    fn name(&self) -> &'static str;

    /// Its current size.
    fn in_use(&self) -> CacheUse;

    /// Removes the entries of one tenant, or of all; returns their number.
    fn clear(&self, tenant_id: Option<TenantId>) -> usize;
}
