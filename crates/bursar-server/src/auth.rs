//! Who calls, and what they may: the only source of a [`TenantId`].
//!
//! A handler asks for [`Authorized`] with the scope it needs; having it is the authorization check.
//! There is no fallback tenant and no way around.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use bursar_core::{
    ApiKeyId, IntegrationId, IntegrationKeyId, ReasonCode, TenantId, TenantLifecycle, Timestamp,
};
use bursar_store::{Actor, SecretHash, StoreError};
use parking_lot::RwLock;

use crate::app::App;
use crate::credential_ref::SetBy;
use crate::doorway::Listener;
use crate::doorway::RequestTenant;
use crate::envelope;
use crate::error::{ApiError, ErrorCode};
use crate::secret::{read_api_key, read_integration_key, same_hash};

/// The header that names the tenant.
pub const TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");
/// The header of an API key.
pub const API_KEY: HeaderName = HeaderName::from_static("x-aos-key");
/// The header of an integration key.
pub const INTEGRATION_KEY: HeaderName = HeaderName::from_static("x-cus-integration-key");

/// For how long a key that was good is taken for good without asking storage.
const CACHE_LIFE: Duration = Duration::from_secs(1);
/// Keys that are remembered.
const CACHE_ENTRIES_MAX: usize = 20_000;

/// The scopes of API keys, as the contract names them.
pub const SCOPES: &[&str] = &[
    "integrations:read",
    "integrations:write",
    "telemetry:read",
    "telemetry:write",
    "enforcement:check",
    "credentials:write",
    "keys:write",
    "gateway:use",
];

/// What the key of an integration can do, for that integration.
pub const INTEGRATION_KEY_SCOPES: &[&str] =
    &["telemetry:write", "enforcement:check", "integrations:read"];

/// What a route asks of its caller.
pub trait Scope: Send + Sync + 'static {
    /// The scope that an API key needs.
    const NAME: &'static str;
    /// Whether the key of an integration is good for it, for that integration only.
    const INTEGRATION_KEY: bool;
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $type:ident = $name:literal, $integration_key:literal;)+) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $type;

            impl Scope for $type {
                const NAME: &'static str = $name;
                const INTEGRATION_KEY: bool = $integration_key;
            }
        )+
    };
}

scopes! {
    /// To read integrations.
    IntegrationsRead = "integrations:read", false;
    /// To read the limits of an integration, which its own key may too.
    LimitsRead = "integrations:read", true;
    /// To change integrations.
    IntegrationsWrite = "integrations:write", false;
    /// To read usage.
    TelemetryRead = "telemetry:read", false;
    /// To record usage.
    TelemetryWrite = "telemetry:write", true;
    /// To ask for decisions and reservations.
    EnforcementCheck = "enforcement:check", true;
    /// To manage API keys.
    KeysWrite = "keys:write", false;
}

/// Whether a scope of a key, which may have wildcards, covers another.
pub fn covers(granted: &str, asked: &str) -> bool {
    granted == "*"
        || granted == asked
        || granted
            .strip_suffix(":*")
            .is_some_and(|resource| asked.split(':').next() == Some(resource))
}

/// Who proved themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The operator of this server.
    Operator,
    /// A machine of a tenant, with an API key.
    Machine {
        /// Its tenant.
        tenant: CallerTenant,
        /// Its key.
        api_key_id: ApiKeyId,
        /// What it may.
        scopes: Vec<String>,
        /// Until when.
        expires_at: Option<Timestamp>,
    },
    /// A machine with the key of one integration.
    Integration {
        /// Its tenant.
        tenant: CallerTenant,
        /// Its integration.
        integration_id: IntegrationId,
        /// Its key.
        key_id: IntegrationKeyId,
    },
}

impl Caller {
    /// Whether the time of its key is over; a key may be remembered beyond it.
    fn is_expired(&self, now: Timestamp) -> bool {
        match self {
            Self::Machine { expires_at, .. } => is_past(*expires_at, now),
            Self::Operator | Self::Integration { .. } => false,
        }
    }
}

/// The tenant of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerTenant {
    /// Which.
    pub tenant_id: TenantId,
    /// Where it is in its life.
    pub lifecycle: TenantLifecycle,
}

/// A caller who may use a route of scope `S`, on one tenant.
#[derive(Debug)]
pub struct Authorized<S> {
    /// On which tenant.
    pub tenant_id: TenantId,
    /// On which integration only, for the key of one.
    pub only: Option<IntegrationId>,
    /// Who, for the audit log.
    pub actor: Actor,
    /// The scopes of an API key; nothing for the operator, who may everything.
    pub scopes: Option<Vec<String>>,
    /// Who sets credential references.
    pub set_by: SetBy,
    /// Where the tenant is in its life.
    pub lifecycle: TenantLifecycle,
    scope: PhantomData<S>,
}

impl<S> Authorized<S> {
    /// Whether the caller may do what this scope allows.
    pub fn may(&self, scope: &str) -> bool {
        self.scopes.as_ref().is_none_or(|own| own.iter().any(|granted| covers(granted, scope)))
    }

    /// Refuses a question about an integration that the tenant does not have, or that the key is
    /// not for; a deleted one is known, for its usage stays.
    ///
    /// # Errors
    /// 404, and whatever storage says.
    pub async fn known_integration(
        &self,
        app: &App,
        integration_id: Option<IntegrationId>,
    ) -> Result<(), ApiError> {
        let Some(integration_id) = integration_id else { return Ok(()) };
        let foreign = self.only.is_some_and(|only| only != integration_id);
        if foreign || !app.store.knows_integration(self.tenant_id, integration_id).await? {
            return Err(ApiError::of(ErrorCode::IntegrationNotFound));
        }
        Ok(())
    }

    /// Why a call through an integration that the tenant does not have is blocked: the tenant's
    /// life comes first in the order of decisions.
    pub fn unknown_integration(&self) -> ReasonCode {
        match self.lifecycle {
            TenantLifecycle::Active => ReasonCode::IntegrationNotFound,
            TenantLifecycle::Suspended
            | TenantLifecycle::Terminated
            | TenantLifecycle::Archived => ReasonCode::TenantSuspended,
        }
    }
}

/// The operator.
#[derive(Debug)]
pub struct Operator {
    /// Who, for the audit log.
    pub actor: Actor,
}

/// Whoever may read the metrics: the operator, or who has the token for them.
#[derive(Debug)]
pub struct Scraper;

impl<S: Scope> FromRequestParts<App> for Authorized<S> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = caller(app, &parts.headers).await?;
        let named = named_tenant(&parts.headers)?;
        let authorized: Self = authorize(app, &caller, named).await?;
        if let Some(tenant) = parts.extensions.get::<RequestTenant>() {
            tenant.proved(authorized.tenant_id);
        }
        Ok(authorized)
    }
}

impl FromRequestParts<App> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match caller(app, &parts.headers).await?.as_ref() {
            Caller::Operator => Ok(Self { actor: operator() }),
            Caller::Machine { .. } | Caller::Integration { .. } => {
                let message = "This route is the operator's.";
                Err(ApiError::new(ErrorCode::Forbidden, message))
            }
        }
    }
}

impl FromRequestParts<App> for Scraper {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        if is_open(parts) || has_metrics_token(app, &parts.headers) {
            return Ok(Self);
        }
        Operator::from_request_parts(parts, app).await.map(|_| Self)
    }
}

/// Whether the request came in where only the operator's own network reaches.
fn is_open(parts: &Parts) -> bool {
    parts.extensions.get::<Listener>() == Some(&Listener::Operator)
}

fn has_metrics_token(app: &App, headers: &HeaderMap) -> bool {
    let Ok(Presented { kind: Kind::Bearer, text }) = presented(headers) else { return false };
    let hash = |text| app.secret_key.hash(text);
    app.metrics_token.as_ref().is_some_and(|token| same_hash(&hash(text), &hash(token.expose())))
}

fn actor(actor_type: &'static str, actor_id: String) -> Actor {
    Actor { actor_type, actor_id, request_id: envelope::request_id(), address: None }
}

fn operator() -> Actor {
    actor("founder", "operator".to_owned())
}

/// The tenant that `X-Tenant-ID` names: a well-formed but unknown one is some other tenant.
fn named_tenant(headers: &HeaderMap) -> Result<Option<Result<TenantId, ()>>, ApiError> {
    let mut values = headers.get_all(TENANT_ID).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.all(|other| other == value));
    let wrong = || ApiError::new(ErrorCode::BadRequest, "X-Tenant-ID must be the id of a tenant.");
    Ok(Some(TenantId::parse(text.ok_or_else(wrong)?).map_err(|_| ())))
}

async fn authorize<S: Scope>(
    app: &App,
    caller: &Caller,
    named: Option<Result<TenantId, ()>>,
) -> Result<Authorized<S>, ApiError> {
    let (tenant, only, actor, scopes) = match caller {
        Caller::Operator => {
            let named = named.ok_or_else(|| ApiError::of(ErrorCode::TenantRequired))?;
            let unknown = || ApiError::of(ErrorCode::TenantNotFound);
            let tenant_id = named.map_err(|()| unknown())?;
            let tenant = app.store.tenant(tenant_id).await?.ok_or_else(unknown)?;
            return Ok(Authorized {
                tenant_id,
                only: None,
                actor: operator(),
                scopes: None,
                set_by: SetBy::Operator,
                lifecycle: tenant.lifecycle,
                scope: PhantomData,
            });
        }
        Caller::Machine { tenant, api_key_id, scopes, expires_at: _ } => {
            if !scopes.iter().any(|granted| covers(granted, S::NAME)) {
                let message = format!("This key lacks the scope {}.", S::NAME);
                return Err(ApiError::new(ErrorCode::MissingScope, message));
            }
            (*tenant, None, actor("machine", api_key_id.to_string()), Some(scopes.clone()))
        }
        Caller::Integration { tenant, integration_id, key_id } => {
            if !S::INTEGRATION_KEY {
                let message = "The key of an integration is not good for this route.";
                return Err(ApiError::new(ErrorCode::MissingScope, message));
            }
            (*tenant, Some(*integration_id), actor("machine", key_id.to_string()), None)
        }
    };
    if named.is_some_and(|named| named != Ok(tenant.tenant_id)) {
        return Err(ApiError::of(ErrorCode::TenantMismatch));
    }
    match tenant.lifecycle {
        TenantLifecycle::Active | TenantLifecycle::Suspended => {}
        TenantLifecycle::Terminated | TenantLifecycle::Archived => {
            return Err(ApiError::of(ErrorCode::TenantTerminated));
        }
    }
    Ok(Authorized {
        tenant_id: tenant.tenant_id,
        only,
        actor,
        scopes,
        set_by: SetBy::Tenant,
        lifecycle: tenant.lifecycle,
        scope: PhantomData,
    })
}

/// A credential as it came.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Presented<'a> {
    kind: Kind,
    text: &'a str,
}

/// How a credential was presented, which decides what it can prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// As a bearer token: the operator's token or an API key.
    Bearer,
    /// In the header of API keys.
    ApiKey,
    /// In the header of integration keys.
    Integration,
}

fn unauthenticated() -> ApiError {
    ApiError::of(ErrorCode::Unauthenticated)
}

/// The one credential of a request; the same one may come twice.
fn presented(headers: &HeaderMap) -> Result<Presented<'_>, ApiError> {
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
    found.ok_or_else(unauthenticated)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Who a request's credential proves.
async fn caller(app: &App, headers: &HeaderMap) -> Result<Arc<Caller>, ApiError> {
    let Presented { kind, text } = presented(headers)?;
    let hash = app.secret_key.hash(text);
    let generation = match app.key_cache.get(kind, &hash) {
        Ok(known) if known.is_expired(app.store.now()) => return Err(unauthenticated()),
        Ok(known) => return Ok(known),
        Err(generation) => generation,
    };
    let caller = match kind {
        Kind::Bearer if is_operator(app, &hash) => Some(Caller::Operator),
        Kind::Bearer | Kind::ApiKey => by_api_key(app, text, &hash).await?,
        Kind::Integration => by_integration_key(app, text, &hash).await?,
    };
    let caller = Arc::new(caller.ok_or_else(unauthenticated)?);
    app.key_cache.put(kind, hash, Arc::clone(&caller), generation);
    Ok(caller)
}

fn is_operator(app: &App, hash: &SecretHash) -> bool {
    same_hash(hash, &app.secret_key.hash(app.operator_token.expose()))
}

async fn by_api_key(app: &App, key: &str, hash: &SecretHash) -> Result<Option<Caller>, StoreError> {
    let Some((tenant_id, api_key_id)) = read_api_key(key) else { return Ok(None) };
    let Some(row) = app.store.api_key(tenant_id, api_key_id).await? else { return Ok(None) };
    let lives = row.revoked_at.is_none() && !is_past(row.expires_at, app.store.now());
    if !lives || !same_hash(hash, &row.secret_hash) {
        return Ok(None);
    }
    let Some(tenant) = caller_tenant(app, tenant_id).await? else { return Ok(None) };
    let scopes = row.scopes.split(' ').map(str::to_owned).collect();
    Ok(Some(Caller::Machine { tenant, api_key_id, scopes, expires_at: row.expires_at }))
}

async fn by_integration_key(
    app: &App,
    key: &str,
    hash: &SecretHash,
) -> Result<Option<Caller>, StoreError> {
    let Some((tenant_id, integration_id, key_id)) = read_integration_key(key) else {
        return Ok(None);
    };
    let row = app.store.integration_key(tenant_id, integration_id, key_id).await?;
    if !row.is_some_and(|row| row.revoked_at.is_none() && same_hash(hash, &row.secret_hash)) {
        return Ok(None);
    }
    let Some(tenant) = caller_tenant(app, tenant_id).await? else { return Ok(None) };
    Ok(Some(Caller::Integration { tenant, integration_id, key_id }))
}

async fn caller_tenant(app: &App, tenant_id: TenantId) -> Result<Option<CallerTenant>, StoreError> {
    let tenant = app.store.tenant(tenant_id).await?;
    Ok(tenant.map(|tenant| CallerTenant { tenant_id, lifecycle: tenant.lifecycle }))
}

fn is_past(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_some_and(|expires_at| expires_at <= now)
}

/// Keys that were good a moment ago, under the hash of the whole key and how it was presented.
///
/// An entry lives a second, so that a key that another node revokes is refused within two.
#[derive(Default)]
pub struct KeyCache(RwLock<CachedKeys>);

#[derive(Default)]
struct CachedKeys {
    entries: HashMap<(Kind, SecretHash), (Instant, Arc<Caller>)>,
    /// Counts how often everything was forgotten.
    generation: u64,
}

impl KeyCache {
    /// The caller, or the generation under which one that is read now may be remembered.
    fn get(&self, kind: Kind, hash: &SecretHash) -> Result<Arc<Caller>, u64> {
        let cached = self.0.read();
        match cached.entries.get(&(kind, *hash)) {
            Some((since, caller)) if since.elapsed() < CACHE_LIFE => Ok(Arc::clone(caller)),
            Some(_) | None => Err(cached.generation),
        }
    }

    /// Remembers a caller, unless something was revoked since it was read.
    fn put(&self, kind: Kind, hash: SecretHash, caller: Arc<Caller>, generation: u64) {
        let mut cached = self.0.write();
        if cached.generation != generation {
            return;
        }
        if cached.entries.len() >= CACHE_ENTRIES_MAX {
            cached.entries.retain(|_, (since, _)| since.elapsed() < CACHE_LIFE);
        }
        if cached.entries.len() < CACHE_ENTRIES_MAX {
            cached.entries.insert((kind, hash), (Instant::now(), caller));
        }
    }

    /// Forgets everything: a key, an integration or a tenant changed here.
    pub fn clear(&self) {
        let mut cached = self.0.write();
        cached.entries.clear();
        cached.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_cover_what_they_say() {
        assert!(covers("*", "keys:write"));
        assert!(covers("telemetry:*", "telemetry:read"));
        assert!(covers("telemetry:read", "telemetry:read"));
        assert!(!covers("telemetry:*", "integrations:read"));
        assert!(!covers("telemetry:read", "telemetry:write"));
        assert!(!covers("tele:*", "telemetry:read"));
    }
}
