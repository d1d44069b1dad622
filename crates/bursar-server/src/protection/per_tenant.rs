//! Answers of the store about tenants, each asked for at most once a second.

use std::collections::HashMap;
use std::sync::Arc;

use bursar_core::{TenantId, Timestamp};
use bursar_store::StoreError;
use parking_lot::RwLock;
use tokio::sync::Mutex;

/// How long an answer is taken for true, by the clock that decides.
const LIFE_MICROS: u64 = 1_000_000;
/// Tenants of which something is remembered.
const TENANTS_MAX: usize = 20_000;

/// What the store said of each tenant a moment ago, or that it could not say.
///
/// Whoever asks for a tenant at the same time waits for one question, so that a flood of requests
/// is none to the store.
pub(super) struct PerTenant<T>(RwLock<HashMap<TenantId, Arc<Slot<T>>>>);

struct Slot<T> {
    known: RwLock<Option<Known<T>>>,
    /// Whoever asks holds it.
    asking: Mutex<()>,
}

struct Known<T> {
    at: Timestamp,
    answer: Result<T, StoreError>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { known: RwLock::default(), asking: Mutex::default() }
    }
}

impl<T: Clone> Slot<T> {
    /// What the store said less than a second ago.
    fn fresh(&self, now: Timestamp) -> Option<Result<T, StoreError>> {
        let known = self.known.read();
        let Known { at, answer } = known.as_ref()?;
        (at.micros().abs_diff(now.micros()) < LIFE_MICROS).then(|| answer.clone())
    }
}

impl<T> Default for PerTenant<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T: Clone> PerTenant<T> {
    /// What is known, or what `ask` brings.
    ///
    /// # Errors
    /// What the store said, also to whoever asks within the same second.
    pub(super) async fn get<F: Future<Output = Result<T, StoreError>>>(
        &self,
        tenant_id: TenantId,
        now: Timestamp,
        ask: impl FnOnce() -> F,
    ) -> Result<T, StoreError> {
        let slot = self.slot(tenant_id);
        if let Some(answer) = slot.fresh(now) {
            return answer;
        }
        let _asking = slot.asking.lock().await;
        // Whoever asked before may have asked for this one too.
        if let Some(answer) = slot.fresh(now) {
            return answer;
        }
        let answer = ask().await;
        if let Err(error) = &answer {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, %tenant_id, "what protection asks of storage is not answered");
        }
        *slot.known.write() = Some(Known { at: now, answer: answer.clone() });
        answer
    }

    /// Forgets what is known of a tenant.
    pub(super) fn forget(&self, tenant_id: TenantId) {
        self.0.write().remove(&tenant_id);
    }

    fn slot(&self, tenant_id: TenantId) -> Arc<Slot<T>> {
        if let Some(slot) = self.0.read().get(&tenant_id) {
            return Arc::clone(slot);
        }
        let mut slots = self.0.write();
        // Asked anew, all of them together are one question a tenant.
        if slots.len() >= TENANTS_MAX {
            slots.clear();
        }
        Arc::clone(slots.entry(tenant_id).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn tenant(number: i64) -> TenantId {
        TenantId::from_number(number).expect("in range")
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_micros(1_763_640_000_000_000 + millis * 1_000).expect("in range")
    }

    #[tokio::test]
    async fn the_store_is_asked_once_a_second_however_many_ask() {
        let known: PerTenant<u32> = PerTenant::default();
        let asked = AtomicU32::new(0);
        let get = |number: i64, millis| {
            known.get(tenant(number), at(millis), || async {
                tokio::task::yield_now().await;
                Ok(asked.fetch_add(1, Ordering::Relaxed))
            })
        };
        let together = futures_util::future::join_all((0..50).map(|_| get(1, 0))).await;
        assert!(together.iter().all(|answer| matches!(answer, Ok(0))), "{together:?}");
        assert!(matches!(get(1, 999).await, Ok(0)));
        assert!(matches!(get(2, 999).await, Ok(1)), "another tenant is another question");
        assert!(matches!(get(1, 1_000).await, Ok(2)));
        assert!(matches!(get(1, -5_000).await, Ok(3)), "a clock that went back");
        known.forget(tenant(1));
        assert!(matches!(get(1, -5_000).await, Ok(4)));
    }

    #[tokio::test]
    async fn what_is_not_answered_is_not_asked_again_within_the_second() {
        let known: PerTenant<u32> = PerTenant::default();
        let refused = known.get(tenant(1), at(0), || async { Err(StoreError::Closed) }).await;
        assert!(matches!(refused, Err(StoreError::Closed)));
        let refused = known.get(tenant(1), at(999), || async { Ok(7) }).await;
        assert!(matches!(refused, Err(StoreError::Closed)));
        assert!(matches!(known.get(tenant(1), at(1_000), || async { Ok(7) }).await, Ok(7)));
    }

    #[tokio::test]
    async fn however_many_tenants_come_memory_is_bounded() {
        let known: PerTenant<u32> = PerTenant::default();
        for number in 1..=2 * TENANTS_MAX as i64 + 1 {
            assert!(known.get(tenant(number), at(0), || async { Ok(1) }).await.is_ok());
        }
        assert!(known.0.read().len() <= TENANTS_MAX);
    }
}
