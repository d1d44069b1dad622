//! A cache of what the store says about tenants, each read at most once a second.

use std::sync::Arc;
use std::time::Duration;

use bursar_core::TenantId;
use bursar_store::{Cache, CacheUse, StoreError};
use parking_lot::RwLock;
use tokio::sync::Mutex;

use crate::jobs::tenant_cache::{CacheBounds, TenantCache};

/// How long a value is valid.
const LIFE: Duration = Duration::from_secs(1);
/// The most tenants in the cache.
const TENANTS_MAX: usize = 20_000;
/// The approximate size of a value with its index entries.
const SLOT_BYTES: usize = 400;
const BOUNDS: CacheBounds = CacheBounds {
    entries_max: TENANTS_MAX,
    tenant_entries_max: 1,
    bytes_max: TENANTS_MAX * SLOT_BYTES,
};

/// The last value that the store returned for each tenant, including errors.
///
/// Concurrent callers for one tenant share one query, so a flood of requests does not become one of
/// queries. Expired values are removed as new ones come; when the cache is full, the oldest is
/// dropped.
pub(super) struct TenantFacts<T> {
    name: &'static str,
    slots: RwLock<Slots<T>>,
}

type Slots<T> = TenantCache<TenantId, Arc<Slot<T>>>;

struct Slot<T> {
    fact: RwLock<Option<Fact<T>>>,
    /// Held by the caller that queries the store.
    reading: Mutex<()>,
}

struct Fact<T> {
    /// When the store was read.
    at: Duration,
    value: Result<T, StoreError>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { fact: RwLock::default(), reading: Mutex::default() }
    }
}

impl<T: Clone> Slot<T> {
    /// The valid value.
    fn fresh(&self, elapsed: Duration) -> Option<Result<T, StoreError>> {
        let fact = self.fact.read();
        let Fact { at, value } = fact.as_ref()?;
        (!is_over(*at, elapsed)).then(|| value.clone())
    }
}

impl<T> Slot<T> {
    fn is_over(&self, elapsed: Duration) -> bool {
        self.fact.read().as_ref().is_none_or(|known| is_over(known.at, elapsed))
    }
}

fn is_over(at: Duration, elapsed: Duration) -> bool {
    elapsed.saturating_sub(at) >= LIFE
}

impl<T: Clone> TenantFacts<T> {
    /// An empty cache with the name that the operator sees.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, slots: RwLock::new(TenantCache::new(BOUNDS)) }
    }

    /// Returns the cached value, or the result of `read`.
    ///
    /// # Errors
    /// The error of the store, which is cached for a second as well.
    pub(super) async fn get<F: Future<Output = Result<T, StoreError>>>(
        &self,
        tenant_id: TenantId,
        elapsed: Duration,
        read: impl FnOnce() -> F,
    ) -> Result<T, StoreError> {
        let slot = self.slot(tenant_id, elapsed);
        if let Some(value) = slot.fresh(elapsed) {
            return value;
        }
        let _reading = slot.reading.lock().await;
        // The previous holder of the lock may have read it.
        if let Some(value) = slot.fresh(elapsed) {
            return value;
        }
        let value = read().await;
        if let Err(error) = &value {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, %tenant_id, "protection could not read a tenant's overrides");
        }
        *slot.fact.write() = Some(Fact { at: elapsed, value: value.clone() });
        self.renew(tenant_id, Arc::clone(&slot), elapsed);
        value
    }

    /// Removes the value of a tenant.
    pub(super) fn forget(&self, tenant_id: TenantId) {
        self.slots.write().forget(Some(tenant_id));
    }

    fn slot(&self, tenant_id: TenantId, elapsed: Duration) -> Arc<Slot<T>> {
        if let Some(slot) = self.slots.read().get(&tenant_id) {
            return Arc::clone(slot);
        }
        let mut slots = self.slots.write();
        // Another request may have come first.
        if let Some(slot) = slots.get(&tenant_id) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot::default());
        insert_newest(&mut slots, tenant_id, Arc::clone(&slot), elapsed);
        slot
    }

    /// Makes a value the newest, unless it was removed meanwhile.
    fn renew(&self, tenant_id: TenantId, slot: Arc<Slot<T>>, elapsed: Duration) {
        let mut slots = self.slots.write();
        if slots.get(&tenant_id).is_some_and(|known| Arc::ptr_eq(known, &slot)) {
            insert_newest(&mut slots, tenant_id, slot, elapsed);
        }
    }
}

/// Inserts a value as the newest, and removes expired ones that no one waits for.
fn insert_newest<T>(
    slots: &mut Slots<T>,
    tenant_id: TenantId,
    slot: Arc<Slot<T>>,
    elapsed: Duration,
) {
    slots.insert(Some(tenant_id), tenant_id, slot, SLOT_BYTES);
    slots.expire(|slot| Arc::strong_count(slot) == 1 && slot.is_over(elapsed));
}

impl<T: Send + Sync> Cache for TenantFacts<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn in_use(&self) -> CacheUse {
        self.slots.read().in_use()
    }

    fn clear(&self, tenant_id: Option<TenantId>) -> usize {
        let mut slots = self.slots.write();
        match tenant_id {
            Some(_) => slots.forget(tenant_id),
            None => slots.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn tenant(number: i64) -> TenantId {
        TenantId::from_number(number).expect("in range")
    }

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[tokio::test]
    async fn the_store_is_read_once_a_second_for_any_number_of_callers() {
        let known: TenantFacts<u32> = TenantFacts::new("facts");
        let reads = AtomicU32::new(0);
        let get = |number: i64, millis| {
            known.get(tenant(number), at(millis), || async {
                tokio::task::yield_now().await;
                Ok(reads.fetch_add(1, Ordering::Relaxed))
            })
        };
        let together = futures_util::future::join_all((0..50).map(|_| get(1, 0))).await;
        assert!(together.iter().all(|answer| matches!(answer, Ok(0))), "{together:?}");
        assert!(matches!(get(1, 999).await, Ok(0)));
        assert!(matches!(get(2, 999).await, Ok(1)), "another tenant is read separately");
        assert!(matches!(get(1, 1_000).await, Ok(2)));
        assert!(matches!(get(1, 500).await, Ok(2)), "whoever read the clock before takes it too");
        known.forget(tenant(1));
        assert!(matches!(get(1, 1_000).await, Ok(3)));
    }

    #[tokio::test]
    async fn an_error_is_cached_for_a_second() {
        let known: TenantFacts<u32> = TenantFacts::new("facts");
        let refused = known.get(tenant(1), at(0), || async { Err(StoreError::Closed) }).await;
        assert!(matches!(refused, Err(StoreError::Closed)));
        let refused = known.get(tenant(1), at(999), || async { Ok(7) }).await;
        assert!(matches!(refused, Err(StoreError::Closed)));
        assert!(matches!(known.get(tenant(1), at(1_000), || async { Ok(7) }).await, Ok(7)));
    }

    /// Asks for a tenant. Returns whether the store was queried.
    async fn is_read(known: &TenantFacts<u32>, number: i64, millis: u64) -> bool {
        let reads = AtomicU32::new(0);
        let read = async || Ok(reads.fetch_add(1, Ordering::Relaxed));
        known.get(tenant(number), at(millis), read).await.expect("a value");
        reads.into_inner() > 0
    }

    #[tokio::test]
    async fn a_full_cache_drops_the_value_read_longest_ago() {
        let known = TenantFacts::new("facts");
        let tenants_max = TENANTS_MAX as i64;
        for number in 1..=tenants_max {
            assert!(is_read(&known, number, 0).await);
        }
        assert!(is_read(&known, tenants_max + 1, 0).await);
        assert_eq!(known.in_use().entries, TENANTS_MAX);
        for number in 2..=tenants_max + 1 {
            assert!(!is_read(&known, number, 0).await, "{number} was forgotten");
        }
        assert!(is_read(&known, 1, 0).await);
    }

    #[tokio::test]
    async fn what_is_over_goes_as_others_come() {
        let known = TenantFacts::new("facts");
        for number in 1..=100 {
            is_read(&known, number, 0).await;
        }
        // The renewed value is newer than the others.
        assert!(is_read(&known, 1, 1_000).await);
        assert_eq!(known.in_use().tenants, [(tenant(1), 1)]);
        is_read(&known, 200, 1_999).await;
        assert_eq!(known.in_use().entries, 2);
    }

    #[tokio::test]
    async fn the_operator_clears_one_tenant_or_all() {
        let known = TenantFacts::new("facts");
        for number in 1..=3 {
            is_read(&known, number, 0).await;
        }
        assert_eq!((known.clear(Some(tenant(2))), known.clear(Some(tenant(2)))), (1, 0));
        assert!(is_read(&known, 2, 0).await && !is_read(&known, 1, 0).await);
        assert_eq!((known.clear(None), known.in_use().entries), (3, 0));
    }

    #[tokio::test]
    async fn a_value_removed_during_its_read_stays_removed() {
        let known: TenantFacts<u32> = TenantFacts::new("facts");
        let read = async || {
            known.forget(tenant(1));
            Ok(1)
        };
        assert!(matches!(known.get(tenant(1), at(0), read).await, Ok(1)));
        assert_eq!(known.in_use().entries, 0);
        assert!(is_read(&known, 1, 0).await);
    }
}
