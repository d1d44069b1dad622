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

impl<S: Scope> FromRequestParts<App> for Authorized<S> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = caller(app, &parts.headers).await?;
        let named = named_tenant(&parts.headers)?;
        authorize(app, &caller, named).await
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

fn actor(actor_type: &'static str, actor_id: String) -> Actor {
    Actor { actor_type, actor_id, request_id: envelope::request_id() }
}

fn operator() -> Actor {
    actor("founder", "operator".to_owned())
}

/// The tenant that `X-Tenant-ID` names: a well-formed but unknown one is some other tenant.
fn named_tenant(headers: &HeaderMap) -> Result<Option<Result<TenantId, ()>>, ApiError> {
    let Some(value) = headers.get(TENANT_ID) else { return Ok(None) };
    let text = value.to_str().map_err(|_| {
        ApiError::new(ErrorCode::BadRequest, "X-Tenant-ID must be the id of a tenant.")
    })?;
    Ok(Some(TenantId::parse(text).map_err(|_| ())))
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
        Caller::Machine { tenant, api_key_id, scopes } => {
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
enum Presented<'a> {
    Token(&'a str),
    Integration(&'a str),
}

fn unauthenticated() -> ApiError {
    ApiError::of(ErrorCode::Unauthenticated)
}

/// The one credential of a request.
fn presented(headers: &HeaderMap) -> Result<Presented<'_>, ApiError> {
    let text = |name: HeaderName| {
        headers.get(name).map(|value| value.to_str().map_err(|_| unauthenticated())).transpose()
    };
    let bearer = match text(header::AUTHORIZATION)? {
        Some(value) => {
            let (scheme, token) = value.split_once(' ').ok_or_else(unauthenticated)?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(unauthenticated());
            }
            Some(Presented::Token(token.trim()))
        }
        None => None,
    };
    let api_key = text(API_KEY)?.map(|key| Presented::Token(key.trim()));
    let integration = text(INTEGRATION_KEY)?.map(|key| Presented::Integration(key.trim()));
    let mut all = [bearer, api_key, integration].into_iter().flatten();
    let first = all.next().ok_or_else(unauthenticated)?;
    if all.any(|other| other != first) {
        return Err(ApiError::of(ErrorCode::AmbiguousCredentials));
    }
    Ok(first)
}

/// Who a request's credential proves.
async fn caller(app: &App, headers: &HeaderMap) -> Result<Arc<Caller>, ApiError> {
    let presented = presented(headers)?;
    let (Presented::Token(text) | Presented::Integration(text)) = presented;
    let hash = app.secret_key.hash(text);
    if let Some(known) = app.key_cache.get(&hash) {
        return Ok(known);
    }
    let caller = match presented {
        Presented::Token(token) => by_token(app, token, &hash).await?,
        Presented::Integration(key) => by_integration_key(app, key, &hash).await?,
    };
    let caller = Arc::new(caller.ok_or_else(unauthenticated)?);
    app.key_cache.put(hash, Arc::clone(&caller));
    Ok(caller)
}

async fn by_token(app: &App, token: &str, hash: &SecretHash) -> Result<Option<Caller>, StoreError> {
    let operator_hash = app.secret_key.hash(app.operator_token.expose());
    if same_hash(hash, &operator_hash) {
        return Ok(Some(Caller::Operator));
    }
    let Some((tenant_id, api_key_id)) = read_api_key(token) else { return Ok(None) };
    let Some(row) = app.store.api_key(tenant_id, api_key_id).await? else { return Ok(None) };
    let lives = row.revoked_at.is_none() && !is_past(row.expires_at, app.store.now());
    if !lives || !same_hash(hash, &row.secret_hash) {
        return Ok(None);
    }
    let Some(tenant) = caller_tenant(app, tenant_id).await? else { return Ok(None) };
    let scopes = row.scopes.split(' ').map(str::to_owned).collect();
    Ok(Some(Caller::Machine { tenant, api_key_id, scopes }))
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

/// Keys that were good a moment ago, under the hash of the whole key.
///
/// An entry lives a second, so that a key that another node revokes is refused within two.
#[derive(Default)]
pub struct KeyCache {
    entries: RwLock<HashMap<SecretHash, (Instant, Arc<Caller>)>>,
}

impl KeyCache {
    fn get(&self, hash: &SecretHash) -> Option<Arc<Caller>> {
        let entries = self.entries.read();
        let (since, caller) = entries.get(hash)?;
        (since.elapsed() < CACHE_LIFE).then(|| Arc::clone(caller))
    }

    fn put(&self, hash: SecretHash, caller: Arc<Caller>) {
        let mut entries = self.entries.write();
        if entries.len() >= CACHE_ENTRIES_MAX {
            entries.retain(|_, (since, _)| since.elapsed() < CACHE_LIFE);
        }
        if entries.len() < CACHE_ENTRIES_MAX {
            entries.insert(hash, (Instant::now(), caller));
        }
    }

    /// Forgets everything: a key, an integration or a tenant changed here.
    pub fn clear(&self) {
        self.entries.write().clear();
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
