//! Who calls, and what they may: the only source of a [`TenantId`].
//!
//! The guard asks [`admit`] for every route of the table in `auth/access.rs`; a handler takes [`Authorized`],
//! [`Operator`] or [`Anyone`] from it. There is no fallback tenant and no way around.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use bursar_core::{
    ApiKeyId, IntegrationId, IntegrationKeyId, OnboardingState, ReasonCode, TenantId,
    TenantLifecycle, Timestamp,
};
use bursar_store::{Actor, KeyId, SecretHash, StoreError, TenantRow};

use crate::app::App;
use crate::auth::access::{Access, Role};
use crate::auth::failed_logins::FailedLogin;
use crate::auth::oidc::{Person, PersonError, Refusal};
use crate::auth::onboarding;
use crate::auth::scopes::{INTEGRATION_KEY_SCOPES, ScopeSet};
use crate::auth::secret::{OPERATOR_PREFIX, read_api_key, read_integration_key, same_hash};
use crate::credentials::reference::SetBy;
use crate::http::client_address::ClientAddress;
use crate::middleware::response_headers::{Listener, RequestTenant};
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::{request_id, timestamps};

pub use crate::auth::key_cache::KeyCache;

/// The header that names the tenant.
pub const TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");
/// The header of an API key.
pub const API_KEY: HeaderName = HeaderName::from_static("x-aos-key");
/// The header of an integration key.
pub const INTEGRATION_KEY: HeaderName = HeaderName::from_static("x-cus-integration-key");

/// As which kind of actor the operator is known.
const OPERATOR: &str = "founder";

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
        scopes: ScopeSet,
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
        /// Until when.
        expires_at: Option<Timestamp>,
    },
    /// A person of a tenant, known by an issuer of the operator's choice.
    Person {
        /// Their tenant.
        tenant: CallerTenant,
        /// Their issuer, and who they are to it.
        name: String,
        /// What they may.
        role: Role,
        /// From when on their token proves nothing more.
        expires_at: Timestamp,
    },
}

impl Caller {
    /// Whether the time of its key is over; a key may be remembered beyond it.
    fn is_expired(&self, now: Timestamp) -> bool {
        match self {
            Self::Machine { expires_at, .. } | Self::Integration { expires_at, .. } => {
                is_past(*expires_at, now)
            }
            Self::Person { expires_at, .. } => is_past(Some(*expires_at), now),
            Self::Operator => false,
        }
    }

    /// The key that it came with.
    fn key(&self) -> Option<(TenantId, KeyId)> {
        match self {
            Self::Machine { tenant, api_key_id, .. } => {
                Some((tenant.tenant_id, KeyId::Api(*api_key_id)))
            }
            Self::Integration { tenant, integration_id, key_id, .. } => {
                Some((tenant.tenant_id, KeyId::Integration(*integration_id, *key_id)))
            }
            Self::Operator | Self::Person { .. } => None,
        }
    }

    /// The integration whose key it has.
    fn only(&self) -> Option<IntegrationId> {
        match self {
            Self::Integration { integration_id, .. } => Some(*integration_id),
            Self::Operator | Self::Machine { .. } | Self::Person { .. } => None,
        }
    }

    /// What remembering it takes.
    pub(crate) fn bytes(&self) -> usize {
        let name = match self {
            Self::Person { name, .. } => name.capacity(),
            Self::Operator | Self::Machine { .. } | Self::Integration { .. } => 0,
        };
        size_of::<Self>() + name
    }

    /// When its key ends. The token of a person ends too, and is no key.
    fn key_ends_at(&self) -> Option<Timestamp> {
        match self {
            Self::Machine { expires_at, .. } | Self::Integration { expires_at, .. } => *expires_at,
            Self::Operator | Self::Person { .. } => None,
        }
    }

    fn is_person(&self) -> bool {
        matches!(self, Self::Person { .. })
    }

    /// Its tenant; the operator has none.
    pub(crate) fn tenant(&self) -> Option<CallerTenant> {
        match self {
            Self::Operator => None,
            Self::Machine { tenant, .. }
            | Self::Integration { tenant, .. }
            | Self::Person { tenant, .. } => Some(*tenant),
        }
    }

    /// As which kind of actor it is known.
    fn actor_type(&self) -> &'static str {
        match self {
            Self::Operator => OPERATOR,
            Self::Machine { .. } | Self::Integration { .. } => "machine",
            Self::Person { .. } => "customer",
        }
    }

    fn actor(&self) -> Actor {
        let actor_id = match self {
            Self::Operator => "operator".to_owned(),
            Self::Machine { api_key_id, .. } => api_key_id.to_string(),
            Self::Integration { key_id, .. } => key_id.to_string(),
            Self::Person { name, .. } => name.clone(),
        };
        let (actor_type, request_id) = (self.actor_type(), request_id::current_text());
        let address = ClientAddress::current().map(|client| client.0.to_string());
        Actor { actor_type, actor_id, request_id, address }
    }

    /// How far its first call brings a tenant.
    fn step(&self) -> Option<OnboardingState> {
        match self {
            Self::Operator => None,
            Self::Machine { .. } | Self::Integration { .. } => Some(OnboardingState::SdkConnected),
            Self::Person { .. } => Some(OnboardingState::IdentityVerified),
        }
    }

    /// Refuses whoever may not use a route of a tenant, whichever tenant it is.
    fn check(
        &self,
        scope: Option<&str>,
        integration_key: bool,
        needed: Role,
    ) -> Result<(), ApiError> {
        let no_scope = |message: String| Err(ApiError::new(ErrorCode::MissingScope, message));
        match self {
            Self::Operator => Ok(()),
            Self::Machine { .. } | Self::Integration { .. } if scope.is_none() => {
                let message =
                    format!("No key opens this route; a person's role {} does.", needed.as_str());
                Err(ApiError::new(ErrorCode::Forbidden, message))
            }
            Self::Machine { scopes, .. } => {
                let scope = scope.unwrap_or_default();
                if scopes.covers(scope) {
                    return Ok(());
                }
                no_scope(format!("This key lacks the scope {scope}."))
            }
            Self::Integration { .. } if integration_key => Ok(()),
            Self::Integration { .. } => {
                no_scope("The key of an integration is not good for this route.".to_owned())
            }
            Self::Person { role, .. } if *role >= needed => Ok(()),
            Self::Person { .. } => {
                let message = format!("This route needs the role {}.", needed.as_str());
                Err(ApiError::new(ErrorCode::Forbidden, message))
            }
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
    /// How far it has come in setting itself up.
    pub onboarding: OnboardingState,
}

impl CallerTenant {
    fn of(row: &TenantRow) -> Self {
        let TenantRow { tenant_id, lifecycle, onboarding, .. } = row;
        Self { tenant_id: *tenant_id, lifecycle: *lifecycle, onboarding: *onboarding }
    }
}

/// A caller who may use the route, on one tenant.
#[derive(Clone, Debug)]
pub struct Authorized {
    /// On which tenant.
    pub tenant_id: TenantId,
    /// On which integration only, for the key of one.
    pub only: Option<IntegrationId>,
    /// Who, for the audit log.
    pub actor: Actor,
    /// The scopes of an API key; nothing for the operator, who may everything.
    pub scopes: Option<ScopeSet>,
    /// When the key ends that this caller came with. No key that it makes ends later, or a key with
    /// an end would have none.
    pub ends_at: Option<Timestamp>,
    /// Who sets credential references.
    pub set_by: SetBy,
    /// Where the tenant is in its life.
    pub lifecycle: TenantLifecycle,
    /// How far the tenant has come in setting itself up.
    pub onboarding: OnboardingState,
}

impl Authorized {
    /// The tenant as a whole.
    pub fn tenant(&self) -> CallerTenant {
        let Self { tenant_id, lifecycle, onboarding, .. } = *self;
        CallerTenant { tenant_id, lifecycle, onboarding }
    }

    /// Refuses a change of a tenant that is not active.
    ///
    /// # Errors
    /// 403.
    pub fn active(&self) -> Result<(), ApiError> {
        match self.lifecycle {
            TenantLifecycle::Active => Ok(()),
            TenantLifecycle::Suspended => Err(ApiError::of(ErrorCode::TenantSuspended)),
            TenantLifecycle::Terminated | TenantLifecycle::Archived => {
                Err(ApiError::of(ErrorCode::TenantTerminated))
            }
        }
    }

    /// Refuses to put a key with a later end, or with none, into the hands of a key that ends.
    ///
    /// # Errors
    /// 403.
    pub fn outlives(&self, expires_at: Option<Timestamp>) -> Result<(), ApiError> {
        match self.ends_at {
            Some(own) if expires_at.is_none_or(|end| end > own) => {
                let message = format!(
                    "A key cannot rotate a key that ends later than itself; this one ends at {}.",
                    timestamps::text(own)
                );
                Err(ApiError::new(ErrorCode::Forbidden, message))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the caller may do what this scope allows.
    pub fn may(&self, scope: &str) -> bool {
        self.scopes.is_none_or(|own| own.covers(scope))
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
#[derive(Clone, Debug)]
pub struct Operator {
    /// Who, for the audit log.
    pub actor: Actor,
}

/// Whoever proved who they are.
#[derive(Clone, Debug)]
pub struct Anyone {
    /// As which kind of actor.
    pub actor_type: &'static str,
    /// Of which tenant; of the operator the one that is named, if any.
    pub tenant: Option<CallerTenant>,
    /// On which integration only, for the key of one.
    pub only: Option<IntegrationId>,
    /// What the key of a machine is good for.
    pub capabilities: Vec<&'static str>,
}

/// Whoever may read the metrics: the operator, or who has the token for them.
#[derive(Debug)]
pub struct Scraper;

/// A caller whom the guard let in, as the route wants to know it.
#[derive(Clone, Debug)]
pub enum Admitted {
    /// The operator, of no tenant.
    Operator(Operator),
    /// Whoever it is.
    Anyone(Anyone),
    /// A caller on one tenant.
    Tenant(Authorized),
}

impl Admitted {
    /// Whether it is the operator, on a tenant or not.
    pub fn is_operator(&self) -> bool {
        match self {
            Self::Operator(_) => true,
            Self::Anyone(anyone) => anyone.actor_type == OPERATOR,
            Self::Tenant(authorized) => authorized.actor.actor_type == OPERATOR,
        }
    }
}

macro_rules! from_the_guard {
    ($($type:ident),+) => {$(
        impl FromRequestParts<App> for $type {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
                parts.extensions.remove::<Self>().ok_or_else(unguarded)
            }
        }
    )+};
}

from_the_guard!(Authorized, Operator, Anyone);

/// A handler asks for what the guard did not let in: nobody passes.
fn unguarded() -> ApiError {
    tracing::error!("a route takes a caller whom the table of access does not admit to it");
    ApiError::of(ErrorCode::Forbidden)
}

impl FromRequestParts<App> for Scraper {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        if !is_open(parts) && !has_metrics_token(app, &parts.headers) {
            operator(&*caller(app, &parts.headers).await?)?;
        }
        if let Some(request) = parts.extensions.get::<RequestTenant>() {
            request.proved_operator();
        }
        Ok(Self)
    }
}

/// Whether the request came in where only the operator's own network reaches.
fn is_open(parts: &Parts) -> bool {
    parts.extensions.get::<Listener>() == Some(&Listener::Operator)
}

fn has_metrics_token(app: &App, headers: &HeaderMap) -> bool {
    let Ok(Some(Presented { kind: Kind::Bearer, text })) = presented(headers) else {
        return false;
    };
    let hash = |text| app.secret_key.hash(text);
    app.metrics_token.as_ref().is_some_and(|token| same_hash(&hash(text), &hash(token.expose())))
}

fn operator(caller: &Caller) -> Result<Operator, ApiError> {
    match caller {
        Caller::Operator => Ok(Operator { actor: caller.actor() }),
        Caller::Machine { .. } | Caller::Integration { .. } | Caller::Person { .. } => {
            Err(ApiError::new(ErrorCode::Forbidden, "This route is the operator's."))
        }
    }
}

/// The tenant that `X-Tenant-ID` names: a well-formed but unknown one is some other tenant.
fn named_tenant(headers: &HeaderMap) -> Result<Option<Result<TenantId, ()>>, ApiError> {
    let mut values = headers.get_all(TENANT_ID).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.all(|other| other == value));
    let wrong = || ApiError::new(ErrorCode::BadRequest, "X-Tenant-ID must be the id of a tenant.");
    Ok(Some(TenantId::parse(text.ok_or_else(wrong)?).map_err(|_| ())))
}

/// Lets a caller in who may use a route, and notes how far the first call brings its tenant.
///
/// # Errors
/// 401 when nobody is proved, 403 when it is somebody else's route, and whatever storage says.
pub async fn admit(app: &App, headers: &HeaderMap, access: Access) -> Result<Admitted, ApiError> {
    let caller = caller(app, headers).await?;
    let named = named_tenant(headers)?;
    match access {
        Access::Operator => return operator(&caller).map(Admitted::Operator),
        // A person who may not do this has proved who they are.
        Access::Tenant { scope, integration_key, role } if !caller.is_person() => {
            caller.check(scope, integration_key, role)?;
        }
        Access::Anyone | Access::Tenant { .. } => {}
    }
    let mut tenant = match tenant_of(app, &caller, named).await {
        Err(error) if error.code() == ErrorCode::TenantMismatch => {
            note_failure(app, FailedLogin::OtherTenant);
            return Err(error);
        }
        found => found?,
    };
    if let (Some(tenant), Some(step)) = (&mut tenant, caller.step())
        && tenant.onboarding < step
    {
        tenant.onboarding = onboarding::reach(app, *tenant, step, &caller.actor()).await;
    }
    match access {
        Access::Operator | Access::Anyone => {
            let (actor_type, capabilities) = (caller.actor_type(), capabilities(&caller));
            let only = caller.only();
            Ok(Admitted::Anyone(Anyone { actor_type, tenant, only, capabilities }))
        }
        Access::Tenant { scope, integration_key, role } => {
            caller.check(scope, integration_key, role)?;
            let tenant = tenant.ok_or_else(|| ApiError::of(ErrorCode::TenantRequired))?;
            Ok(Admitted::Tenant(authorized(&caller, tenant)))
        }
    }
}

/// What the key of a machine is good for.
fn capabilities(caller: &Caller) -> Vec<&'static str> {
    match caller {
        Caller::Machine { scopes, .. } => scopes.words().collect(),
        Caller::Integration { .. } => INTEGRATION_KEY_SCOPES.to_vec(),
        Caller::Operator | Caller::Person { .. } => Vec::new(),
    }
}

fn authorized(caller: &Caller, tenant: CallerTenant) -> Authorized {
    let (scopes, set_by) = match caller {
        Caller::Operator => (None, SetBy::Operator),
        Caller::Machine { scopes, .. } => (Some(*scopes), SetBy::Tenant),
        Caller::Integration { .. } | Caller::Person { .. } => (None, SetBy::Tenant),
    };
    let only = caller.only();
    let CallerTenant { tenant_id, lifecycle, onboarding } = tenant;
    let (actor, ends_at) = (caller.actor(), caller.key_ends_at());
    Authorized { tenant_id, only, actor, scopes, ends_at, set_by, lifecycle, onboarding }
}

/// The tenant on which a caller acts; nothing when the operator names none.
async fn tenant_of(
    app: &App,
    caller: &Caller,
    named: Option<Result<TenantId, ()>>,
) -> Result<Option<CallerTenant>, ApiError> {
    let Some(tenant) = caller.tenant() else {
        let Some(named) = named else { return Ok(None) };
        let unknown = || ApiError::of(ErrorCode::TenantNotFound);
        let row = app.store.tenant(named.map_err(|()| unknown())?).await?;
        return Ok(Some(CallerTenant::of(&row.ok_or_else(unknown)?)));
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

/// How a credential was presented, which decides what it can prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
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

/// Who a request's credential proves. One that proves nobody is told to whoever watches.
async fn caller(app: &App, headers: &HeaderMap) -> Result<Arc<Caller>, ApiError> {
    let is_refused = |error: &ApiError| error.code() == ErrorCode::Unauthenticated;
    let presented = presented(headers).inspect_err(|error| {
        if is_refused(error) {
            note_failure(app, FailedLogin::Malformed);
        }
    })?;
    let presented = presented.ok_or_else(unauthenticated)?;
    let proved = prove(app, presented).await;
    if proved.as_ref().is_err_and(is_refused) {
        note_failure(app, presented.failure());
    }
    proved
}

fn note_failure(app: &App, kind: FailedLogin) {
    app.metrics.failed_login(kind);
    let address = ClientAddress::current().map(|client| client.0);
    app.failed_logins.note(address, kind, app.monotonic_clock.elapsed());
}

async fn prove(app: &App, presented: Presented<'_>) -> Result<Arc<Caller>, ApiError> {
    let Presented { kind, text } = presented;
    let hash = app.secret_key.hash(text);
    let missed = match app.key_cache.get(kind, &hash) {
        Ok(known) if known.is_expired(app.store.now()) => return Err(unauthenticated()),
        Ok(known) => return Ok(known),
        Err(missed) => missed,
    };
    let caller = match kind {
        Kind::Bearer if is_operator(app, &hash) => Some(Caller::Operator),
        Kind::Bearer if is_token(text) => Some(by_token(app, text).await?),
        Kind::Bearer | Kind::ApiKey => by_api_key(app, text, &hash).await?,
        Kind::Integration => by_integration_key(app, text, &hash).await?,
    };
    let caller = Arc::new(caller.ok_or_else(unauthenticated)?);
    if let Some((tenant_id, key)) = caller.key() {
        // Once a second at most: a key that is remembered was noted when it was read.
        app.key_uses.note(tenant_id, key, app.store.now());
    }
    app.key_cache.put(kind, hash, Arc::clone(&caller), missed);
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
    let scopes = ScopeSet::stored(&row.scopes);
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
    let Some(row) = row else { return Ok(None) };
    let lives = row.revoked_at.is_none() && !is_past(row.expires_at, app.store.now());
    if !lives || !same_hash(hash, &row.secret_hash) {
        return Ok(None);
    }
    let Some(tenant) = caller_tenant(app, tenant_id).await? else { return Ok(None) };
    let expires_at = row.expires_at;
    Ok(Some(Caller::Integration { tenant, integration_id, key_id, expires_at }))
}

/// Whether a credential can only be meant as the token of a person.
fn is_token(text: &str) -> bool {
    !text.starts_with("bur_") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

async fn by_token(app: &App, token: &str) -> Result<Caller, ApiError> {
    let person = app.issuers.prove(token, app.store.now()).await?;
    let Person { tenant_id, subject, issuer, role, expires_at } = person;
    let tenant = caller_tenant(app, tenant_id).await?;
    // Nobody is told which tenants there are.
    let tenant = tenant.ok_or(PersonError::Refused(Refusal::Tenant))?;
    // What one issuer calls someone, another may call someone else.
    Ok(Caller::Person { tenant, name: format!("{issuer}|{subject}"), role, expires_at })
}

async fn caller_tenant(app: &App, tenant_id: TenantId) -> Result<Option<CallerTenant>, StoreError> {
    let tenant = app.store.tenant(tenant_id).await?;
    Ok(tenant.as_ref().map(CallerTenant::of))
}

fn is_past(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_some_and(|expires_at| expires_at <= now)
}
