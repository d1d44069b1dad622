//! The part of an integration that decisions depend on: status, health and limits.
//!
//! Deliberately absent: name, provider, credential reference and configuration, which decide
//! nothing. Storage has them.

use crate::health::{FailureCause, Health};
use crate::limit::{Action, WarnPercents};
use crate::measure::{Calls, Cost, Measure, Quantity, Tokens};
use crate::money::NANOS_PER_CENT;

/// The lifecycle status of an integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntegrationStatus {
    /// Registered, not yet enabled.
    Created,
    Enabled,
    Disabled,
    /// Checks of its credential failed, so it is out of use.
    Error,
    /// Deleted: its usage stays readable, and its open reservations can settle.
    Deleted,
}

impl IntegrationStatus {
    /// The word on the wire; the API never shows a deleted integration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Error => "error",
            Self::Deleted => "deleted",
        }
    }
}

/// The source of the costs that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CostBasis {
    /// The client's figure if it sends one, else the computed figure.
    #[default]
    Reported,
    /// Always the server's figure, for untrusted clients.
    Computed,
}

/// The configured limits of an integration; 0 means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LimitSettings {
    /// The budget of a month, in cents; never negative.
    pub budget_limit_cents: i64,
    /// Tokens of a month; never negative.
    pub token_limit_month: i64,
    /// Calls in 60 seconds; never negative.
    pub rate_limit_rpm: i64,
}

/// A limit that is a field of an integration. The account of the integration counts for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BuiltInLimit {
    /// Cost in a UTC month.
    Budget(Quantity<Cost>),
    /// Tokens in a UTC month.
    Tokens(Quantity<Tokens>),
    /// Calls in 60 seconds.
    Rate(Quantity<Calls>),
}

impl BuiltInLimit {
    pub const fn measure(self) -> Measure {
        match self {
            Self::Budget(_) => Measure::Cost,
            Self::Tokens(_) => Measure::Tokens,
            Self::Rate(_) => Measure::Calls,
        }
    }

    /// The amount, in the unit of the measure; 0 means unlimited.
    pub const fn amount(self) -> i128 {
        match self {
            Self::Budget(amount) => amount.get(),
            Self::Tokens(amount) => amount.get(),
            Self::Rate(amount) => amount.get(),
        }
    }

    pub(crate) const fn action(self) -> Action {
        match self {
            Self::Budget(_) | Self::Tokens(_) => Action::Block,
            Self::Rate(_) => Action::Throttle,
        }
    }

    pub(crate) const fn warn_percents(self) -> WarnPercents {
        match self {
            Self::Budget(_) | Self::Tokens(_) => WarnPercents::DEFAULT,
            Self::Rate(_) => WarnPercents::NONE,
        }
    }
}

impl LimitSettings {
    /// The limits in force, in the order in which decisions check them.
    pub fn limits(self) -> impl Iterator<Item = BuiltInLimit> {
        self.all().into_iter().filter(|limit| limit.amount() > 0)
    }

    /// Budget, token limit and rate limit; an amount of 0 is no limit.
    pub fn all(self) -> [BuiltInLimit; 3] {
        let budget = i128::from(self.budget_limit_cents) * i128::from(NANOS_PER_CENT);
        [
            BuiltInLimit::Budget(Quantity::new(budget)),
            BuiltInLimit::Tokens(Quantity::new(self.token_limit_month.into())),
            BuiltInLimit::Rate(Quantity::new(self.rate_limit_rpm.into())),
        ]
    }
}

/// The part of an integration that decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integration {
    pub status: IntegrationStatus,
    /// The result of the last check.
    pub health: Health,
    pub limits: LimitSettings,
    pub cost_basis: CostBasis,
}

/// Why a change of status is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifecycleRefusal {
    #[error("the integration is deleted")]
    Deleted,
    /// Only a successful test ends the status `Error`.
    #[error("the integration is in error: test it successfully before enabling it")]
    InError,
}

impl Integration {
    /// A new integration, which was never checked.
    pub const fn new(limits: LimitSettings, cost_basis: CostBasis) -> Self {
        Self { status: IntegrationStatus::Created, health: Health::Unknown, limits, cost_basis }
    }

    /// The status after enabling the integration; it may already be enabled.
    ///
    /// # Errors
    /// [`LifecycleRefusal`] if the status is `Error` or `Deleted`.
    pub const fn enabled(self) -> Result<IntegrationStatus, LifecycleRefusal> {
        match self.status {
            IntegrationStatus::Created
            | IntegrationStatus::Disabled
            | IntegrationStatus::Enabled => Ok(IntegrationStatus::Enabled),
            IntegrationStatus::Error => Err(LifecycleRefusal::InError),
            IntegrationStatus::Deleted => Err(LifecycleRefusal::Deleted),
        }
    }

    /// The status after disabling the integration; it may already be disabled.
    ///
    /// # Errors
    /// [`LifecycleRefusal::Deleted`] if it is deleted.
    pub const fn disabled(self) -> Result<IntegrationStatus, LifecycleRefusal> {
        match self.status {
            IntegrationStatus::Created
            | IntegrationStatus::Enabled
            | IntegrationStatus::Disabled
            | IntegrationStatus::Error => Ok(IntegrationStatus::Disabled),
            IntegrationStatus::Deleted => Err(LifecycleRefusal::Deleted),
        }
    }

    /// Whether the provider refused the credential at the last check.
    pub(crate) const fn credential_is_invalid(self) -> bool {
        matches!(self.health, Health::Failing(FailureCause::Credential))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integration_is_enabled_and_disabled_only_from_these_states() {
        let with = |status| Integration {
            status,
            ..Integration::new(LimitSettings::default(), CostBasis::Reported)
        };
        assert_eq!(with(IntegrationStatus::Created).enabled(), Ok(IntegrationStatus::Enabled));
        assert_eq!(with(IntegrationStatus::Disabled).enabled(), Ok(IntegrationStatus::Enabled));
        assert_eq!(with(IntegrationStatus::Error).enabled(), Err(LifecycleRefusal::InError));
        assert_eq!(with(IntegrationStatus::Deleted).enabled(), Err(LifecycleRefusal::Deleted));
        assert_eq!(with(IntegrationStatus::Error).disabled(), Ok(IntegrationStatus::Disabled));
        assert_eq!(with(IntegrationStatus::Deleted).disabled(), Err(LifecycleRefusal::Deleted));
    }

    #[test]
    fn a_limit_of_zero_is_no_limit_and_the_largest_one_is_computed() {
        assert_eq!(LimitSettings::default().limits().count(), 0);
        let largest = LimitSettings {
            budget_limit_cents: i64::MAX,
            token_limit_month: i64::MAX,
            rate_limit_rpm: i64::MAX,
        };
        assert!(largest.limits().all(|limit| limit.amount() >= i128::from(i64::MAX)));
        assert_eq!(largest.limits().count(), 3);
    }
}
