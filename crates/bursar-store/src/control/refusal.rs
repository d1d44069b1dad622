//! Why a change of the control plane is refused.

use bursar_core::{LifecycleRefusal, TenantRefusal};

use crate::error::StoreError;

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlRefusal {
    /// No such tenant.
    #[error("no such tenant")]
    TenantNotFound,
    /// The tenant is suspended, so nothing of it can be changed.
    #[error("the tenant is suspended")]
    TenantSuspended,
    /// The tenant is at the end of its life, so nothing of it can be changed.
    #[error("the tenant is terminated")]
    TenantTerminated,
    /// The tenant's life or its onboarding does not allow it.
    #[error(transparent)]
    Tenant(#[from] TenantRefusal),
    /// No such integration, or it is deleted.
    #[error("no such integration")]
    IntegrationNotFound,
    /// Another live integration of the tenant has the name.
    #[error("another integration has this name")]
    NameTaken,
    /// No such key.
    #[error("no such key")]
    KeyNotFound,
    /// The key is revoked or expired.
    #[error("the key is revoked or expired")]
    KeyEnded,
    /// The key was rotated already.
    #[error("another key took its place already; rotate that one")]
    KeyReplaced,
    /// The tenant has as many live integrations as it may have.
    #[error("a tenant may have {max} integrations")]
    TooManyIntegrations {
        /// How many that is.
        max: u32,
    },
    /// The tenant has deleted as many integrations as are kept.
    #[error("a tenant may have {max} deleted integrations")]
    TooManyDeleted {
        /// How many that is.
        max: u32,
    },
    /// The tenant, or the integration, has as many live keys as it may have.
    #[error("there may be {max} live keys")]
    TooManyKeys {
        /// How many that is.
        max: u32,
    },
    /// The integration's life does not allow it.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleRefusal),
}

/// What became of a change.
pub type Changed<T> = Result<Result<T, ControlRefusal>, StoreError>;
