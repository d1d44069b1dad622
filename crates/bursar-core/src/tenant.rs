//! The life of a tenant and the steps of its onboarding.

/// Where a tenant is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TenantLifecycle {
    /// May do everything.
    Active,
    /// Reads and telemetry only; every decision is a hard block.
    Suspended,
    /// Nothing but the operator's routes.
    Terminated,
    /// Terminated and put away.
    Archived,
}

impl TenantLifecycle {
    /// The contract's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Suspended => "SUSPENDED",
            Self::Terminated => "TERMINATED",
            Self::Archived => "ARCHIVED",
        }
    }
}

/// How far a tenant has come in setting itself up; derived by the server, never claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnboardingState {
    /// The operator made the tenant.
    Created,
    /// A person of the tenant signed in.
    IdentityVerified,
    /// The first key exists.
    ApiKeyCreated,
    /// A machine called.
    SdkConnected,
    /// Finalized, or the first usage record came.
    Complete,
}

impl OnboardingState {
    /// The contract's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::IdentityVerified => "IDENTITY_VERIFIED",
            Self::ApiKeyCreated => "API_KEY_CREATED",
            Self::SdkConnected => "SDK_CONNECTED",
            Self::Complete => "COMPLETE",
        }
    }
}
