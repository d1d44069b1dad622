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
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Suspended => "SUSPENDED",
            Self::Terminated => "TERMINATED",
            Self::Archived => "ARCHIVED",
        }
    }

    /// The life after a change: ACTIVE to SUSPENDED and back, either to TERMINATED, that to ARCHIVED.
    ///
    /// # Errors
    /// [`TenantRefusal`] for every other change, and for one that changes nothing.
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
            ) => Err(TenantRefusal::Life { from: self, to }),
        }
    }
}

/// Why a change of a tenant is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TenantRefusal {
    /// Its life does not lead there.
    #[error("a tenant that is {} cannot become {}", .from.as_str(), .to.as_str())]
    Life {
        /// Where it is.
        from: TenantLifecycle,
        /// Where it should go.
        to: TenantLifecycle,
    },
    /// Setting up is not finished before a machine has called.
    #[error("onboarding is {} and can be finalized from SDK_CONNECTED on", .0.as_str())]
    NotConnected(OnboardingState),
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
    /// The state once a step is reached: the furthest of both, for nothing leads back.
    ///
    /// A step may be passed over: where the operator makes the keys, no person signs in before.
    #[must_use]
    pub fn reached(self, step: Self) -> Self {
        self.max(step)
    }

    /// The state once a tenant says that it is set up; saying it again changes nothing.
    ///
    /// # Errors
    /// [`TenantRefusal::NotConnected`] before a machine has called.
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

    const LIVES: [TenantLifecycle; 4] = [
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
    fn a_life_goes_these_ways_and_no_other() {
        let ways = [
            ("ACTIVE", "SUSPENDED"),
            ("ACTIVE", "TERMINATED"),
            ("SUSPENDED", "ACTIVE"),
            ("SUSPENDED", "TERMINATED"),
            ("TERMINATED", "ARCHIVED"),
        ];
        for from in LIVES {
            for to in LIVES {
                let expected = if ways.contains(&(from.as_str(), to.as_str())) {
                    Ok(to)
                } else {
                    Err(TenantRefusal::Life { from, to })
                };
                assert_eq!(from.becoming(to), expected);
            }
        }
    }

    #[test]
    fn onboarding_never_leads_back() {
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
