//! The decision about a call: the checks of docs/concepts.md, in their order.

use crate::account::Account;
use crate::estimate::Estimate;
use crate::health::{FailureCause, Health};
use crate::integration::{BuiltInLimit, Integration, IntegrationStatus};
use crate::limit::{Action, Bound, DEFAULT_WARN_PERCENT, Limit, WarnPercents, Window};
use crate::limit_account::LimitAccount;
use crate::limit_state::{AccountSums, LimitState};
use crate::measure::Measure;
use crate::period::Period;
use crate::tenant::TenantLifecycle;
use crate::time::Timestamp;
use crate::totals::Overflow;

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
    CallLimitExceeded,
    ConcurrencyExceeded,
    /// A required label is missing.
    ScopeMissing,
    BudgetWarning,
    TokenWarning,
    CallWarning,
    ProviderUnreachable,
    AllChecksPassed,
}

impl ReasonCode {
    /// All codes, for the codec and the OpenAPI document.
    pub const ALL: [Self; 17] = [
        Self::IntegrationNotFound,
        Self::IntegrationDisabled,
        Self::IntegrationNotEnabled,
        Self::IntegrationError,
        Self::CredentialsInvalid,
        Self::TenantSuspended,
        Self::BudgetExceeded,
        Self::TokenLimitExceeded,
        Self::RateLimitExceeded,
        Self::CallLimitExceeded,
        Self::ConcurrencyExceeded,
        Self::ScopeMissing,
        Self::BudgetWarning,
        Self::TokenWarning,
        Self::CallWarning,
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
            Self::CallLimitExceeded => "call_limit_exceeded",
            Self::ConcurrencyExceeded => "concurrency_exceeded",
            Self::ScopeMissing => "scope_missing",
            Self::BudgetWarning => "budget_warning",
            Self::TokenWarning => "token_warning",
            Self::CallWarning => "call_warning",
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
    DEFAULT_WARN_PERCENT
}

/// A limit that a call falls under, with its account.
#[derive(Clone, Copy, Debug)]
pub struct LimitInForce<'a> {
    pub limit: &'a Limit,
    pub account: &'a LimitAccount,
    /// The period of the decision.
    pub period: Period,
}

/// The limits that a call falls under, beside those of its integration.
#[derive(Clone, Debug, Default)]
pub struct LimitsInForce<'a> {
    pub limits: Vec<LimitInForce<'a>>,
    /// Whether a limit requires a label that the call does not have.
    pub is_label_missing: bool,
}

/// A limit in a decision.
struct Checked<'a> {
    state: LimitState,
    action: Action,
    warn_percents: WarnPercents,
    of: Counted<'a>,
}

/// Where a limit of a decision counts.
enum Counted<'a> {
    Integration(BuiltInLimit),
    Account(LimitInForce<'a>),
}

/// Decides about a call at `now`, without changing anything.
///
/// The accounts must know the sums of their holds that are due at `now`.
///
/// # Errors
/// [`Overflow`] if the month of `now` is not loaded. The caller must refuse the call then.
pub fn decide(
    account: &Account,
    limits: &LimitsInForce<'_>,
    estimate: Estimate,
    now: Timestamp,
) -> Result<Decision, Overflow> {
    if let Some(code) = block_reason(account) {
        return Ok(Decision::hard_blocked(code));
    }
    if limits.is_label_missing {
        let reasons = vec![Reason::plain(ReasonCode::ScopeMissing)];
        return Ok(Decision { verdict: Verdict::Blocked, reasons });
    }
    let checked = checked_limits(account, limits, now)?;
    if let Some(refused) = refusal(account, &checked, estimate, now) {
        return Ok(refused);
    }
    let mut reasons: Vec<Reason> =
        checked.iter().filter_map(|checked| warning(checked, estimate)).collect();
    if account.integration.health == Health::Failing(FailureCause::Provider) {
        reasons.push(Reason::plain(ReasonCode::ProviderUnreachable));
    }
    if reasons.is_empty() {
        let reasons = vec![Reason::plain(ReasonCode::AllChecksPassed)];
        return Ok(Decision { verdict: Verdict::Allowed, reasons });
    }
    Ok(Decision { verdict: Verdict::Warned, reasons })
}

/// The enabled limits in the order in which they are checked: by measure, those of the integration
/// first.
fn checked_limits<'a>(
    account: &Account,
    limits: &LimitsInForce<'a>,
    now: Timestamp,
) -> Result<Vec<Checked<'a>>, Overflow> {
    let sums = AccountSums::of(account, now)?;
    let built_in = account.integration.limits.limits().map(|limit| Checked {
        state: sums.state(limit),
        action: limit.action(),
        warn_percents: limit.warn_percents(),
        of: Counted::Integration(limit),
    });
    let mut checked: Vec<Checked<'a>> = built_in.collect();
    for in_force in limits.limits.iter().filter(|in_force| in_force.limit.enabled) {
        let rule = &in_force.limit.rule;
        checked.push(Checked {
            state: in_force.account.state(&rule.bound, in_force.period, now)?,
            action: rule.action,
            warn_percents: rule.warn_percents,
            of: Counted::Account(*in_force),
        });
    }
    checked.sort_by_key(|checked| step(checked.state.measure));
    Ok(checked)
}

/// The step in which a measure is checked: cost, tokens, then calls and open reservations.
const fn step(measure: Measure) -> u8 {
    match measure {
        Measure::Cost => 4,
        Measure::Tokens => 5,
        Measure::Calls | Measure::Concurrent => 6,
    }
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

/// The refusal of a call, if a limit refuses it.
///
/// A limit that blocks decides before one that throttles; then the step decides, then the smallest
/// share left. All refusing limits of the deciding step are reasons, in this order.
fn refusal(
    account: &Account,
    checked: &[Checked<'_>],
    estimate: Estimate,
    now: Timestamp,
) -> Option<Decision> {
    let refuses =
        |checked: &&Checked<'_>| checked.action.refuses() && checked.state.refuses(estimate);
    let mut refusing: Vec<&Checked<'_>> = checked.iter().filter(refuses).collect();
    let verdict = |checked: &Checked<'_>| match checked.action {
        Action::Block => Verdict::Blocked,
        Action::Throttle | Action::Warn => Verdict::Throttled,
    };
    refusing.sort_by_key(|checked| {
        let state = checked.state;
        (std::cmp::Reverse(verdict(checked)), step(state.measure), state.share_left())
    });
    let first = refusing.first()?;
    let deciding = step(first.state.measure);
    let of_step = refusing.iter().filter(|checked| step(checked.state.measure) == deciding);
    let reasons = of_step.map(|checked| checked.refusal_reason(account, estimate, now)).collect();
    Some(Decision { verdict: verdict(first), reasons })
}

impl Checked<'_> {
    fn reason(&self, code: ReasonCode, threshold_percent: u8) -> Reason {
        Reason {
            code,
            measure: Some(self.state.measure),
            limit_value: self.state.amount,
            current_value: self.state.taken(),
            threshold_percent: Some(threshold_percent),
            retry_after_seconds: None,
        }
    }

    fn refusal_reason(&self, account: &Account, estimate: Estimate, now: Timestamp) -> Reason {
        let code = match self.state.measure {
            Measure::Cost => ReasonCode::BudgetExceeded,
            Measure::Tokens => ReasonCode::TokenLimitExceeded,
            Measure::Calls if self.is_of_minute() => ReasonCode::RateLimitExceeded,
            Measure::Calls => ReasonCode::CallLimitExceeded,
            Measure::Concurrent => ReasonCode::ConcurrencyExceeded,
        };
        let retry_after_seconds = match self.action {
            Action::Block | Action::Warn => None,
            Action::Throttle => self.retry_after(account, estimate, now),
        };
        Reason { retry_after_seconds, ..self.reason(code, 100) }
    }

    fn is_of_minute(&self) -> bool {
        match &self.of {
            Counted::Integration(limit) => matches!(limit, BuiltInLimit::Rate(_)),
            Counted::Account(in_force) => {
                matches!(in_force.limit.rule.bound, Bound::Calls(Window::Minute, _))
            }
        }
    }

    fn retry_after(&self, account: &Account, estimate: Estimate, now: Timestamp) -> Option<u32> {
        match &self.of {
            Counted::Integration(limit) => {
                Some(account.rate.retry_after(now.second(), limit.amount()))
            }
            Counted::Account(LimitInForce { limit, account, period }) => {
                let fits = |state: LimitState| !state.refuses(estimate);
                account.retry_after(&limit.rule.bound, *period, now, fits)
            }
        }
    }
}

fn warning(checked: &Checked<'_>, estimate: Estimate) -> Option<Reason> {
    let state = checked.state;
    let reached =
        |percent: &u8| state.taken_with(estimate) * 100 >= state.amount * i128::from(*percent);
    let percent = checked.warn_percents.iter().rev().find(reached)?;
    let code = match state.measure {
        Measure::Cost => ReasonCode::BudgetWarning,
        Measure::Tokens => ReasonCode::TokenWarning,
        Measure::Calls | Measure::Concurrent => ReasonCode::CallWarning,
    };
    Some(checked.reason(code, percent))
}
