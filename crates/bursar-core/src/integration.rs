//! An integration as the rules see it: its status, its health and its limits.
//!
//! Name, provider, credential reference and configuration decide nothing and live with storage.

use crate::health::{FailureCause, Health};
use crate::limit::{Action, Limit, Measure, Scope, Window};
use crate::money::NANOS_PER_CENT;

/// At this share of a budget or token limit a call is warned (docs/concepts.md).
pub(crate) const WARN_PERCENT: u8 = 80;

/// Where an integration is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntegrationStatus {
    /// Registered, not yet enabled.
    Created,
    Enabled,
    Disabled,
    /// Put out of use by failing checks of its credential.
    Error,
    /// Gone for everyone but its past: usage stays, open reservations can settle.
    Deleted,
}

impl IntegrationStatus {
    /// The word on the wire; a deleted integration is never shown.
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

/// Whose figure counts as the cost of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CostBasis {
    /// The client's figure if it gave one, else the computed one.
    #[default]
    Reported,
    /// Always the server's figure, for clients that are not trusted.
    Computed,
}

/// The limits of an integration as they are set; 0 means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LimitSettings {
    /// Money a month, in cents; never negative.
    pub budget_limit_cents: i64,
    /// Tokens a month; never negative.
    pub token_limit_month: i64,
    /// Calls in 60 seconds; never negative.
    pub rate_limit_rpm: i64,
}

impl LimitSettings {
    /// The limits that are in force, in the order in which they decide.
    pub fn limits(self) -> impl Iterator<Item = Limit> {
        self.all().into_iter().filter(|limit| limit.amount > 0)
    }

    /// Budget, token limit and rate limit; an amount of 0 is no limit.
    pub fn all(self) -> [Limit; 3] {
        let cost = Limit {
            scope: Scope::Integration,
            measure: Measure::Cost,
            window: Window::Month,
            amount: i128::from(self.budget_limit_cents) * i128::from(NANOS_PER_CENT),
            action: Action::Block,
            warn_percent: Some(WARN_PERCENT),
        };
        let tokens =
            Limit { measure: Measure::Tokens, amount: i128::from(self.token_limit_month), ..cost };
        let calls = Limit {
            scope: Scope::Integration,
            measure: Measure::Calls,
            window: Window::Minute,
            amount: i128::from(self.rate_limit_rpm),
            action: Action::Throttle,
            warn_percent: None,
        };
        [cost, tokens, calls]
    }
}

/// What the rules know of an integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integration {
    /// Where it is in its life.
    pub status: IntegrationStatus,
    /// What the last check said.
    pub health: Health,
    pub limits: LimitSettings,
    /// Whose cost figure counts.
    pub cost_basis: CostBasis,
}

/// Why a change of status is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifecycleRefusal {
    /// It was deleted.
    #[error("the integration is deleted")]
    Deleted,
    /// It is in error; a good test leads out of it.
    #[error("the integration is in error: test it successfully before enabling it")]
    InError,
}

impl Integration {
    /// A new integration: created, never checked.
    pub const fn new(limits: LimitSettings, cost_basis: CostBasis) -> Self {
        Self { status: IntegrationStatus::Created, health: Health::Unknown, limits, cost_basis }
    }

    /// The status after enabling it; enabling what is enabled changes nothing.
    ///
    /// # Errors
    /// [`LifecycleRefusal`] from error, and for what is deleted.
    pub const fn enabled(self) -> Result<IntegrationStatus, LifecycleRefusal> {
        match self.status {
            IntegrationStatus::Created
            | IntegrationStatus::Disabled
            | IntegrationStatus::Enabled => Ok(IntegrationStatus::Enabled),
            IntegrationStatus::Error => Err(LifecycleRefusal::InError),
            IntegrationStatus::Deleted => Err(LifecycleRefusal::Deleted),
        }
    }

    /// The status after disabling it, from any state of its life.
    ///
    /// # Errors
    /// [`LifecycleRefusal::Deleted`].
    pub const fn disabled(self) -> Result<IntegrationStatus, LifecycleRefusal> {
        match self.status {
            IntegrationStatus::Created
            | IntegrationStatus::Enabled
            | IntegrationStatus::Disabled
            | IntegrationStatus::Error => Ok(IntegrationStatus::Disabled),
            IntegrationStatus::Deleted => Err(LifecycleRefusal::Deleted),
        }
    }

    /// Whether the provider is known to have refused its credential.
    pub const fn credential_is_invalid(self) -> bool {
        matches!(self.health, Health::Failing(FailureCause::Credential))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enabling_works_from_created_and_disabled_only() {
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
        assert!(largest.limits().all(|limit| limit.amount >= i128::from(i64::MAX)));
        assert_eq!(largest.limits().count(), 3);
    }
}
