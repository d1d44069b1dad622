//! Protection of the server from what its tenants send: should this request go on now?
//!
//! Beside the rule ([`rule::Protection`]) here is what it needs to know of a request (its route, the tenant's thresholds, what the tenant spent today) and what becomes of a
//! decision: an answer, a line of the log, a metric, and a row that the operator can read.
//! Deliberately absent: who calls, which is proved before.

pub mod counting;
mod route_protection;
pub mod rule;
mod signals;
mod tenant_facts;
pub mod thresholds;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use bursar_core::{
    Day, Dimension, IntegrationId, ProtectionDecision, RecordMode, RecordOutcome, RecordRefusal,
    TenantId, Timestamp,
};
use bursar_store::{Cache, Ledger, OverrideRow, Store, StoreError};

pub use self::route_protection::{RefusalMode, RouteProtection};
use self::rule::{ProtectedRequest, WindowOwner};
use self::signals::{SignalLog, SignalTime};
use self::tenant_facts::TenantFacts;
use self::thresholds::Thresholds;
use self::windows::Windows;
use crate::auth::caller::CallerTenant;
use crate::jobs::monotonic_clock::MonotonicClock;
use crate::observe::metrics::Metrics;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

pub(crate) use self::signals::KEPT as SIGNALS_KEPT;

/// The target of the lines about what protection did.
const TARGET: &str = "bursar::protection";

/// Who sends a request of a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    pub tenant: CallerTenant,
    /// The integration whose key the request came with.
    pub integration_id: Option<IntegrationId>,
    /// Whether the operator acts on the tenant.
    pub is_operator: bool,
}

/// What protects one node: the rule, what tenants have instead of the configured thresholds, and
/// what was done.
///
/// Every node counts what it sees itself; only what a tenant spent is read from the store. Windows
/// and caches move by a monotonic clock; the store's time only tells the day whose cost is guarded,
/// when overrides end, and what is shown.
pub struct Protector {
    thresholds: Thresholds,
    store: Arc<dyn Store>,
    clock: MonotonicClock,
    metrics: Arc<Metrics>,
    windows: Windows,
    overrides: TenantFacts<(), Arc<[OverrideRow]>>,
    costs: TenantFacts<Day, i128>,
    signals: SignalLog,
}

impl Protector {
    /// A protector with these thresholds and the rule that is built in, for a server with so many routes
    /// of tenants.
    pub fn new(
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
            costs: TenantFacts::new("protection-costs"),
            signals: SignalLog::new(routes),
        }
    }

    /// Forgets which thresholds a tenant has: they were changed here.
    pub fn forget(&self, tenant_id: TenantId) {
        self.overrides.forget(tenant_id);
    }

    /// What it keeps in memory.
    pub fn caches(&self) -> [&dyn Cache; 4] {
        [&self.windows, &self.overrides, &self.costs, &self.signals]
    }

    /// Writes what was done since the last call.
    ///
    /// # Errors
    /// [`StoreError`]; it is tried again with the next call.
    pub async fn write(&self, ledger: &Ledger) -> Result<(), StoreError> {
        self.signals.write(ledger).await
    }

    /// Lets a tenant's request go on, or refuses it; what the operator does to the tenant goes on,
    /// but for decisions about money. Of telemetry the refusal is left with the request, for its
    /// handler to ask for as [`RecordsProtection`].
    ///
    /// # Errors
    /// The refusal; 503 when money is guarded and what was spent cannot be read.
    pub async fn protect(
        &self,
        sender: Sender,
        route: &'static RouteProtection,
        request: &mut Request,
    ) -> Result<(), ApiError> {
        let asked = self.protected(sender, route).await?;
        let decision = match route.refusal {
            _ if sender.is_operator && !route.is_cost_guarded => {
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
            self.tell(route, &asked, decision);
            return Ok(());
        };
        if route.refusal == RefusalMode::UnlessKnown {
            request.extensions_mut().insert(Refused { route, asked, decision, error });
            return Ok(());
        }
        self.tell(route, &asked, decision);
        Err(error)
    }

    /// What the rule has to know of a request.
    async fn protected(
        &self,
        sender: Sender,
        route: &RouteProtection,
    ) -> Result<ProtectedRequest, ApiError> {
        let Sender { tenant, integration_id, .. } = sender;
        let tenant_id = tenant.tenant_id;
        let (now, asked_at) = (self.store.now(), self.clock.elapsed());
        let unavailable = |_| ApiError::of(ErrorCode::Unavailable);
        let thresholds = match self.thresholds(tenant, now, asked_at).await {
            Ok(thresholds) => thresholds,
            // Where money is guarded, a limit that cannot be read is no limit that does not exist.
            Err(error) if route.is_cost_guarded => return Err(unavailable(error)),
            Err(_) => self.thresholds.of_tenant(tenant.onboarding, []),
        };
        let mut cost_nanos_day = None;
        if route.is_cost_guarded && thresholds.cost_cents_day > 0 {
            let ask = || self.store.cost_of_day(tenant_id, now.day());
            let cost = self.costs.get(tenant_id, now.day(), asked_at, ask).await;
            cost_nanos_day = Some(cost.map_err(unavailable)?);
        }
        let RouteProtection { route, class, .. } = *route;
        let owner = WindowOwner { tenant_id, integration_id };
        // Read anew: the store may have taken its time, and a wait begins now.
        let elapsed = self.clock.elapsed();
        Ok(ProtectedRequest { owner, route, class, thresholds, cost_nanos_day, now, elapsed })
    }

    /// What a tenant is held to now.
    async fn thresholds(
        &self,
        tenant: CallerTenant,
        now: Timestamp,
        elapsed: Duration,
    ) -> Result<Thresholds, StoreError> {
        let CallerTenant { tenant_id, onboarding, .. } = tenant;
        let ask = async || self.store.protection_overrides(tenant_id).await.map(Arc::from);
        let overrides = self.overrides.get(tenant_id, (), elapsed, ask).await?;
        let in_force = overrides.iter().filter(|row| row.expires_at > now);
        let in_force = in_force.map(|row| (row.dimension, row.allowed_value));
        Ok(self.thresholds.of_tenant(onboarding, in_force))
    }

    /// Counts what goes on whatever its thresholds say.
    fn count(&self, route: &RouteProtection, asked: &ProtectedRequest) {
        let decision = self.windows.ask(asked, |rule, request| rule.count(request));
        self.tell(route, asked, decision);
    }

    /// Tells whoever watches of a decision other than "allow".
    fn tell(
        &self,
        route: &RouteProtection,
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
        let at = SignalTime { elapsed: asked.elapsed, time: asked.now };
        self.signals.note(tenant_id, route, decision, at);
    }
}

/// A refusal of telemetry, of which only known calls are recorded.
#[derive(Clone)]
struct Refused {
    route: &'static RouteProtection,
    asked: ProtectedRequest,
    decision: ProtectionDecision,
    error: ApiError,
}

/// What protection says of the records of a request: all of them are taken, or only those whose
/// call is known. The ledger decides which those are, in the transaction that records them.
pub struct RecordsProtection(Option<Box<Refused>>);

impl<S: Send + Sync> FromRequestParts<S> for RecordsProtection {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.remove().map(Box::new)))
    }
}

impl RecordsProtection {
    /// Which calls the records may be of.
    pub const fn mode(&self) -> RecordMode {
        match self.0 {
            None => RecordMode::Any,
            Some(_) => RecordMode::KnownOnly,
        }
    }

    /// Takes note of records that were refused before anyone looked whether their calls are known,
    /// because too many such wait.
    pub fn note_overload(self, protector: &Protector, error: &StoreError) {
        if let (Some(refused), StoreError::Overloaded) = (self.0, error) {
            let Refused { route, asked, decision, .. } = *refused;
            protector.tell(route, &asked, decision);
        }
    }

    /// Takes note of what became of the records, and tells what those hear that were refused here;
    /// nothing where none was.
    ///
    /// # Errors
    /// The refusal of the whole request, when none of its records went on.
    pub fn conclude(
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
            protector.tell(route, &asked, decision);
            return Err(error);
        }
        protector.count(route, &asked);
        if !outcomes.iter().any(is_refused) {
            return Ok(None);
        }
        protector.tell(route, &asked, decision);
        Ok(Some(error))
    }
}
