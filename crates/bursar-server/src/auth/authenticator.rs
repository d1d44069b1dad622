//! Proves callers by their credentials: keys by the store, people by their issuers, the operator by
//! the configured token.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, header};
use bursar_core::TenantId;
use bursar_store::{SecretHash, Store, StoreError};

use crate::auth::caller::{Caller, CallerTenant, Kind};
use crate::auth::failed_logins::{FailedLogin, FailedLogins};
use crate::auth::key_cache::KeyCache;
use crate::auth::oidc::{Issuers, Person, PersonError, TokenRefusal};
use crate::auth::onboarding::Onboarding;
use crate::auth::scopes::ScopeSet;
use crate::auth::secret::{KeyPrefix, OPERATOR_PREFIX, Secret, SecretKey, same_hash};
use crate::http::client_address::ClientAddress;
use crate::jobs::key_uses::KeyUses;
use crate::jobs::monotonic_clock::MonotonicClock;
use crate::observe::metrics::Metrics;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;

/// The header of an API key.
pub const API_KEY: HeaderName = HeaderName::from_static("x-aos-key");
/// The header of an integration key.
pub const INTEGRATION_KEY: HeaderName = HeaderName::from_static("x-cus-integration-key");

/// What callers are proved with.
pub struct Authenticator {
    /// Has keys and tenants, and tells the time.
    pub store: Arc<dyn Store>,
    pub secret_key: Arc<SecretKey>,
    /// Proves the operator.
    pub operator_token: Arc<Secret>,
    /// Proves whoever scrapes the metrics, if it was configured.
    pub metrics_token: Option<Secret>,
    /// Who vouches for people.
    pub issuers: Arc<Issuers>,
    /// Keys that were seen a moment ago.
    pub key_cache: Arc<KeyCache>,
    /// Which keys were used since it was written down last.
    pub key_uses: Arc<KeyUses>,
    /// Credentials that proved nobody.
    pub failed_logins: Arc<FailedLogins>,
    /// How far the tenants of callers have come.
    pub onboarding: Arc<Onboarding>,
    /// What failed logins are counted by.
    pub clock: MonotonicClock,
    /// Counts them too.
    pub metrics: Arc<Metrics>,
}

impl Authenticator {
    /// Who a request's credential proves. One that proves nobody is told to whoever watches.
    ///
    /// # Errors
    /// 401 when it proves nobody, 400 when there are several, and whatever storage says.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Arc<Caller>, ApiError> {
        let is_refused = |error: &ApiError| error.code() == ErrorCode::Unauthenticated;
        let presented = presented(headers).inspect_err(|error| {
            if is_refused(error) {
                self.note_failure(FailedLogin::Malformed);
            }
        })?;
        let presented = presented.ok_or_else(unauthenticated)?;
        let proved = self.prove(presented).await;
        if proved.as_ref().is_err_and(is_refused) {
            self.note_failure(presented.failure());
        }
        proved
    }

    pub(super) fn note_failure(&self, kind: FailedLogin) {
        self.metrics.failed_login(kind);
        let address = ClientAddress::current().map(|client| client.0);
        self.failed_logins.note(address, kind, self.clock.elapsed());
    }

    async fn prove(&self, presented: Presented<'_>) -> Result<Arc<Caller>, ApiError> {
        let Presented { kind, text } = presented;
        let hash = self.secret_key.hash(text);
        let missed = match self.key_cache.get(kind, &hash) {
            Ok(known) if known.is_expired(self.store.now()) => return Err(unauthenticated()),
            Ok(known) => return Ok(known),
            Err(missed) => missed,
        };
        let caller = match kind {
            Kind::Bearer if self.is_operator(&hash) => Some(Caller::Operator),
            Kind::Bearer if is_token(text) => Some(self.by_token(text).await?),
            Kind::Bearer | Kind::ApiKey => self.by_key(KeyPrefix::of_api_key(text), &hash).await?,
            Kind::Integration => self.by_key(KeyPrefix::of_integration_key(text), &hash).await?,
        };
        let caller = Arc::new(caller.ok_or_else(unauthenticated)?);
        if let Some((tenant_id, key)) = caller.key() {
            // Once a second at most: a key that is remembered was noted when it was read.
            self.key_uses.note(tenant_id, key, self.store.now());
        }
        self.key_cache.put(kind, hash, Arc::clone(&caller), missed);
        Ok(caller)
    }

    async fn by_key(
        &self,
        claimed: Option<KeyPrefix>,
        hash: &SecretHash,
    ) -> Result<Option<Caller>, StoreError> {
        let Some(KeyPrefix { tenant_id, integration_id, key_id }) = claimed else {
            return Ok(None);
        };
        let row = self.store.key(tenant_id, integration_id, key_id).await?;
        let Some(row) = row else { return Ok(None) };
        if !row.is_live(self.store.now()) || !same_hash(hash, &row.secret_hash) {
            return Ok(None);
        }
        let Some(tenant) = self.caller_tenant(tenant_id).await? else { return Ok(None) };
        let expires_at = row.expires_at;
        Ok(Some(match integration_id {
            None => {
                let scopes = row.scopes.as_deref().map(ScopeSet::stored).unwrap_or_default();
                Caller::Machine { tenant, key_id, scopes, expires_at }
            }
            Some(integration_id) => {
                Caller::Integration { tenant, integration_id, key_id, expires_at }
            }
        }))
    }

    async fn by_token(&self, token: &str) -> Result<Caller, ApiError> {
        let person = self.issuers.prove(token, self.store.now()).await?;
        let Person { tenant_id, subject, issuer, role, expires_at } = person;
        let tenant = self.caller_tenant(tenant_id).await?;
        // Nobody is told which tenants there are.
        let tenant = tenant.ok_or(PersonError::Refused(TokenRefusal::Tenant))?;
        // What one issuer calls someone, another may call someone else.
        Ok(Caller::Person { tenant, name: format!("{issuer}|{subject}"), role, expires_at })
    }

    pub(super) async fn caller_tenant(
        &self,
        tenant_id: TenantId,
    ) -> Result<Option<CallerTenant>, StoreError> {
        let tenant = self.store.tenant(tenant_id).await?;
        Ok(tenant.as_ref().map(CallerTenant::of))
    }

    fn is_operator(&self, hash: &SecretHash) -> bool {
        same_hash(hash, &self.secret_key.hash(self.operator_token.expose()))
    }

    pub(super) fn has_metrics_token(&self, headers: &HeaderMap) -> bool {
        let Ok(Some(Presented { kind: Kind::Bearer, text })) = presented(headers) else {
            return false;
        };
        let hash = |text| self.secret_key.hash(text);
        self.metrics_token
            .as_ref()
            .is_some_and(|token| same_hash(&hash(text), &hash(token.expose())))
    }
}

/// A credential as it came.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Presented<'a> {
    kind: Kind,
    text: &'a str,
}

impl Presented<'_> {
    /// What failed when it proves nobody, as far as its form tells.
    fn failure(&self) -> FailedLogin {
        match self.kind {
            Kind::Integration => FailedLogin::IntegrationKey,
            Kind::ApiKey => FailedLogin::ApiKey,
            Kind::Bearer if is_token(self.text) => FailedLogin::OidcToken,
            Kind::Bearer if self.text.starts_with(OPERATOR_PREFIX) => FailedLogin::OperatorToken,
            Kind::Bearer if self.text.starts_with("bur_") => FailedLogin::ApiKey,
            Kind::Bearer => FailedLogin::OperatorToken,
        }
    }
}

fn unauthenticated() -> ApiError {
    ApiError::of(ErrorCode::Unauthenticated)
}

/// The one credential of a request, if it has any; the same one may come twice.
fn presented(headers: &HeaderMap) -> Result<Option<Presented<'_>>, ApiError> {
    let mut found: Option<Presented<'_>> = None;
    let named = [
        (header::AUTHORIZATION, Kind::Bearer),
        (API_KEY, Kind::ApiKey),
        (INTEGRATION_KEY, Kind::Integration),
    ];
    for (name, kind) in named {
        for value in headers.get_all(name) {
            let value = value.to_str().map_err(|_| unauthenticated())?;
            let text = match kind {
                Kind::Bearer => bearer(value).ok_or_else(unauthenticated)?,
                Kind::ApiKey | Kind::Integration => value.trim(),
            };
            if text.is_empty() {
                return Err(unauthenticated());
            }
            if found.is_some_and(|earlier| earlier.text != text) {
                return Err(ApiError::of(ErrorCode::AmbiguousCredentials));
            }
            found = found.or(Some(Presented { kind, text }));
        }
    }
    Ok(found)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether a credential can only be meant as the token of a person.
fn is_token(text: &str) -> bool {
    !text.starts_with("bur_") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}
