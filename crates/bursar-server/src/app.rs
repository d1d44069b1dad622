//! The state that handlers and middleware share: services, each of which got what it needs when it
//! was made.
//!
//! Only `api/`, `middleware/` and what builds them import it. Extractors below name the service that
//! they need and get it by [`FromRef`].

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
use crate::protection::Protector;
use crate::wire::body::BodyReader;

/// The server without its sockets. Cloning shares it.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What an [`App`] is made of.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub ledger: Ledger,
    /// What windows and pauses move by.
    pub monotonic_clock: MonotonicClock,
    pub secret_key: Arc<SecretKey>,
    /// Proves the operator.
    pub operator_token: Arc<Secret>,
    pub authenticator: Arc<Authenticator>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// Which references the operator may set.
    pub allowed_prefixes: AllowedPrefixes,
    /// How many rows of a kind a tenant may have.
    pub tenant_caps: TenantCaps,
    /// Keys that were seen a moment ago.
    pub key_cache: Arc<KeyCache>,
    /// Credentials that proved nobody.
    pub failed_logins: Arc<FailedLogins>,
    /// Who vouches for people.
    pub issuers: Arc<Issuers>,
    /// How far tenants have come in setting themselves up.
    pub onboarding: Arc<Onboarding>,
    /// Which keys were used since it was written down last.
    pub key_uses: Arc<KeyUses>,
    /// Decisions that someone may ask about.
    pub decision_log: DecisionLog,
    /// Keeps the server from what its tenants send too much of.
    pub protection: Protector,
    /// Whether the database answers, when it is not a part of this process.
    pub database_probe: Option<DatabaseProbe>,
    /// Takes bodies of requests in.
    pub bodies: Arc<BodyReader>,
    /// What large answers are read and written with.
    pub answers: LargeAnswers,
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
    type Target = Parts;

    fn deref(&self) -> &Parts {
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
