//! The authenticated caller and its rights.

use bursar_core::{IntegrationId, KeyId, OnboardingState, TenantId, TenantLifecycle, Timestamp};
use bursar_store::{Actor, TenantRow};

use crate::auth::access::Role;
use crate::auth::scopes::ScopeSet;
use crate::http::client_address::ClientAddress;
use crate::wire::error::ApiError;
use crate::wire::error_code::ErrorCode;
use crate::wire::request_id;

/// The operator's actor type on the wire.
pub(super) const OPERATOR: &str = "founder";

/// The key of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallerKey {
    pub(crate) key_id: KeyId,
    /// The key in whose accounts its calls count: the first of its line of rotations.
    pub(crate) account_key_id: KeyId,
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The operator of this server.
    Operator,
    /// A client of a tenant, with an API key.
    Machine {
        tenant: CallerTenant,
        key: CallerKey,
        /// What the key may do.
        scopes: ScopeSet,
        expires_at: Option<Timestamp>,
    },
    /// A client with the key of one integration.
    Integration {
        tenant: CallerTenant,
        integration_id: IntegrationId,
        key: CallerKey,
        expires_at: Option<Timestamp>,
    },
    /// A person of a tenant, authenticated by a configured issuer.
    Person {
        tenant: CallerTenant,
        /// The issuer and the subject.
        name: String,
        role: Role,
        /// When the token expires.
        expires_at: Timestamp,
    },
}

impl Caller {
    /// Whether the credential has expired. A cached caller may outlive its credential.
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        match self {
            Self::Machine { expires_at, .. } | Self::Integration { expires_at, .. } => {
                is_past(*expires_at, now)
            }
            Self::Person { expires_at, .. } => is_past(Some(*expires_at), now),
            Self::Operator => false,
        }
    }

    /// The tenant and the key of the caller.
    pub(super) fn key(&self) -> Option<(TenantId, CallerKey)> {
        match self {
            Self::Machine { tenant, key, .. } | Self::Integration { tenant, key, .. } => {
                Some((tenant.tenant_id, *key))
            }
            Self::Operator | Self::Person { .. } => None,
        }
    }

    /// The integration of an integration key.
    pub(super) fn restricted_to(&self) -> Option<IntegrationId> {
        match self {
            Self::Integration { integration_id, .. } => Some(*integration_id),
            Self::Operator | Self::Machine { .. } | Self::Person { .. } => None,
        }
    }

    /// The memory that the caller takes in a cache, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let name = match self {
            Self::Person { name, .. } => name.capacity(),
            Self::Operator | Self::Machine { .. } | Self::Integration { .. } => 0,
        };
        size_of::<Self>() + name
    }

    /// When the caller's key expires. A person's token is not a key.
    pub(super) fn key_ends_at(&self) -> Option<Timestamp> {
        match self {
            Self::Machine { expires_at, .. } | Self::Integration { expires_at, .. } => *expires_at,
            Self::Operator | Self::Person { .. } => None,
        }
    }

    pub(super) fn is_person(&self) -> bool {
        matches!(self, Self::Person { .. })
    }

    /// The caller's tenant. The operator has none.
    pub(crate) fn tenant(&self) -> Option<CallerTenant> {
        match self {
            Self::Operator => None,
            Self::Machine { tenant, .. }
            | Self::Integration { tenant, .. }
            | Self::Person { tenant, .. } => Some(*tenant),
        }
    }

    /// The kind of actor on the wire.
    pub(super) fn actor_type(&self) -> &'static str {
        match self {
            Self::Operator => OPERATOR,
            Self::Machine { .. } | Self::Integration { .. } => "machine",
            Self::Person { .. } => "customer",
        }
    }

    pub(super) fn actor(&self) -> Actor {
        let actor_id = match self {
            Self::Operator => "operator".to_owned(),
            Self::Machine { key, .. } | Self::Integration { key, .. } => key.key_id.to_string(),
            Self::Person { name, .. } => name.clone(),
        };
        let (actor_type, request_id) = (self.actor_type(), request_id::current_text());
        let address = ClientAddress::current().map(|client| client.0.to_string());
        Actor { actor_type, actor_id, request_id, address }
    }

    /// The onboarding state that the first call of this caller leads to.
    pub(super) fn step(&self) -> Option<OnboardingState> {
        match self {
            Self::Operator => None,
            Self::Machine { .. } | Self::Integration { .. } => Some(OnboardingState::SdkConnected),
            Self::Person { .. } => Some(OnboardingState::IdentityVerified),
        }
    }

    /// Refuses a caller without the scope, key or role that a route needs.
    pub(super) fn check(
        &self,
        scope: Option<&str>,
        integration_key: bool,
        needed: Role,
    ) -> Result<(), ApiError> {
        let no_scope = |message: String| Err(ApiError::new(ErrorCode::MissingScope, message));
        match self {
            Self::Operator => Ok(()),
            Self::Machine { .. } | Self::Integration { .. } if scope.is_none() => {
                let message = format!(
                    "This route does not accept keys. It needs a person with the role {}.",
                    needed.as_str()
                );
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
                no_scope("This route does not accept integration keys.".to_owned())
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
pub(crate) struct CallerTenant {
    pub(crate) tenant_id: TenantId,
    /// The lifecycle state.
    pub(crate) lifecycle: TenantLifecycle,
    /// The onboarding state.
    pub(crate) onboarding: OnboardingState,
}

impl CallerTenant {
    pub(super) fn of(row: &TenantRow) -> Self {
        let TenantRow { tenant_id, lifecycle, onboarding, .. } = row;
        Self { tenant_id: *tenant_id, lifecycle: *lifecycle, onboarding: *onboarding }
    }
}

/// How a credential was presented. This decides what it can authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CredentialKind {
    /// As a bearer token: the operator's token, an API key or a person's token.
    Bearer,
    /// In the header for API keys.
    ApiKey,
    /// In the header for integration keys.
    Integration,
}

/// Whether an expiry lies in the past.
pub(super) fn is_past(expires_at: Option<Timestamp>, now: Timestamp) -> bool {
    expires_at.is_some_and(|expires_at| expires_at <= now)
}
