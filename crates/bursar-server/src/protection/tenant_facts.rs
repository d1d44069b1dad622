//! A cache of what the store says about tenants, each read at most once a second.

use std::sync::Arc;
use std::time::Duration;

use bursar_core::TenantId;
use bursar_store::{Cache, CacheUse, StoreError};
use parking_lot::RwLock;
use tokio::sync::Mutex;

use crate::jobs::tenant_cache::{CacheBounds, TenantCache};

/// How long an answer is valid.
const LIFE: Duration = Duration::from_secs(1);
/// The most tenants in the cache.
const TENANTS_MAX: usize = 20_000;
/// The approximate size of an answer with its index entries.
const SLOT_BYTES: usize = 400;
const BOUNDS: CacheBounds = CacheBounds {
    entries_max: TENANTS_MAX,
    tenant_entries_max: 1,
    bytes_max: TENANTS_MAX * SLOT_BYTES,
};

/// The last answer of the store for each tenant, including errors.
///
/// Concurrent callers for one tenant share one query, so a flood of requests does not become one of
/// queries. An answer is valid for the same question only. Expired answers are removed as new ones
/// come; when the cache is full, the oldest is dropped.
pub(super) struct TenantFacts<Q, T> {
    name: &'static str,
    slots: RwLock<Slots<Q, T>>,
}

type Slots<Q, T> = TenantCache<TenantId, Arc<Slot<Q, T>>>;

struct Slot<Q, T> {
    known: RwLock<Option<Known<Q, T>>>,
    /// Held by the caller that queries the store.
    asking: Mutex<()>,
}

struct Known<Q, T> {
    question: Q,
    /// When the store was asked.
    at: Duration,
    answer: Result<T, StoreError>,
}

impl<Q, T> Default for Slot<Q, T> {
    fn default() -> Self {
        Self { known: RwLock::default(), asking: Mutex::default() }
    }
}

impl<Q: PartialEq, T: Clone> Slot<Q, T> {
    /// A valid answer to this question.
    fn fresh(&self, asked: &Q, elapsed: Duration) -> Option<Result<T, StoreError>> {
        let known = self.known.read();
        let Known { question, at, answer } = known.as_ref()?;
        let is_fresh = question == asked && !is_over(*at, elapsed);
        is_fresh.then(|| answer.clone())
    }
}

impl<Q, T> Slot<Q, T> {
    fn is_over(&self, elapsed: Duration) -> bool {
        self.known.read().as_ref().is_none_or(|known| is_over(known.at, elapsed))
    }
}

fn is_over(at: Duration, elapsed: Duration) -> bool {
    elapsed.saturating_sub(at) >= LIFE
}

impl<Q: PartialEq, T: Clone> TenantFacts<Q, T> {
    /// An empty cache with the name that the operator sees.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, slots: RwLock::new(TenantCache::new(BOUNDS)) }
    }

    /// Returns the cached answer, or the result of `ask`.
    ///
    /// # Errors
    /// The error of the store, which is cached for a second as well.
    pub(super) async fn get<F: Future<Output = Result<T, StoreError>>>(
        &self,
        tenant_id: TenantId,
        question: Q,
        elapsed: Duration,
        ask: impl FnOnce() -> F,
    ) -> Result<T, StoreError> {
        let slot = self.slot(tenant_id, elapsed);
        if let Some(answer) = slot.fresh(&question, elapsed) {
            return answer;
        }
        let _asking = slot.asking.lock().await;
        // The previous holder of the lock may have asked the same question.
        if let Some(answer) = slot.fresh(&question, elapsed) {
            return answer;
        }
        let answer = ask().await;
        if let Err(error) = &answer {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, %tenant_id, "what protection asks of storage is not answered");
        }
        *slot.known.write() = Some(Known { question, at: elapsed, answer: answer.clone() });
        self.renew(tenant_id, Arc::clone(&slot), elapsed);
        answer
    }

    /// Forgets the answer for a tenant.
    pub(super) fn forget(&self, tenant_id: TenantId) {
        self.slots.write().forget(Some(tenant_id));
    }

    fn slot(&self, tenant_id: TenantId, elapsed: Duration) -> Arc<Slot<Q, T>> {
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

    /// Makes an answer the newest, unless it was removed meanwhile.
    fn renew(&self, tenant_id: TenantId, slot: Arc<Slot<Q, T>>, elapsed: Duration) {
        let mut slots = self.slots.write();
        if slots.get(&tenant_id).is_some_and(|known| Arc::ptr_eq(known, &slot)) {
            insert_newest(&mut slots, tenant_id, slot, elapsed);
        }
    }
}

/// Inserts an answer as the newest, and removes expired ones that no one waits for.
fn insert_newest<Q, T>(
    slots: &mut Slots<Q, T>,
    tenant_id: TenantId,
    slot: Arc<Slot<Q, T>>,
    elapsed: Duration,
) {
    slots.insert(Some(tenant_id), tenant_id, slot, SLOT_BYTES);
    slots.expire(|slot| Arc::strong_count(slot) == 1 && slot.is_over(elapsed));
}

impl<Q: Send + Sync, T: Send + Sync> Cache for TenantFacts<Q, T> {
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
    async fn the_store_is_asked_once_a_second_however_many_ask() {
        let known: TenantFacts<(), u32> = TenantFacts::new("answers");
        let asked = AtomicU32::new(0);
        let get = |number: i64, millis| {
            known.get(tenant(number), (), at(millis), || async {
                tokio::task::yield_now().await;
                Ok(asked.fetch_add(1, Ordering::Relaxed))
            })
        };
        let together = futures_util::future::join_all((0..50).map(|_| get(1, 0))).await;
        assert!(together.iter().all(|answer| matches!(answer, Ok(0))), "{together:?}");
        assert!(matches!(get(1, 999).await, Ok(0)));
        assert!(matches!(get(2, 999).await, Ok(1)), "another tenant is another question");
        assert!(matches!(get(1, 1_000).await, Ok(2)));
        assert!(matches!(get(1, 500).await, Ok(2)), "whoever read the clock before takes it too");
        known.forget(tenant(1));
        assert!(matches!(get(1, 1_000).await, Ok(3)));
    }

    #[tokio::test]
    async fn an_answer_is_good_for_its_own_question_only() {
        let known: TenantFacts<u32, u32> = TenantFacts::new("answers");
        for question in [7, 8, 7] {
            let answer = known.get(tenant(1), question, at(0), || async move { Ok(question) });
            assert!(matches!(answer.await, Ok(answer) if answer == question));
        }
    }

    #[tokio::test]
    async fn what_is_not_answered_is_not_asked_again_within_the_second() {
        let known: TenantFacts<(), u32> = TenantFacts::new("answers");
        let refused = known.get(tenant(1), (), at(0), || async { Err(StoreError::Closed) }).await;
        assert!(matches!(refused, Err(StoreError::Closed)));
        let refused = known.get(tenant(1), (), at(999), || async { Ok(7) }).await;
        assert!(matches!(refused, Err(StoreError::Closed)));
        assert!(matches!(known.get(tenant(1), (), at(1_000), || async { Ok(7) }).await, Ok(7)));
    }

    /// Asks for a tenant. Returns whether the store was queried.
    async fn is_asked(known: &TenantFacts<(), u32>, number: i64, millis: u64) -> bool {
        let asked = AtomicU32::new(0);
        let ask = async || Ok(asked.fetch_add(1, Ordering::Relaxed));
        known.get(tenant(number), (), at(millis), ask).await.expect("an answer");
        asked.into_inner() > 0
    }

    #[tokio::test]
    async fn when_all_places_are_taken_the_one_asked_for_the_longest_ago_goes() {
        let known = TenantFacts::new("answers");
        let tenants_max = TENANTS_MAX as i64;
        for number in 1..=tenants_max {
            assert!(is_asked(&known, number, 0).await);
        }
        assert!(is_asked(&known, tenants_max + 1, 0).await);
        assert_eq!(known.in_use().entries, TENANTS_MAX);
        for number in 2..=tenants_max + 1 {
            assert!(!is_asked(&known, number, 0).await, "{number} was forgotten");
        }
        assert!(is_asked(&known, 1, 0).await);
    }

    #[tokio::test]
    async fn what_is_over_goes_as_others_come() {
        let known = TenantFacts::new("answers");
        for number in 1..=100 {
            is_asked(&known, number, 0).await;
        }
        // The renewed answer is newer than the others.
        assert!(is_asked(&known, 1, 1_000).await);
        assert_eq!(known.in_use().tenants, [(tenant(1), 1)]);
        is_asked(&known, 200, 1_999).await;
        assert_eq!(known.in_use().entries, 2);
    }

    #[tokio::test]
    async fn the_operator_clears_one_tenant_or_all() {
        let known = TenantFacts::new("answers");
        for number in 1..=3 {
            is_asked(&known, number, 0).await;
        }
        assert_eq!((known.clear(Some(tenant(2))), known.clear(Some(tenant(2)))), (1, 0));
        assert!(is_asked(&known, 2, 0).await && !is_asked(&known, 1, 0).await);
        assert_eq!((known.clear(None), known.in_use().entries), (3, 0));
    }

    #[tokio::test]
    async fn what_is_forgotten_while_it_is_asked_for_stays_forgotten() {
        let known: TenantFacts<(), u32> = TenantFacts::new("answers");
        let ask = async || {
            known.forget(tenant(1));
            Ok(1)
        };
        assert!(matches!(known.get(tenant(1), (), at(0), ask).await, Ok(1)));
        assert_eq!(known.in_use().entries, 0);
        assert!(is_asked(&known, 1, 0).await);
    }
}
