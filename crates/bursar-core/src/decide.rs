//! The decision about a call: the checks of docs/concepts.md, in their order.

use crate::account::{Account, Overflow};
use crate::health::{FailureCause, Health};
use crate::integration::{Integration, IntegrationStatus, WARN_PERCENT};
use crate::limit::{Action, Limit, Measure};
use crate::limit_state::AccountSums;
use crate::money::Nanos;
use crate::tenant::TenantLifecycle;
use crate::time::Timestamp;
use crate::tokens::check_tokens;
use crate::usage_error::UsageError;

/// What a call is expected to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    pub cost: Nanos,
    /// Input and output tokens.
    pub tokens: i64,
}

impl Estimate {
    /// Checks the tokens of an estimate; the cost was checked when it was parsed.
    ///
    /// # Errors
    /// [`UsageError`] if `estimated_tokens` is outside 0 to 10^9.
    pub fn new(cost: Nanos, tokens: i64) -> Result<Self, UsageError> {
        check_tokens("estimated_tokens", tokens)?;
        Ok(Self { cost, tokens })
    }

    /// What the call adds to a measure.
    fn of(self, measure: Measure) -> i128 {
        match measure {
            Measure::Cost => i128::from(self.cost.get()),
            Measure::Tokens => i128::from(self.tokens),
            Measure::Calls => 1,
        }
    }
}

/// The answer of a decision, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    Allowed,
    /// The call may go on, and the reasons say what to look at.
    Warned,
    /// Retry after the time in the reason.
    Throttled,
    /// A limit of the current period refuses the call.
    Blocked,
    /// The state of the tenant or integration refuses every call.
    HardBlocked,
}

impl Verdict {
    /// All verdicts, from best to worst.
    pub const ALL: [Self; 5] =
        [Self::Allowed, Self::Warned, Self::Throttled, Self::Blocked, Self::HardBlocked];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Warned => "warned",
            Self::Throttled => "throttled",
            Self::Blocked => "blocked",
            Self::HardBlocked => "hard_blocked",
        }
    }

    /// Whether the call may go on.
    pub const fn admits(self) -> bool {
        matches!(self, Self::Allowed | Self::Warned)
    }
}

/// The code of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReasonCode {
    IntegrationNotFound,
    IntegrationDisabled,
    IntegrationNotEnabled,
    IntegrationError,
    CredentialsInvalid,
    TenantSuspended,
    BudgetExceeded,
    TokenLimitExceeded,
    RateLimitExceeded,
    BudgetWarning,
    TokenWarning,
    ProviderUnreachable,
    AllChecksPassed,
}

impl ReasonCode {
    /// All codes, for the codec and the OpenAPI document.
    pub const ALL: [Self; 13] = [
        Self::IntegrationNotFound,
        Self::IntegrationDisabled,
        Self::IntegrationNotEnabled,
        Self::IntegrationError,
        Self::CredentialsInvalid,
        Self::TenantSuspended,
        Self::BudgetExceeded,
        Self::TokenLimitExceeded,
        Self::RateLimitExceeded,
        Self::BudgetWarning,
        Self::TokenWarning,
        Self::ProviderUnreachable,
        Self::AllChecksPassed,
    ];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IntegrationNotFound => "integration_not_found",
            Self::IntegrationDisabled => "integration_disabled",
            Self::IntegrationNotEnabled => "integration_not_enabled",
            Self::IntegrationError => "integration_error",
            Self::CredentialsInvalid => "credentials_invalid",
            Self::TenantSuspended => "tenant_suspended",
            Self::BudgetExceeded => "budget_exceeded",
            Self::TokenLimitExceeded => "token_limit_exceeded",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::BudgetWarning => "budget_warning",
            Self::TokenWarning => "token_warning",
            Self::ProviderUnreachable => "provider_unreachable",
            Self::AllChecksPassed => "all_checks_passed",
        }
    }
}

/// One reason of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    pub code: ReasonCode,
    /// The measure of the limit that the reason is about.
    pub measure: Option<Measure>,
    /// The limit's amount, in the unit of the measure.
    pub limit_value: i128,
    /// What was used and held at the decision, in the unit of the measure.
    pub current_value: i128,
    /// The share of the limit from which the reason applies: 100 for a refusal, 80 for a warning.
    pub threshold_percent: Option<u8>,
    /// Seconds after which a retry may succeed.
    pub retry_after_seconds: Option<u32>,
}

impl Reason {
    /// A reason that is not about a limit.
    pub const fn plain(code: ReasonCode) -> Self {
        Self {
            code,
            measure: None,
            limit_value: 0,
            current_value: 0,
            threshold_percent: None,
            retry_after_seconds: None,
        }
    }
}

/// A decision and its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// At least one reason: that of a refusal, all warnings, or that all checks passed.
    pub reasons: Vec<Reason>,
}

impl Decision {
    /// A hard block for one reason.
    pub fn hard_blocked(code: ReasonCode) -> Self {
        Self { verdict: Verdict::HardBlocked, reasons: vec![Reason::plain(code)] }
    }
}

/// The share of a limit, in percent, from which on calls get a warning.
pub const fn warn_percent() -> u8 {
    WARN_PERCENT
}

/// Decides about a call at `now`, without changing anything.
///
/// The account must know the sums of its holds that are due at `now`.
///
/// # Errors
/// [`Overflow`] if the month of `now` is not loaded. The caller must refuse the call then.
pub fn decide(account: &Account, estimate: Estimate, now: Timestamp) -> Result<Decision, Overflow> {
    if let Some(code) = block_reason(account) {
        return Ok(Decision::hard_blocked(code));
    }
    let sums = AccountSums::of(account, now)?;
    let limits = || account.integration.limits.limits();
    for limit in limits() {
        let state = sums.state(&limit);
        if state.refuses(estimate.of(limit.measure)) {
            return Ok(refusal(account, &limit, state.taken(), now));
        }
    }
    let mut reasons: Vec<Reason> = limits()
        .filter_map(|limit| warning(&limit, sums.state(&limit).taken(), estimate))
        .collect();
    if account.integration.health == Health::Failing(FailureCause::Provider) {
        reasons.push(Reason::plain(ReasonCode::ProviderUnreachable));
    }
    if reasons.is_empty() {
        let reasons = vec![Reason::plain(ReasonCode::AllChecksPassed)];
        return Ok(Decision { verdict: Verdict::Allowed, reasons });
    }
    Ok(Decision { verdict: Verdict::Warned, reasons })
}

/// Steps 1 to 3: the states of the tenant and integration that refuse every call.
pub(crate) fn block_reason(account: &Account) -> Option<ReasonCode> {
    match account.lifecycle {
        TenantLifecycle::Active => {}
        TenantLifecycle::Suspended | TenantLifecycle::Terminated | TenantLifecycle::Archived => {
            return Some(ReasonCode::TenantSuspended);
        }
    }
    let integration: &Integration = &account.integration;
    match integration.status {
        IntegrationStatus::Deleted => Some(ReasonCode::IntegrationNotFound),
        IntegrationStatus::Disabled => Some(ReasonCode::IntegrationDisabled),
        IntegrationStatus::Created => Some(ReasonCode::IntegrationNotEnabled),
        IntegrationStatus::Error => Some(ReasonCode::IntegrationError),
        IntegrationStatus::Enabled => {
            integration.credential_is_invalid().then_some(ReasonCode::CredentialsInvalid)
        }
    }
}

fn refusal(account: &Account, limit: &Limit, current: i128, now: Timestamp) -> Decision {
    let code = match limit.measure {
        Measure::Cost => ReasonCode::BudgetExceeded,
        Measure::Tokens => ReasonCode::TokenLimitExceeded,
        Measure::Calls => ReasonCode::RateLimitExceeded,
    };
    let (verdict, retry_after_seconds) = match limit.action {
        Action::Block => (Verdict::Blocked, None),
        Action::Throttle => {
            let wait = account.rate.retry_after(now.second(), limit.amount);
            (Verdict::Throttled, Some(wait))
        }
    };
    let reason = Reason {
        code,
        measure: Some(limit.measure),
        limit_value: limit.amount,
        current_value: current,
        threshold_percent: Some(100),
        retry_after_seconds,
    };
    Decision { verdict, reasons: vec![reason] }
}

fn warning(limit: &Limit, current: i128, estimate: Estimate) -> Option<Reason> {
    let percent = limit.warn_percent?;
    let code = match limit.measure {
        Measure::Cost => ReasonCode::BudgetWarning,
        Measure::Tokens => ReasonCode::TokenWarning,
        Measure::Calls => return None,
    };
    let expected = current + estimate.of(limit.measure);
    (expected * 100 >= limit.amount * i128::from(percent)).then_some(Reason {
        code,
        measure: Some(limit.measure),
        limit_value: limit.amount,
        current_value: current,
        threshold_percent: Some(percent),
        retry_after_seconds: None,
    })
}
