//! Callers who were good a moment ago.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_core::TenantId;
use bursar_store::{Cache, CacheUse, SecretHash};
use parking_lot::RwLock;

use crate::auth::caller::{Caller, Kind};
use crate::jobs::tenant_cache::{CacheBounds, TenantCache};

/// For how long a key that was good is taken for good without asking storage.
const CACHE_LIFE: Duration = Duration::from_secs(1);
/// Callers that are remembered. A tenant's share is as many keys as it may have integrations.
const BOUNDS: CacheBounds =
    CacheBounds { entries_max: 40_000, tenant_entries_max: 10_000, bytes_max: 32 * 1024 * 1024 };
/// What an entry takes besides its caller: its key, and its place by age and by tenant.
const ENTRY_BYTES: usize = 200;
/// Tenants of which it is remembered when something of them was forgotten.
const FORGOTTEN_MAX: usize = 10_000;

/// Keys that were good a moment ago, under the hash of the whole key and how it was presented.
///
/// An entry lives a second, so that a key that another node revokes is refused within two.
#[derive(Default)]
pub struct KeyCache(RwLock<CachedKeys>);

struct CachedKeys {
    entries: TenantCache<(Kind, SecretHash), (Instant, Arc<Caller>)>,
    /// How often something of a tenant was forgotten, of those that lately had something to forget.
    forgotten: HashMap<TenantId, u64>,
    /// The count at which everything was forgotten last.
    everything: u64,
    /// Counts whatever was forgotten, of all tenants.
    generation: u64,
}

/// When a caller was looked for who is not remembered.
#[derive(Clone, Copy)]
pub(super) struct Missed {
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
            // Whoever is being read now is read again the next time.
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

    /// Whether something of the caller's tenant was forgotten since.
    fn is_stale(&self, caller: &Caller, generation: u64) -> bool {
        let Some(tenant) = caller.tenant() else { return false };
        generation < self.everything
            || self.forgotten.get(&tenant.tenant_id).is_some_and(|last| *last > generation)
    }
}

impl KeyCache {
    /// The caller, or since when whoever is read now may be remembered.
    pub(super) fn get(&self, kind: Kind, hash: &SecretHash) -> Result<Arc<Caller>, Missed> {
        let cached = self.0.read();
        match cached.entries.get(&(kind, *hash)) {
            Some((since, caller)) if since.elapsed() < CACHE_LIFE => Ok(Arc::clone(caller)),
            Some(_) | None => Err(Missed { at: Instant::now(), generation: cached.generation }),
        }
    }

    /// Remembers a caller, unless something of the tenant changed since it was read.
    ///
    /// Its second began before it was read: what another node changed meanwhile is not believed
    /// for longer because the answer was slow.
    pub(super) fn put(&self, kind: Kind, hash: SecretHash, caller: Arc<Caller>, missed: Missed) {
        let mut cached = self.0.write();
        if missed.at.elapsed() >= CACHE_LIFE || cached.is_stale(&caller, missed.generation) {
            return;
        }
        let holder = caller.tenant().map(|tenant| tenant.tenant_id);
        let bytes = ENTRY_BYTES + caller.bytes();
        cached.entries.expire(|(since, _)| since.elapsed() >= CACHE_LIFE);
        cached.entries.insert(holder, (kind, hash), (missed.at, caller), bytes);
    }

    /// Forgets who is of a tenant: a key, an integration or the tenant itself changed here.
    pub fn forget(&self, tenant_id: TenantId) {
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
    use crate::auth::caller::CallerTenant;
    use crate::auth::scopes::ScopeSet;

    fn machine(tenant: i64) -> Arc<Caller> {
        let tenant = CallerTenant {
            tenant_id: TenantId::from_number(tenant).unwrap(),
            lifecycle: TenantLifecycle::Active,
            onboarding: OnboardingState::Complete,
        };
        let key_id = KeyId::from_number(1).unwrap();
        let scopes = ScopeSet::default();
        Arc::new(Caller::Machine { tenant, key_id, scopes, expires_at: None })
    }

    fn missed(cache: &KeyCache, hash: u8) -> Missed {
        cache.get(Kind::ApiKey, &[hash; 32]).unwrap_err()
    }

    fn knows(cache: &KeyCache, hash: u8) -> bool {
        cache.get(Kind::ApiKey, &[hash; 32]).is_ok()
    }

    #[test]
    fn forgetting_a_tenant_forgets_its_callers_and_those_that_are_being_read() {
        let cache = KeyCache::default();
        let tenant_id = TenantId::from_number(1).unwrap();
        let (first, second) = (missed(&cache, 1), missed(&cache, 2));
        cache.put(Kind::ApiKey, [1; 32], machine(1), first);
        let late = missed(&cache, 3);
        cache.forget(tenant_id);
        assert!(!knows(&cache, 1));
        cache.put(Kind::ApiKey, [3; 32], machine(1), late);
        assert!(!knows(&cache, 3), "it was read before the change");
        cache.put(Kind::ApiKey, [2; 32], machine(2), second);
        assert!(knows(&cache, 2), "another tenant's");
        let after = missed(&cache, 1);
        cache.put(Kind::ApiKey, [1; 32], machine(1), after);
        assert!(knows(&cache, 1));
    }

    #[test]
    fn whoever_was_read_slowly_is_not_remembered_for_longer() {
        let cache = KeyCache::default();
        let Missed { at, generation } = missed(&cache, 1);
        let long_ago = Missed { at: at.checked_sub(CACHE_LIFE).unwrap(), generation };
        cache.put(Kind::ApiKey, [1; 32], machine(1), long_ago);
        assert!(!knows(&cache, 1));
    }

    #[test]
    fn beyond_what_is_remembered_of_tenants_everything_is_forgotten() {
        let cache = KeyCache::default();
        let before = missed(&cache, 1);
        for tenant in 0..=FORGOTTEN_MAX as i64 {
            cache.forget(TenantId::from_number(tenant + 10).unwrap());
        }
        cache.put(Kind::ApiKey, [1; 32], machine(10), before);
        assert!(!knows(&cache, 1));
    }

    #[test]
    fn a_tenant_with_many_keys_takes_no_place_from_another() {
        let cache = KeyCache::default();
        let first = missed(&cache, 1);
        cache.put(Kind::ApiKey, [1; 32], machine(1), first);
        for number in 0..50_000_u32 {
            let mut hash = [2; 32];
            hash[..4].copy_from_slice(&number.to_le_bytes());
            let of_key = cache.get(Kind::Bearer, &hash).unwrap_err();
            cache.put(Kind::Bearer, hash, machine(2), of_key);
        }
        let CacheUse { entries, bytes, .. } = cache.in_use();
        assert!(entries <= 1 + BOUNDS.tenant_entries_max, "{entries}");
        assert!(bytes.unwrap() < BOUNDS.bytes_max / 4, "{bytes:?}");
    }
}
