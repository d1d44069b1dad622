//! The lifecycle and the onboarding of tenants.

/// The lifecycle state of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TenantLifecycle {
    /// Everything is allowed.
    Active,
    /// Only reads and telemetry are allowed; every decision is a hard block.
    Suspended,
    /// Only the operator's routes are allowed.
    Terminated,
    /// Terminated for good.
    Archived,
}

impl TenantLifecycle {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Suspended => "SUSPENDED",
            Self::Terminated => "TERMINATED",
            Self::Archived => "ARCHIVED",
        }
    }

    /// The state after a change.
    ///
    /// Allowed are ACTIVE to SUSPENDED and back, both to TERMINATED, and TERMINATED to ARCHIVED.
    ///
    /// # Errors
    /// [`TenantRefusal`] for every other change, including one to the same state.
    pub const fn becoming(self, to: Self) -> Result<Self, TenantRefusal> {
        match (self, to) {
            (Self::Active, Self::Suspended)
            | (Self::Suspended, Self::Active)
            | (Self::Active | Self::Suspended, Self::Terminated)
            | (Self::Terminated, Self::Archived) => Ok(to),
            (Self::Active, Self::Active | Self::Archived)
            | (Self::Suspended, Self::Suspended | Self::Archived)
            | (Self::Terminated, Self::Active | Self::Suspended | Self::Terminated)
            | (
                Self::Archived,
                Self::Active | Self::Suspended | Self::Terminated | Self::Archived,
            ) => Err(TenantRefusal::Lifecycle { from: self, to }),
        }
    }
}

/// Why a change of a tenant is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenantRefusal {
    /// The lifecycle does not allow this change.
    #[error("a tenant that is {} cannot become {}", .from.as_str(), .to.as_str())]
    Lifecycle { from: TenantLifecycle, to: TenantLifecycle },
    /// Onboarding can be finalized only after a machine has called.
    #[error("onboarding is {} and can be finalized from SDK_CONNECTED on", .0.as_str())]
    NotConnected(OnboardingState),
}

/// The onboarding state of a tenant. The server derives it; clients cannot set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnboardingState {
    /// The operator made the tenant.
    Created,
    /// A person of the tenant signed in.
    IdentityVerified,
    /// The tenant has its first key.
    ApiKeyCreated,
    /// A machine called the API with a key.
    SdkConnected,
    /// The tenant finalized the onboarding, or sent its first usage record.
    Complete,
}

impl OnboardingState {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::IdentityVerified => "IDENTITY_VERIFIED",
            Self::ApiKeyCreated => "API_KEY_CREATED",
            Self::SdkConnected => "SDK_CONNECTED",
            Self::Complete => "COMPLETE",
        }
    }

    /// The state after reaching a step; it never moves back.
    ///
    /// Steps can be skipped: if the operator creates the keys, no person has to sign in first.
    #[must_use]
    pub fn reached(self, step: Self) -> Self {
        self.max(step)
    }

    /// The state after the tenant finalizes its onboarding; a repetition changes nothing.
    ///
    /// # Errors
    /// [`TenantRefusal::NotConnected`] if no machine has called yet.
    pub const fn finalized(self) -> Result<Self, TenantRefusal> {
        match self {
            Self::SdkConnected | Self::Complete => Ok(Self::Complete),
            Self::Created | Self::IdentityVerified | Self::ApiKeyCreated => {
                Err(TenantRefusal::NotConnected(self))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [TenantLifecycle; 4] = [
        TenantLifecycle::Active,
        TenantLifecycle::Suspended,
        TenantLifecycle::Terminated,
        TenantLifecycle::Archived,
    ];
    const STEPS: [OnboardingState; 5] = [
        OnboardingState::Created,
        OnboardingState::IdentityVerified,
        OnboardingState::ApiKeyCreated,
        OnboardingState::SdkConnected,
        OnboardingState::Complete,
    ];

    #[test]
    fn a_tenants_lifecycle_allows_only_these_transitions() {
        let allowed = [
            ("ACTIVE", "SUSPENDED"),
            ("ACTIVE", "TERMINATED"),
            ("SUSPENDED", "ACTIVE"),
            ("SUSPENDED", "TERMINATED"),
            ("TERMINATED", "ARCHIVED"),
        ];
        for from in STATES {
            for to in STATES {
                let expected = if allowed.contains(&(from.as_str(), to.as_str())) {
                    Ok(to)
                } else {
                    Err(TenantRefusal::Lifecycle { from, to })
                };
                assert_eq!(from.becoming(to), expected);
            }
        }
    }

    #[test]
    fn onboarding_never_goes_back() {
        for from in STEPS {
            for step in STEPS {
                assert!(from.reached(step) >= from);
                assert!(from.reached(step) == from || from.reached(step) == step);
            }
        }
    }

    #[test]
    fn onboarding_is_finalized_once_a_machine_has_called() {
        let finalized = STEPS.map(|state| state.finalized().is_ok());
        assert_eq!(finalized, [false, false, false, true, true]);
    }
}
