//! What the last check of an integration's provider and credential said.

/// The health of an integration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    #[default]
    Unknown,
    /// The provider answered in time.
    Healthy,
    /// The provider answered late, or asked to slow down.
    Degraded,
    /// The last check failed, for this cause.
    Failing(FailureCause),
}

/// Why a check failed: the two causes lead to different decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureCause {
    /// The provider refused the credential: calls are hard-blocked.
    Credential,
    /// The provider could not be reached or failed itself: calls are warned.
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
