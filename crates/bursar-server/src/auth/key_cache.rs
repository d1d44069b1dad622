//! A cache of callers whose key was verified within the last second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_core::TenantId;
use bursar_store::{Cache, CacheUse, SecretHash};
use parking_lot::RwLock;

use crate::auth::caller::{Caller, CredentialKind};
use crate::jobs::tenant_cache::{CacheBounds, TenantCache};

/// How long a verified key is trusted without asking the store.
const CACHE_LIFE: Duration = Duration::from_secs(1);
/// The size of the cache. A tenant's share equals the most integrations it may have.
const BOUNDS: CacheBounds =
    CacheBounds { entries_max: 40_000, tenant_entries_max: 10_000, bytes_max: 32 * 1024 * 1024 };
/// The size of an entry without its caller: its key and its places in the indexes.
const ENTRY_BYTES: usize = 200;
/// Tenants whose last invalidation is remembered.
const FORGOTTEN_MAX: usize = 10_000;

/// Callers by the hash of the whole key and by how it was presented.
///
/// An entry lives for one second, so a key that another node revokes is refused within two.
#[derive(Default)]
pub(crate) struct KeyCache(RwLock<CachedKeys>);

struct CachedKeys {
    entries: TenantCache<(CredentialKind, SecretHash), (Instant, Arc<Caller>)>,
    /// The generation of each tenant's last invalidation.
    forgotten: HashMap<TenantId, u64>,
    /// The generation of the last invalidation of all tenants.
    everything: u64,
    /// Counts invalidations of all tenants.
    generation: u64,
}

/// The state of the cache at a miss.
#[derive(Clone, Copy)]
pub(super) struct CacheMiss {
    at: Instant,
    generation: u64,
}

impl Default for CachedKeys {
    fn default() -> Self {
        let entries = TenantCache::new(BOUNDS);
        Self { entries, forgotten: HashMap::new(), everything: 0, generation: 0 }
    }
}

impl CachedKeys {
    fn forget(&mut self, tenant_id: TenantId) -> usize {
        self.generation += 1;
        let forgotten = self.entries.forget(Some(tenant_id));
        if self.forgotten.len() >= FORGOTTEN_MAX {
            // Callers that are being read now must not be cached.
            self.forget_everything();
        }
        self.forgotten.insert(tenant_id, self.generation);
        forgotten
    }

    fn forget_everything(&mut self) -> usize {
        self.generation += 1;
        self.everything = self.generation;
        self.forgotten.clear();
        self.entries.clear()
    }

    /// Whether the caller's tenant was invalidated after this generation.
    fn is_stale(&self, caller: &Caller, generation: u64) -> bool {
        let Some(tenant) = caller.tenant() else { return false };
        generation < self.everything
            || self.forgotten.get(&tenant.tenant_id).is_some_and(|last| *last > generation)
    }
}

impl KeyCache {
    /// The cached caller, or a token that allows [`Self::put`] after a miss.
    pub(super) fn get(
        &self,
        kind: CredentialKind,
        hash: &SecretHash,
    ) -> Result<Arc<Caller>, CacheMiss> {
        let cached = self.0.read();
        match cached.entries.get(&(kind, *hash)) {
            Some((since, caller)) if since.elapsed() < CACHE_LIFE => Ok(Arc::clone(caller)),
            Some(_) | None => Err(CacheMiss { at: Instant::now(), generation: cached.generation }),
        }
    }

    /// Caches a caller unless its tenant was invalidated since the miss.
    ///
    /// The second starts before the store was asked. A slow answer does not extend it.
    pub(super) fn put(
        &self,
        kind: CredentialKind,
        hash: SecretHash,
        caller: Arc<Caller>,
        miss: CacheMiss,
    ) {
        let mut cached = self.0.write();
        if miss.at.elapsed() >= CACHE_LIFE || cached.is_stale(&caller, miss.generation) {
            return;
        }
        let holder = caller.tenant().map(|tenant| tenant.tenant_id);
        let bytes = ENTRY_BYTES + caller.bytes();
        cached.entries.expire(|(since, _)| since.elapsed() >= CACHE_LIFE);
        cached.entries.insert(holder, (kind, hash), (miss.at, caller), bytes);
    }

    /// Invalidates all callers of a tenant, because a key, an integration or the tenant changed.
    pub(crate) fn forget(&self, tenant_id: TenantId) {
        self.0.write().forget(tenant_id);
    }
}

impl Cache for KeyCache {
    fn name(&self) -> &'static str {
        "callers"
    }

    fn in_use(&self) -> CacheUse {
        self.0.read().entries.in_use()
    }

    fn clear(&self, tenant_id: Option<TenantId>) -> usize {
        let mut cached = self.0.write();
        match tenant_id {
            Some(tenant_id) => cached.forget(tenant_id),
            None => cached.forget_everything(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bursar_core::{KeyId, OnboardingState, TenantLifecycle};

    use super::*;
    use crate::auth::caller::{CallerKey, CallerTenant};
    use crate::auth::scopes::ScopeSet;

    fn machine(tenant: i64) -> Arc<Caller> {
        let tenant = CallerTenant {
            tenant_id: TenantId::from_number(tenant).unwrap(),
            lifecycle: TenantLifecycle::Active,
            onboarding: OnboardingState::Complete,
        };
        let key_id = KeyId::from_number(1).unwrap();
        let key = CallerKey { key_id, account_key_id: key_id };
        let scopes = ScopeSet::default();
        Arc::new(Caller::Machine { tenant, key, scopes, expires_at: None })
    }

    fn miss(cache: &KeyCache, hash: u8) -> CacheMiss {
        cache.get(CredentialKind::ApiKey, &[hash; 32]).unwrap_err()
    }

    fn knows(cache: &KeyCache, hash: u8) -> bool {
        cache.get(CredentialKind::ApiKey, &[hash; 32]).is_ok()
    }

    #[test]
    fn forgetting_a_tenant_forgets_its_callers_and_those_that_are_being_read() {
        let cache = KeyCache::default();
        let tenant_id = TenantId::from_number(1).unwrap();
        let (first, second) = (miss(&cache, 1), miss(&cache, 2));
        cache.put(CredentialKind::ApiKey, [1; 32], machine(1), first);
        let late = miss(&cache, 3);
        cache.forget(tenant_id);
        assert!(!knows(&cache, 1));
        cache.put(CredentialKind::ApiKey, [3; 32], machine(1), late);
        assert!(!knows(&cache, 3), "it was read before the change");
        cache.put(CredentialKind::ApiKey, [2; 32], machine(2), second);
        assert!(knows(&cache, 2), "another tenant's");
        let after = miss(&cache, 1);
        cache.put(CredentialKind::ApiKey, [1; 32], machine(1), after);
        assert!(knows(&cache, 1));
    }

    #[test]
    fn whoever_was_read_slowly_is_not_remembered_for_longer() {
        let cache = KeyCache::default();
        let CacheMiss { at, generation } = miss(&cache, 1);
        let long_ago = CacheMiss { at: at.checked_sub(CACHE_LIFE).unwrap(), generation };
        cache.put(CredentialKind::ApiKey, [1; 32], machine(1), long_ago);
        assert!(!knows(&cache, 1));
    }

    #[test]
    fn beyond_what_is_remembered_of_tenants_everything_is_forgotten() {
        let cache = KeyCache::default();
        let before = miss(&cache, 1);
        for tenant in 0..=FORGOTTEN_MAX as i64 {
            cache.forget(TenantId::from_number(tenant + 10).unwrap());
        }
        cache.put(CredentialKind::ApiKey, [1; 32], machine(10), before);
        assert!(!knows(&cache, 1));
    }

    #[test]
    fn a_tenant_with_many_keys_takes_no_place_from_another() {
        let cache = KeyCache::default();
        let first = miss(&cache, 1);
        cache.put(CredentialKind::ApiKey, [1; 32], machine(1), first);
        for number in 0..50_000_u32 {
            let mut hash = [2; 32];
            hash[..4].copy_from_slice(&number.to_le_bytes());
            let of_key = cache.get(CredentialKind::Bearer, &hash).unwrap_err();
            cache.put(CredentialKind::Bearer, hash, machine(2), of_key);
        }
        let CacheUse { entries, bytes, .. } = cache.in_use();
        assert!(entries <= 1 + BOUNDS.tenant_entries_max, "{entries}");
        assert!(bytes.unwrap() < BOUNDS.bytes_max / 4, "{bytes:?}");
    }
}
