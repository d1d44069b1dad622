//! What is kept in memory for a while, as the operator sees it.

use bursar_core::TenantId;

/// How full a cache is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// Entries in it.
    pub entries: usize,
    /// Entries at most, of all tenants.
    pub entries_max: usize,
    /// Entries of one tenant at most.
    pub tenant_entries_max: usize,
    /// About how many bytes the entries take, where that is counted.
    pub bytes: Option<usize>,
    /// Bytes at most, where they are counted.
    pub bytes_max: Option<usize>,
    /// How many entries each tenant has.
    pub tenants: Vec<(TenantId, usize)>,
}

/// Something that is kept in memory for a while, in bounds, and can be cleared without losing a
/// fact of the ledger.
pub trait Cache: Send + Sync {
    /// Its name, in lower case with hyphens.
    fn name(&self) -> &'static str;

    /// How full it is now.
    fn in_use(&self) -> CacheUse;

    /// Forgets what is kept of one tenant, or all of it; how many entries that are.
    fn clear(&self, tenant_id: Option<TenantId>) -> usize;
}
