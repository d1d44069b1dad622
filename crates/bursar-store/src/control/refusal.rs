//! Why a change of the control plane is refused.

use bursar_core::{LifecycleRefusal, TenantRefusal};

use crate::error::StoreError;

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlRefusal {
    #[error("no such tenant")]
    TenantNotFound,
    /// The tenant is suspended, so it cannot be changed.
    #[error("the tenant is suspended")]
    TenantSuspended,
    /// The tenant is terminated or archived, so it cannot be changed.
    #[error("the tenant is terminated")]
    TenantTerminated,
    /// The tenant's lifecycle or onboarding state does not permit the change.
    #[error(transparent)]
    Tenant(#[from] TenantRefusal),
    /// No such integration, or it is deleted.
    #[error("no such integration")]
    IntegrationNotFound,
    /// Another live integration of the tenant has the name.
    #[error("another integration has this name")]
    NameTaken,
    #[error("no such key")]
    KeyNotFound,
    #[error("the key is revoked or expired")]
    KeyEnded,
    #[error("the key was already rotated; rotate its successor")]
    KeyReplaced,
    /// The tenant has reached the limit on live integrations.
    #[error("a tenant may have {max} integrations")]
    TooManyIntegrations { max: u32 },
    /// The tenant has reached the limit on deleted integrations.
    #[error("a tenant may have {max} deleted integrations")]
    TooManyDeleted { max: u32 },
    /// The tenant or the integration has reached its limit on live keys.
    #[error("there may be {max} live keys")]
    TooManyKeys { max: u32 },
    /// The integration's status does not permit the change.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleRefusal),
}

/// The result of a change, which can be refused or fail.
pub type Changed<T> = Result<Result<T, ControlRefusal>, StoreError>;
