//! What every handler shares.

use std::sync::Arc;

use bursar_store::{Cache, Ledger, Store, TenantCaps};

use crate::auth::admit::KeyCache;
use crate::auth::failed_logins::FailedLogins;
use crate::auth::oidc::Issuers;
use crate::auth::onboarding::Pauses;
use crate::auth::secret::{Secret, SecretKey};
use crate::credentials::reference::AllowedPrefixes;
use crate::http::fixed_text::Documents;
use crate::http::memory_budget::ByteBudget;
use crate::http::work_pool::WorkPool;
use crate::jobs::database_probe::Pulse;
use crate::jobs::decision_log::DecisionLog;
use crate::jobs::key_uses::KeyUses;
use crate::jobs::monotonic_clock::MonotonicClock;
use crate::observe::metrics::Metrics;
use crate::protection::Protector;
use crate::wire::body::BodyLimits;

/// The server without its sockets. Cloning shares it.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What an [`App`] is made of.
pub struct Parts {
    /// Reads.
    pub store: Arc<dyn Store>,
    /// Writes.
    pub ledger: Ledger,
    /// What windows and pauses move by.
    pub monotonic_clock: MonotonicClock,
    /// Hashes keys.
    pub secret_key: SecretKey,
    /// Proves the operator.
    pub operator_token: Secret,
    /// Proves whoever scrapes the metrics, if it was configured.
    pub metrics_token: Option<Secret>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// Which references the operator may set.
    pub allowed_prefixes: AllowedPrefixes,
    /// How many rows of a kind a tenant may have.
    pub tenant_caps: TenantCaps,
    /// Keys that were seen a moment ago.
    pub key_cache: KeyCache,
    /// Credentials that proved nobody.
    pub failed_logins: FailedLogins,
    /// Who vouches for people.
    pub issuers: Issuers,
    /// Tenants whose onboarding could not be written a moment ago.
    pub onboarding_pauses: Pauses,
    /// Which keys were used since it was written down last.
    pub key_uses: KeyUses,
    /// Decisions that someone may ask about.
    pub decision_log: DecisionLog,
    /// Keeps the server from what its tenants send too much of.
    pub protection: Protector,
    /// Whether the database answers, when it is not a part of this process.
    pub pulse: Option<Pulse>,
    /// What bodies of requests may cost.
    pub body_limits: BodyLimits,
    /// Threads that read large and compressed bodies.
    pub decode_pool: WorkPool,
    /// Threads that write large answers.
    pub answer_pool: WorkPool,
    /// The bytes of all large answers to tenants, from the first row until they are taken.
    pub answer_budget: ByteBudget,
    /// Those to the operator, so that nobody else keeps it from seeing the server.
    pub operator_answers: ByteBudget,
    /// Those to callers who prove nothing.
    pub anonymous_answers: ByteBudget,
    /// The description of the API.
    pub documents: &'static Documents,
    /// The bytes of all exports that are open.
    pub export_budget: ByteBudget,
}

impl App {
    /// An app of these parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// What this node keeps in memory for a while.
    pub fn caches(&self) -> Vec<&dyn Cache> {
        let mut caches: Vec<&dyn Cache> = vec![
            &self.key_cache,
            &self.key_uses,
            &self.decision_log,
            &self.onboarding_pauses,
            &self.failed_logins,
        ];
        caches.extend(self.protection.caches());
        caches.extend(self.metrics.caches());
        caches.extend(self.store.caches());
        caches
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
