//! The result of the last check of an integration's provider and credential.

/// The health of an integration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    #[default]
    Unknown,
    /// The provider answered in time.
    Healthy,
    /// The provider answered late, or asked the caller to slow down.
    Degraded,
    /// The last check failed.
    Failing(FailureCause),
}

/// Why a check failed. The two causes lead to different decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureCause {
    /// The provider refused the credential, so calls are hard-blocked.
    Credential,
    /// The provider was unreachable or failed, so calls get a warning.
    Provider,
}

impl Health {
    /// The word on the wire for `health_state`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failing(FailureCause::Credential | FailureCause::Provider) => "failing",
        }
    }
}
