//! Answers of the store about tenants, each asked for at most once a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bursar_core::TenantId;
use bursar_store::StoreError;
use parking_lot::RwLock;
use tokio::sync::Mutex;

/// How long an answer is taken for true, by a monotonic clock.
const LIFE: Duration = Duration::from_secs(1);
/// Tenants of which something is remembered.
const TENANTS_MAX: usize = 20_000;

/// What the store said of each tenant a moment ago, or that it could not say.
///
/// Whoever asks for a tenant at the same time waits for one question, so that a flood of requests
/// is none to the store. An answer is good for the same question only.
pub(super) struct PerTenant<Q, T>(RwLock<HashMap<TenantId, Arc<Slot<Q, T>>>>);

struct Slot<Q, T> {
    known: RwLock<Option<Known<Q, T>>>,
    /// Whoever asks holds it.
    asking: Mutex<()>,
}

struct Known<Q, T> {
    question: Q,
    /// When it was asked.
    at: Duration,
    answer: Result<T, StoreError>,
}

impl<Q, T> Default for Slot<Q, T> {
    fn default() -> Self {
        Self { known: RwLock::default(), asking: Mutex::default() }
    }
}

impl<Q: PartialEq, T: Clone> Slot<Q, T> {
    /// What the store said to this question less than a second ago.
    fn fresh(&self, asked: &Q, elapsed: Duration) -> Option<Result<T, StoreError>> {
        let known = self.known.read();
        let Known { question, at, answer } = known.as_ref()?;
        let is_fresh = question == asked && elapsed.saturating_sub(*at) < LIFE;
        is_fresh.then(|| answer.clone())
    }
}

impl<Q, T> Default for PerTenant<Q, T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<Q: PartialEq, T: Clone> PerTenant<Q, T> {
    /// What is known, or what `ask` brings, at this instant of a monotonic clock.
    ///
    /// # Errors
    /// What the store said, also to whoever asks within the same second.
    pub(super) async fn get<F: Future<Output = Result<T, StoreError>>>(
        &self,
        tenant_id: TenantId,
        question: Q,
        elapsed: Duration,
        ask: impl FnOnce() -> F,
    ) -> Result<T, StoreError> {
        let slot = self.slot(tenant_id);
        if let Some(answer) = slot.fresh(&question, elapsed) {
            return answer;
        }
        let _asking = slot.asking.lock().await;
        // Whoever asked before may have asked for this one too.
        if let Some(answer) = slot.fresh(&question, elapsed) {
            return answer;
        }
        let answer = ask().await;
        if let Err(error) = &answer {
            let error = error as &dyn std::error::Error;
            tracing::error!(error, %tenant_id, "what protection asks of storage is not answered");
        }
        *slot.known.write() = Some(Known { question, at: elapsed, answer: answer.clone() });
        answer
    }

    /// Forgets what is known of a tenant.
    pub(super) fn forget(&self, tenant_id: TenantId) {
        self.0.write().remove(&tenant_id);
    }

    fn slot(&self, tenant_id: TenantId) -> Arc<Slot<Q, T>> {
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

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[tokio::test]
    async fn the_store_is_asked_once_a_second_however_many_ask() {
        let known: PerTenant<(), u32> = PerTenant::default();
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
        let known: PerTenant<u32, u32> = PerTenant::default();
        for question in [7, 8, 7] {
            let answer = known.get(tenant(1), question, at(0), || async move { Ok(question) });
            assert!(matches!(answer.await, Ok(answer) if answer == question));
        }
    }

    #[tokio::test]
    async fn what_is_not_answered_is_not_asked_again_within_the_second() {
        let known: PerTenant<(), u32> = PerTenant::default();
        let refused = known.get(tenant(1), (), at(0), || async { Err(StoreError::Closed) }).await;
        assert!(matches!(refused, Err(StoreError::Closed)));
        let refused = known.get(tenant(1), (), at(999), || async { Ok(7) }).await;
        assert!(matches!(refused, Err(StoreError::Closed)));
        assert!(matches!(known.get(tenant(1), (), at(1_000), || async { Ok(7) }).await, Ok(7)));
    }

    #[tokio::test]
    async fn however_many_tenants_come_memory_is_bounded() {
        let known: PerTenant<(), u32> = PerTenant::default();
        for number in 1..=2 * TENANTS_MAX as i64 + 1 {
            assert!(known.get(tenant(number), (), at(0), || async { Ok(1) }).await.is_ok());
        }
        assert!(known.0.read().len() <= TENANTS_MAX);
    }
}
