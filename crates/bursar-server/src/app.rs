//! The state that handlers and middleware share.
//!
//! It is a set of services; each was given what it needs when it was created. Only `api/`,
//! `middleware/` and the modules that build them import it. An extractor below names the service it
//! needs and gets it through [`FromRef`].

use std::sync::Arc;

use axum::extract::FromRef;
use bursar_store::{Cache, Ledger, Store, TenantCaps};

use crate::auth::authenticator::Authenticator;
use crate::auth::failed_logins::FailedLogins;
use crate::auth::key_cache::KeyCache;
use crate::auth::oidc::Issuers;
use crate::auth::onboarding::Onboarding;
use crate::auth::secret::{Secret, SecretKey};
use crate::credentials::reference::AllowedPrefixes;
use crate::http::answer_memory::LargeAnswers;
use crate::http::fixed_text::Documents;
use crate::http::memory_budget::ByteBudget;
use crate::jobs::database_probe::DatabaseProbe;
use crate::jobs::decision_log::DecisionLog;
use crate::jobs::key_uses::KeyUses;
use crate::jobs::monotonic_clock::MonotonicClock;
use crate::observe::metrics::Metrics;
use crate::protection::protector::Protector;
use crate::wire::body::BodyReader;

/// The server without its sockets. Clones share the state.
#[derive(Clone)]
pub struct App(Arc<Services>);

/// The services of an [`App`].
pub struct Services {
    pub store: Arc<dyn Store>,
    pub ledger: Ledger,
    /// The time of windows and pauses.
    pub(crate) monotonic_clock: MonotonicClock,
    pub secret_key: Arc<SecretKey>,
    /// Authenticates the operator.
    pub(crate) operator_token: Arc<Secret>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub metrics: Arc<Metrics>,
    /// The credential references that the operator may set.
    pub(crate) allowed_prefixes: AllowedPrefixes,
    /// The most rows of each kind that a tenant may have.
    pub(crate) tenant_caps: TenantCaps,
    /// Callers whose key was verified within the last second.
    pub(crate) key_cache: Arc<KeyCache>,
    /// Counts failed logins for the log.
    pub(crate) failed_logins: Arc<FailedLogins>,
    /// Verifies the tokens of people.
    pub(crate) issuers: Arc<Issuers>,
    /// Advances the onboarding state of tenants.
    pub(crate) onboarding: Arc<Onboarding>,
    /// The last use of keys, until it is written.
    pub key_uses: Arc<KeyUses>,
    /// Decisions other than "allowed", until they are written.
    pub decision_log: DecisionLog,
    /// Refuses requests of tenants that send too many.
    pub protection: Protector,
    /// Probes a shared database. `None` for the embedded store, which is part of this process.
    pub(crate) database_probe: Option<DatabaseProbe>,
    /// Reads and decodes request bodies.
    pub bodies: Arc<BodyReader>,
    /// Resources for reading and encoding large responses.
    pub answers: LargeAnswers,
    /// The OpenAPI document and its page.
    pub(crate) documents: &'static Documents,
    /// The memory of all open exports.
    pub(crate) export_budget: ByteBudget,
}

impl App {
    pub(crate) fn new(services: Services) -> Self {
        Self(Arc::new(services))
    }

    /// All in-memory caches of this node.
    pub(crate) fn caches(&self) -> Vec<&dyn Cache> {
        let mut caches: Vec<&dyn Cache> = vec![
            self.key_cache.as_ref(),
            self.key_uses.as_ref(),
            &self.decision_log,
            self.onboarding.pauses(),
            self.failed_logins.as_ref(),
        ];
        caches.extend(self.protection.caches());
        caches.extend(self.metrics.caches());
        caches.extend(self.store.caches());
        caches
    }
}

impl std::ops::Deref for App {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}

impl FromRef<App> for Arc<Authenticator> {
    fn from_ref(app: &App) -> Self {
        Self::clone(&app.authenticator)
    }
}

impl FromRef<App> for Arc<BodyReader> {
    fn from_ref(app: &App) -> Self {
        Self::clone(&app.bodies)
    }
}

impl FromRef<App> for LargeAnswers {
    fn from_ref(app: &App) -> Self {
        app.answers.clone()
    }
}
