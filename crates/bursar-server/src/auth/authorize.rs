//! Authorization: who may use a route, and on which tenant. The only source of a [`TenantId`].
//!
//! The guard calls [`authorize`] for every route that needs a caller. A handler takes
//! [`Authorized`], [`Operator`] or [`AnyCaller`] from the request. There is no default tenant and
//! no way around the guard.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use bursar_core::{
    IntegrationId, OnboardingState, ReasonCode, TenantId, TenantLifecycle, Timestamp,
};
use bursar_store::{Actor, Store};

use crate::auth::access::Access;
use crate::auth::authenticator::Authenticator;
use crate::auth::caller::{Caller, CallerKey, CallerTenant, OPERATOR};
use crate::auth::failed_logins::FailedLogin;
use crate::auth::scopes::{INTEGRATION_KEY_SCOPES, ScopeSet};
use crate::credentials::reference::ReferenceAuthor;
use crate::http::request_extensions::{ListenerKind, RequestTenant};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::timestamps;

/// The header that names the tenant.
pub(crate) const TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");

/// A caller who may use the route on one tenant.
#[derive(Clone, Debug)]
pub struct Authorized {
    pub(crate) tenant_id: TenantId,
    /// The only integration the caller may act on, for an integration key.
    pub restricted_to: Option<IntegrationId>,
    /// The caller's key, if it has one.
    pub(crate) key: Option<CallerKey>,
    /// The actor in the audit log.
    pub(crate) actor: Actor,
    /// The scopes of an API key. `None` for callers that are not limited by scopes.
    pub(crate) scopes: Option<ScopeSet>,
    /// When the caller's key expires.
    ///
    /// A key that the caller creates must not expire later; otherwise the expiry of a key could be
    /// evaded.
    pub(crate) ends_at: Option<Timestamp>,
    /// Who sets credential references.
    pub(crate) set_by: ReferenceAuthor,
    /// The lifecycle state of the tenant.
    pub(crate) lifecycle: TenantLifecycle,
    /// The onboarding state of the tenant.
    pub(crate) onboarding: OnboardingState,
}

impl Authorized {
    /// The tenant with its states.
    pub(crate) fn tenant(&self) -> CallerTenant {
        let Self { tenant_id, lifecycle, onboarding, .. } = *self;
        CallerTenant { tenant_id, lifecycle, onboarding }
    }

    /// Refuses changes of a tenant that is not active.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn require_active(&self) -> Result<(), ApiError> {
        match self.lifecycle {
            TenantLifecycle::Active => Ok(()),
            TenantLifecycle::Suspended => Err(ApiError::of(ErrorCode::TenantSuspended)),
            TenantLifecycle::Terminated | TenantLifecycle::Archived => {
                Err(ApiError::of(ErrorCode::TenantTerminated))
            }
        }
    }

    /// Refuses to give out a key that expires later than the caller's own, or never.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn check_key_expiry(&self, expires_at: Option<Timestamp>) -> Result<(), ApiError> {
        match self.ends_at {
            Some(own) if expires_at.is_none_or(|end| end > own) => {
                let message = format!(
                    "A key cannot rotate a key that expires later than itself. Your key expires at \
                     {}.",
                    timestamps::text(own)
                );
                Err(ApiError::new(ErrorCode::Forbidden, message))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the caller has this scope.
    pub(crate) fn has_scope(&self, scope: &str) -> bool {
        self.scopes.is_none_or(|own| own.covers(scope))
    }

    /// Refuses an integration that the tenant does not have or the caller's key is not for.
    ///
    /// A deleted integration is accepted, because its usage stays.
    ///
    /// # Errors
    /// 404, and errors of the store.
    pub(crate) async fn check_integration(
        &self,
        store: &dyn Store,
        integration_id: Option<IntegrationId>,
    ) -> Result<(), ApiError> {
        let Some(integration_id) = integration_id else { return Ok(()) };
        let foreign = self.restricted_to.is_some_and(|own| own != integration_id);
        if foreign || !store.knows_integration(self.tenant_id, integration_id).await? {
            return Err(ApiError::of(ErrorCode::IntegrationNotFound));
        }
        Ok(())
    }

    /// Why a call through an unknown integration is blocked.
    ///
    /// The state of the tenant comes first in the order of reasons.
    pub(crate) fn unknown_integration(&self) -> ReasonCode {
        match self.lifecycle {
            TenantLifecycle::Active => ReasonCode::IntegrationNotFound,
            TenantLifecycle::Suspended
            | TenantLifecycle::Terminated
            | TenantLifecycle::Archived => ReasonCode::TenantSuspended,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Operator {
    /// The actor in the audit log.
    pub(crate) actor: Actor,
}

/// Any authenticated caller.
#[derive(Clone, Debug)]
pub(crate) struct AnyCaller {
    /// The kind of actor.
    pub(crate) actor_type: &'static str,
    /// The caller's tenant. For the operator it is the named one, if any.
    pub(crate) tenant: Option<CallerTenant>,
    /// The only integration the caller may act on, for an integration key.
    pub restricted_to: Option<IntegrationId>,
    /// The scopes of a key.
    pub(crate) capabilities: Vec<&'static str>,
}

/// A caller who may read the metrics: the operator, or a client with the metrics token.
#[derive(Debug)]
pub(crate) struct Scraper;

/// The caller that the guard admitted, in the form that the route asked for.
#[derive(Clone, Debug)]
pub(crate) enum Admitted {
    /// The operator, without a tenant.
    Operator(Operator),
    AnyCaller(AnyCaller),
    /// A caller on one tenant.
    Tenant(Authorized),
}

impl Admitted {
    /// Whether the caller is the operator, on a tenant or not.
    pub(crate) fn is_operator(&self) -> bool {
        match self {
            Self::Operator(_) => true,
            Self::AnyCaller(anyone) => anyone.actor_type == OPERATOR,
            Self::Tenant(authorized) => authorized.actor.actor_type == OPERATOR,
        }
    }
}

macro_rules! extract_from_request {
    ($($type:ident),+) => {$(
        impl<S: Send + Sync> FromRequestParts<S> for $type {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
                parts.extensions.remove::<Self>().ok_or_else(unguarded)
            }
        }
    )+};
}

extract_from_request!(Authorized, Operator, AnyCaller);

/// A handler extracts a caller that its route's rule does not provide: refuse the request.
fn unguarded() -> ApiError {
    tracing::error!("a handler needs another caller than its route admits; this is a bug");
    ApiError::of(ErrorCode::Forbidden)
}

impl<S> FromRequestParts<S> for Scraper
where
    S: Send + Sync,
    Arc<Authenticator>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let authenticator = Arc::<Authenticator>::from_ref(state);
        if !is_operator_listener(parts) && !authenticator.has_metrics_token(&parts.headers) {
            operator(&*authenticator.caller(&parts.headers).await?)?;
        }
        if let Some(request) = parts.extensions.get::<RequestTenant>() {
            request.proved_operator();
        }
        Ok(Self)
    }
}

/// Whether the request came by the operator's own listener.
fn is_operator_listener(parts: &Parts) -> bool {
    parts.extensions.get::<ListenerKind>() == Some(&ListenerKind::Operator)
}

fn operator(caller: &Caller) -> Result<Operator, ApiError> {
    match caller {
        Caller::Operator => Ok(Operator { actor: caller.actor() }),
        Caller::Machine { .. } | Caller::Integration { .. } | Caller::Person { .. } => {
            Err(ApiError::new(ErrorCode::Forbidden, "This route is only for the operator."))
        }
    }
}

/// The tenant that `X-Tenant-ID` names.
///
/// An id that is well-formed but unknown counts as another tenant.
fn named_tenant(headers: &HeaderMap) -> Result<Option<Result<TenantId, ()>>, ApiError> {
    let mut values = headers.get_all(TENANT_ID).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.all(|other| other == value));
    let wrong = || ApiError::new(ErrorCode::BadRequest, "X-Tenant-ID must be the id of a tenant.");
    Ok(Some(TenantId::parse(text.ok_or_else(wrong)?).map_err(|_| ())))
}

/// Authorizes the caller of a request, and advances the onboarding of its tenant.
///
/// # Errors
/// 401 without a valid credential, 403 without the right to use the route, and errors of the store.
pub(crate) async fn authorize(
    authenticator: &Authenticator,
    headers: &HeaderMap,
    access: Access,
) -> Result<Admitted, ApiError> {
    let caller = authenticator.caller(headers).await?;
    let named = named_tenant(headers)?;
    match access {
        Access::Operator => return operator(&caller).map(Admitted::Operator),
        // A person is checked later: even without the right, the call shows that its tenant is set
        // up.
        Access::Tenant { scope, integration_key, role } if !caller.is_person() => {
            caller.check(scope, integration_key, role)?;
        }
        Access::AnyCaller | Access::Tenant { .. } => {}
    }
    let mut tenant = match tenant_of(authenticator, &caller, named).await {
        Err(error) if error.code() == ErrorCode::TenantMismatch => {
            authenticator.note_failure(FailedLogin::OtherTenant);
            return Err(error);
        }
        found => found?,
    };
    if let (Some(tenant), Some(step)) = (&mut tenant, caller.step())
        && tenant.onboarding < step
    {
        let actor = caller.actor();
        tenant.onboarding = authenticator.onboarding.reach(*tenant, step, &actor).await;
    }
    match access {
        Access::Operator | Access::AnyCaller => {
            let (actor_type, capabilities) = (caller.actor_type(), capabilities(&caller));
            let restricted_to = caller.restricted_to();
            Ok(Admitted::AnyCaller(AnyCaller { actor_type, tenant, restricted_to, capabilities }))
        }
        Access::Tenant { scope, integration_key, role } => {
            caller.check(scope, integration_key, role)?;
            let tenant = tenant.ok_or_else(|| ApiError::of(ErrorCode::TenantRequired))?;
            Ok(Admitted::Tenant(authorized_on_tenant(&caller, tenant)))
        }
    }
}

/// The scopes of a key.
fn capabilities(caller: &Caller) -> Vec<&'static str> {
    match caller {
        Caller::Machine { scopes, .. } => scopes.names().collect(),
        Caller::Integration { .. } => INTEGRATION_KEY_SCOPES.to_vec(),
        Caller::Operator | Caller::Person { .. } => Vec::new(),
    }
}

fn authorized_on_tenant(caller: &Caller, tenant: CallerTenant) -> Authorized {
    let (scopes, set_by) = match caller {
        Caller::Operator => (None, ReferenceAuthor::Operator),
        Caller::Machine { scopes, .. } => (Some(*scopes), ReferenceAuthor::Tenant),
        Caller::Integration { .. } | Caller::Person { .. } => (None, ReferenceAuthor::Tenant),
    };
    let restricted_to = caller.restricted_to();
    let CallerTenant { tenant_id, lifecycle, onboarding } = tenant;
    let key = caller.key().map(|(_, key)| key);
    let (actor, ends_at) = (caller.actor(), caller.key_ends_at());
    Authorized {
        tenant_id,
        restricted_to,
        key,
        actor,
        scopes,
        ends_at,
        set_by,
        lifecycle,
        onboarding,
    }
}

/// The tenant that the caller acts on. `None` when the operator names none.
async fn tenant_of(
    authenticator: &Authenticator,
    caller: &Caller,
    named: Option<Result<TenantId, ()>>,
) -> Result<Option<CallerTenant>, ApiError> {
    let Some(tenant) = caller.tenant() else {
        let Some(named) = named else { return Ok(None) };
        let unknown = || ApiError::of(ErrorCode::TenantNotFound);
        let tenant = authenticator.caller_tenant(named.map_err(|()| unknown())?).await?;
        return Ok(Some(tenant.ok_or_else(unknown)?));
    };
    if named.is_some_and(|named| named != Ok(tenant.tenant_id)) {
        return Err(ApiError::of(ErrorCode::TenantMismatch));
    }
    match tenant.lifecycle {
        TenantLifecycle::Active | TenantLifecycle::Suspended => Ok(Some(tenant)),
        TenantLifecycle::Terminated | TenantLifecycle::Archived => {
            Err(ApiError::of(ErrorCode::TenantTerminated))
        }
    }
}
