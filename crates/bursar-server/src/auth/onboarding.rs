//! The onboarding state of tenants, derived from what they do and never from what they claim.
//!
//! A step is written when it is reached, before the call that reached it is answered, so that the
//! client can read it at once. It never blocks that call: if the write fails, the tenant's next
//! call tries again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_core::{OnboardingState, TenantId};
use bursar_store::{Actor, Cache, CacheUse, Control, ControlTx, Ledger};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::auth::caller::CallerTenant;
use crate::auth::key_cache::KeyCache;

/// The longest wait for the write of a step.
const WRITE_MAX: Duration = Duration::from_secs(1);
/// How long to wait after a failed write before the next attempt for the same tenant.
const PAUSE: Duration = Duration::from_secs(1);
/// Tenants whose pause is remembered.
const PAUSES_MAX: usize = 10_000;

/// Tenants whose last write failed a moment ago.
#[derive(Default)]
struct Pauses(Mutex<HashMap<TenantId, Instant>>);

impl Pauses {
    fn holds(&self, tenant_id: TenantId) -> bool {
        self.0.lock().get(&tenant_id).is_some_and(|since| since.elapsed() < PAUSE)
    }

    fn begin(&self, tenant_id: TenantId) {
        let mut pauses = self.0.lock();
        if pauses.len() >= PAUSES_MAX {
            pauses.retain(|_, since| since.elapsed() < PAUSE);
        }
        if pauses.len() < PAUSES_MAX {
            pauses.insert(tenant_id, Instant::now());
        }
    }
}

impl Cache for Pauses {
    fn name(&self) -> &'static str {
        "onboarding-pauses"
    }

    fn in_use(&self) -> CacheUse {
        let pauses = self.0.lock();
        CacheUse {
            entries: pauses.len(),
            entries_max: PAUSES_MAX,
            tenant_entries_max: 1,
            tenants: pauses.keys().map(|tenant_id| (*tenant_id, 1)).collect(),
            ..CacheUse::default()
        }
    }

    fn clear(&self, tenant_id: Option<TenantId>) -> usize {
        let mut pauses = self.0.lock();
        match tenant_id {
            Some(tenant_id) => usize::from(pauses.remove(&tenant_id).is_some()),
            None => std::mem::take(&mut *pauses).len(),
        }
    }
}

/// Writes the onboarding state of tenants.
pub(crate) struct Onboarding {
    ledger: Ledger,
    key_cache: Arc<KeyCache>,
    pauses: Pauses,
}

impl Onboarding {
    pub(crate) fn new(ledger: Ledger, key_cache: Arc<KeyCache>) -> Self {
        Self { ledger, key_cache, pauses: Pauses::default() }
    }

    /// The tenants for which no write is tried at the moment.
    pub(crate) fn pauses(&self) -> &dyn Cache {
        &self.pauses
    }

    /// Advances a tenant to a step, unless it is there already. Returns the state.
    pub(crate) async fn reach(
        &self,
        tenant: CallerTenant,
        step: OnboardingState,
        actor: &Actor,
    ) -> OnboardingState {
        let CallerTenant { tenant_id, onboarding, .. } = tenant;
        if onboarding >= step || self.pauses.holds(tenant_id) {
            return onboarding;
        }
        let actor = actor.clone();
        let change = move |tx: &mut dyn ControlTx| {
            Control::new(tx, &actor, tenant_id).advance_onboarding(step)
        };
        match timeout(WRITE_MAX, self.ledger.change(tenant_id, change)).await {
            Ok(Ok(Ok(row))) => {
                self.key_cache.forget(tenant_id);
                row.onboarding
            }
            // The tenant was deleted or terminated, so there is nothing to advance.
            Ok(Ok(Err(_))) => onboarding,
            Ok(Err(_)) | Err(_) => {
                let step = step.as_str();
                tracing::debug!(
                    %tenant_id,
                    step,
                    "an onboarding step was not saved; it is tried again later"
                );
                self.pauses.begin(tenant_id);
                onboarding
            }
        }
    }
}
