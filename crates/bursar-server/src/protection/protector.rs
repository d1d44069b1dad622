//! Applies protection to a request: the decision, the response, a log line, a metric, and a row for
//! the operator.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use bursar_core::{
    Dimension, IntegrationId, ProtectionDecision, RecordMode, RecordOutcome, RecordRefusal,
    TenantId, Timestamp,
};
use bursar_store::{Cache, Ledger, OverrideRow, Store, StoreError};

use super::route_protection::{RefusalMode, RouteProtection};
use super::rule::{ProtectedRequest, WindowOwner};
use super::signals::{Signal, SignalLog, signal_log};
use super::tenant_facts::TenantFacts;
use super::thresholds::Thresholds;
use super::windows::Windows;
use crate::auth::caller::CallerTenant;
use crate::jobs::monotonic_clock::MonotonicClock;
use crate::observe::metrics::Metrics;
use crate::wire::error::ApiError;

/// The log target.
const TARGET: &str = "bursar::protection";

/// The caller of a request to a route of a tenant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProtectedCaller {
    pub(crate) tenant: CallerTenant,
    /// The integration of an integration key.
    pub(crate) integration_id: Option<IntegrationId>,
    /// Whether the operator acts on the tenant.
    pub(crate) is_operator: bool,
}

/// Protects one node: windows, thresholds with their overrides, and signals.
///
/// Every node counts the requests that it sees itself. Windows and caches use a monotonic clock.
/// The store's time only determines the end of overrides, and what is shown.
pub struct Protector {
    thresholds: Thresholds,
    store: Arc<dyn Store>,
    clock: MonotonicClock,
    metrics: Arc<Metrics>,
    windows: Windows,
    overrides: TenantFacts<Arc<[OverrideRow]>>,
    signals: SignalLog,
}

impl Protector {
    /// Creates the built-in protection with these thresholds and this number of protected routes.
    pub(crate) fn new(
        (thresholds, routes): (Thresholds, u32),
        store: Arc<dyn Store>,
        clock: MonotonicClock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            thresholds,
            store,
            clock,
            metrics,
            windows: Windows::counting(routes),
            overrides: TenantFacts::new("protection-overrides"),
            signals: signal_log(routes),
        }
    }

    /// Forgets the cached overrides of a tenant after a change on this node.
    pub(crate) fn forget(&self, tenant_id: TenantId) {
        self.overrides.forget(tenant_id);
    }

    /// Its in-memory caches.
    pub(crate) fn caches(&self) -> [&dyn Cache; 3] {
        [&self.windows, &self.overrides, &self.signals]
    }

    /// Writes the signals since the last call.
    ///
    /// # Errors
    /// [`StoreError`]. The next call tries again.
    pub async fn write(&self, ledger: &Ledger) -> Result<(), StoreError> {
        self.signals.write(ledger).await
    }

    /// Admits or refuses a request of a tenant.
    ///
    /// Requests of the operator are admitted. The refusal of usage records is left in the request;
    /// the handler extracts it as [`RecordsProtection`].
    ///
    /// # Errors
    /// The refusal.
    pub(crate) async fn protect(
        &self,
        caller: ProtectedCaller,
        route: &'static RouteProtection,
        request: &mut Request,
    ) -> Result<(), ApiError> {
        let asked = self.protected(caller, route).await;
        let decision = match route.refusal {
            _ if caller.is_operator => {
                self.count(route, &asked);
                return Ok(());
            }
            RefusalMode::Never => {
                self.count(route, &asked);
                return Ok(());
            }
            RefusalMode::AtOnce | RefusalMode::UnlessKnown => {
                self.windows.ask(&asked, |rule, request| rule.decide(request))
            }
        };
        let Some(error) = ApiError::protection(&decision) else {
            self.report(route, &asked, decision);
            return Ok(());
        };
        if route.refusal == RefusalMode::UnlessKnown {
            request.extensions_mut().insert(Refused { route, asked, decision, error });
            return Ok(());
        }
        self.report(route, &asked, decision);
        Err(error)
    }

    /// Collects what the decision depends on.
    async fn protected(
        &self,
        caller: ProtectedCaller,
        route: &'static RouteProtection,
    ) -> ProtectedRequest {
        let ProtectedCaller { tenant, integration_id, .. } = caller;
        let tenant_id = tenant.tenant_id;
        let (now, asked_at) = (self.store.now(), self.clock.elapsed());
        let thresholds = self.thresholds(tenant, now, asked_at).await;
        let thresholds =
            thresholds.unwrap_or_else(|_| self.thresholds.of_tenant(tenant.onboarding, []));
        let RouteProtection { route, class, .. } = *route;
        let owner = WindowOwner { tenant_id, integration_id };
        // Read again, because the store may have taken some time and the wait starts now.
        let elapsed = self.clock.elapsed();
        ProtectedRequest { owner, route, class, thresholds, now, elapsed }
    }

    /// The thresholds of a tenant, including its overrides.
    async fn thresholds(
        &self,
        tenant: CallerTenant,
        now: Timestamp,
        elapsed: Duration,
    ) -> Result<Thresholds, StoreError> {
        let CallerTenant { tenant_id, onboarding, .. } = tenant;
        let ask = async || self.store.protection_overrides(tenant_id, now).await.map(Arc::from);
        let overrides = self.overrides.get(tenant_id, elapsed, ask).await?;
        let in_force = overrides.iter().filter(|row| row.expires_at > now);
        let in_force = in_force.map(|row| (row.dimension, row.allowed_value));
        Ok(self.thresholds.of_tenant(onboarding, in_force))
    }

    /// Counts a request that passes whatever its thresholds say.
    fn count(&self, route: &'static RouteProtection, asked: &ProtectedRequest) {
        let decision = self.windows.ask(asked, |rule, request| rule.count(request));
        self.report(route, asked, decision);
    }

    /// Records a decision other than "allow" in the metrics, the log and the signals.
    fn report(
        &self,
        route: &'static RouteProtection,
        asked: &ProtectedRequest,
        decision: ProtectionDecision,
    ) {
        let Some(breach) = decision.breach() else { return };
        let WindowOwner { tenant_id, integration_id } = asked.owner;
        self.metrics.protected(breach.dimension, &decision);
        tracing::warn!(
            target: TARGET,
            event = "abuse_protection_triggered",
            %tenant_id,
            integration_id = integration_id.map(tracing::field::display),
            dimension = breach.dimension.as_str(),
            action = decision.as_str(),
            endpoint = route.endpoint,
            operation = route.operation,
            current_value = breach.current_value,
            allowed_value = breach.allowed_value,
            retry_after_ms = breach.retry_after_ms,
            anomaly = (breach.dimension == Dimension::Anomaly).then_some(true),
        );
        let (elapsed, at) = (asked.elapsed, asked.now);
        self.signals.note(Signal { tenant_id, route, decision, elapsed, at });
    }
}

/// The refusal of usage records that the ledger completes.
#[derive(Clone)]
struct Refused {
    route: &'static RouteProtection,
    asked: ProtectedRequest,
    decision: ProtectionDecision,
    error: ApiError,
}

/// Whether the ledger may take all records of a request, or only those of known calls.
///
/// The ledger finds the known calls in the transaction that records them.
pub(crate) struct RecordsProtection(Option<Box<Refused>>);

impl<S: Send + Sync> FromRequestParts<S> for RecordsProtection {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.remove().map(Box::new)))
    }
}

impl RecordsProtection {
    /// Which records the ledger may take.
    pub(crate) const fn mode(&self) -> RecordMode {
        match self.0 {
            None => RecordMode::Any,
            Some(_) => RecordMode::KnownOnly,
        }
    }

    /// Reports records that were refused because too many of them wait already.
    pub(crate) fn note_overload(self, protector: &Protector, error: &StoreError) {
        if let (Some(refused), StoreError::Overloaded) = (self.0, error) {
            let Refused { route, asked, decision, .. } = *refused;
            protector.report(route, &asked, decision);
        }
    }

    /// Reports the results. Returns the error for the records that were refused, if any.
    ///
    /// # Errors
    /// The refusal of the whole request, if all of its records were refused.
    pub(crate) fn conclude(
        self,
        protector: &Protector,
        outcomes: &[RecordOutcome],
    ) -> Result<Option<ApiError>, ApiError> {
        let Some(refused) = self.0 else { return Ok(None) };
        let Refused { route, asked, decision, error } = *refused;
        let is_refused = |outcome: &RecordOutcome| {
            *outcome == RecordOutcome::Refused(RecordRefusal::UnknownCall)
        };
        if outcomes.iter().all(is_refused) {
            protector.report(route, &asked, decision);
            return Err(error);
        }
        protector.count(route, &asked);
        if !outcomes.iter().any(is_refused) {
            return Ok(None);
        }
        protector.report(route, &asked, decision);
        Ok(Some(error))
    }
}
