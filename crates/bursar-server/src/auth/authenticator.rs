//! Authenticates callers: keys by the store, people by their issuer, the operator by its token.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, header};
use bursar_core::TenantId;
use bursar_store::{SecretHash, Store, StoreError};

use crate::auth::caller::{Caller, CallerKey, CallerTenant, CredentialKind};
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
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-aos-key");
/// The header of an integration key.
pub(crate) const INTEGRATION_KEY: HeaderName = HeaderName::from_static("x-cus-integration-key");

/// Everything needed to authenticate a caller.
pub(crate) struct Authenticator {
    /// Looks up keys and tenants, and tells the time.
    pub(crate) store: Arc<dyn Store>,
    pub(crate) secret_key: Arc<SecretKey>,
    /// The token that authenticates the operator.
    pub(crate) operator_token: Arc<Secret>,
    /// The token that authenticates a metrics scraper, if one is configured.
    pub(crate) metrics_token: Option<Secret>,
    /// Verifies the tokens of people.
    pub(crate) issuers: Arc<Issuers>,
    /// Callers whose key was verified within the last second.
    pub(crate) key_cache: Arc<KeyCache>,
    /// Records when keys were last used.
    pub(crate) key_uses: Arc<KeyUses>,
    /// Counts failed logins for the log.
    pub(crate) failed_logins: Arc<FailedLogins>,
    /// Advances the onboarding state of the caller's tenant.
    pub(crate) onboarding: Arc<Onboarding>,
    /// The time by which failed logins are counted.
    pub(crate) clock: MonotonicClock,
    /// Counts failed logins as a metric.
    pub(crate) metrics: Arc<Metrics>,
}

impl Authenticator {
    /// Authenticates the credential of a request. Failures are counted and logged.
    ///
    /// # Errors
    /// 401 if authentication fails, 400 if the request has several credentials, and errors of the
    /// store.
    pub(crate) async fn caller(&self, headers: &HeaderMap) -> Result<Arc<Caller>, ApiError> {
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
        let miss = match self.key_cache.get(kind, &hash) {
            Ok(known) if known.is_expired(self.store.now()) => return Err(unauthenticated()),
            Ok(known) => return Ok(known),
            Err(miss) => miss,
        };
        let caller = match kind {
            CredentialKind::Bearer if self.is_operator(&hash) => Some(Caller::Operator),
            CredentialKind::Bearer if is_token(text) => Some(self.by_token(text).await?),
            CredentialKind::Bearer | CredentialKind::ApiKey => {
                self.by_key(KeyPrefix::of_api_key(text), &hash).await?
            }
            CredentialKind::Integration => {
                self.by_key(KeyPrefix::of_integration_key(text), &hash).await?
            }
        };
        let caller = Arc::new(caller.ok_or_else(unauthenticated)?);
        if let Some((tenant_id, key)) = caller.key() {
            // At most once a second: a cached key was recorded when it was read from the store.
            self.key_uses.note(tenant_id, key.key_id, self.store.now());
        }
        self.key_cache.put(kind, hash, Arc::clone(&caller), miss);
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
        let key = CallerKey { key_id, account_key_id: row.account_key_id };
        Ok(Some(match integration_id {
            None => {
                let scopes = row.scopes.as_deref().map(ScopeSet::stored).unwrap_or_default();
                Caller::Machine { tenant, key, scopes, expires_at }
            }
            Some(integration_id) => Caller::Integration { tenant, integration_id, key, expires_at },
        }))
    }

    async fn by_token(&self, token: &str) -> Result<Caller, ApiError> {
        let person = self.issuers.prove(token, self.store.now()).await?;
        let Person { tenant_id, subject, issuer, role, expires_at } = person;
        let tenant = self.caller_tenant(tenant_id).await?;
        // The error must not tell which tenants exist.
        let tenant = tenant.ok_or(PersonError::Refused(TokenRefusal::Tenant))?;
        // Two issuers may use the same subject for different people.
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
        let Ok(Some(Presented { kind: CredentialKind::Bearer, text })) = presented(headers) else {
            return false;
        };
        let hash = |text| self.secret_key.hash(text);
        self.metrics_token
            .as_ref()
            .is_some_and(|token| same_hash(&hash(text), &hash(token.expose())))
    }
}

/// A credential as the request presents it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Presented<'a> {
    kind: CredentialKind,
    text: &'a str,
}

impl Presented<'_> {
    /// The kind of failure, judged by the form of the credential.
    fn failure(&self) -> FailedLogin {
        match self.kind {
            CredentialKind::Integration => FailedLogin::IntegrationKey,
            CredentialKind::ApiKey => FailedLogin::ApiKey,
            CredentialKind::Bearer if is_token(self.text) => FailedLogin::OidcToken,
            CredentialKind::Bearer if self.text.starts_with(OPERATOR_PREFIX) => {
                FailedLogin::OperatorToken
            }
            CredentialKind::Bearer if self.text.starts_with("bur_") => FailedLogin::ApiKey,
            CredentialKind::Bearer => FailedLogin::OperatorToken,
        }
    }
}

fn unauthenticated() -> ApiError {
    ApiError::of(ErrorCode::Unauthenticated)
}

/// The credential of a request, if any. Repeating the same credential is allowed.
fn presented(headers: &HeaderMap) -> Result<Option<Presented<'_>>, ApiError> {
    let mut found: Option<Presented<'_>> = None;
    let named = [
        (header::AUTHORIZATION, CredentialKind::Bearer),
        (API_KEY, CredentialKind::ApiKey),
        (INTEGRATION_KEY, CredentialKind::Integration),
    ];
    for (name, kind) in named {
        for value in headers.get_all(name) {
            let value = value.to_str().map_err(|_| unauthenticated())?;
            let text = match kind {
                CredentialKind::Bearer => bearer(value).ok_or_else(unauthenticated)?,
                CredentialKind::ApiKey | CredentialKind::Integration => value.trim(),
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

/// Whether a bearer credential has the form of a person's token.
fn is_token(text: &str) -> bool {
    !text.starts_with("bur_") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}
