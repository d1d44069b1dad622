//! A decision on the wire, and the rate limit headers that go with it.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bursar_core::{
    Account, AccountSums, BuiltInLimit, Decision, Measure, Reason, ReasonCode, TenantId, Timestamp,
    Verdict, warn_percent,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::wire::enums;
use crate::wire::enums::limit_type;
use crate::wire::format::{cents, usd};
use crate::wire::scalars::{Id, Instant, Usd};
use crate::wire::timestamps;

/// The quota policies, as in draft-ietf-httpapi-ratelimit-headers.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What remains of each quota.
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The decision about a call.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DecisionView {
    #[schema(value_type = enums::Verdict)]
    result: &'static str,
    #[schema(value_type = Id)]
    integration_id: String,
    #[schema(value_type = Id)]
    tenant_id: String,
    reasons: Vec<ReasonView>,
    degraded: bool,
    #[schema(value_type = Instant)]
    evaluated_at: String,
    #[schema(value_type = Object)]
    metadata: serde_json::Map<String, serde_json::Value>,
}

/// One reason for a decision. Amounts of money are in cents; `*_usd` fields hold the exact dollars.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReasonView {
    #[schema(value_type = enums::ReasonCode)]
    code: &'static str,
    message: String,
    #[schema(value_type = Option<enums::LimitType>, required)]
    limit_type: Option<&'static str>,
    #[schema(value_type = Option<i64>, required)]
    limit_value: Option<i128>,
    #[schema(value_type = Option<i64>, required)]
    current_value: Option<i128>,
    #[schema(required)]
    threshold_percent: Option<u8>,
    #[schema(required)]
    retry_after_seconds: Option<u32>,
    #[schema(value_type = Usd)]
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_value_usd: Option<String>,
    #[schema(value_type = Usd)]
    #[serde(skip_serializing_if = "Option::is_none")]
    current_value_usd: Option<String>,
}

impl DecisionView {
    /// A decision about the integration that the caller named.
    pub(crate) fn new(
        decision: &Decision,
        tenant_id: TenantId,
        integration_id: String,
        evaluated_at: Timestamp,
    ) -> Self {
        Self {
            result: decision.verdict.as_str(),
            integration_id,
            tenant_id: tenant_id.to_string(),
            reasons: decision.reasons.iter().map(ReasonView::from).collect(),
            degraded: false,
            evaluated_at: timestamps::text(evaluated_at),
            metadata: serde_json::Map::new(),
        }
    }
}

impl From<&Reason> for ReasonView {
    fn from(reason: &Reason) -> Self {
        let shown = |amount: i128| match reason.measure {
            None => None,
            Some(Measure::Cost) => Some(cents(amount)),
            Some(Measure::Tokens | Measure::Calls | Measure::Concurrent) => Some(amount),
        };
        let dollars = |amount: i128| match reason.measure {
            Some(Measure::Cost) => Some(usd(amount)),
            Some(Measure::Tokens | Measure::Calls | Measure::Concurrent) | None => None,
        };
        Self {
            code: reason.code.as_str(),
            message: message(reason),
            limit_type: reason.measure.map(limit_type),
            limit_value: shown(reason.limit_value),
            current_value: shown(reason.current_value),
            threshold_percent: reason.threshold_percent,
            retry_after_seconds: reason.retry_after_seconds,
            limit_value_usd: dollars(reason.limit_value),
            current_value_usd: dollars(reason.current_value),
        }
    }
}

fn message(reason: &Reason) -> String {
    let (current, limit) = (reason.current_value, reason.limit_value);
    let percent = reason.threshold_percent.unwrap_or(warn_percent());
    match reason.code {
        ReasonCode::IntegrationNotFound => "The tenant has no integration with this id.".to_owned(),
        ReasonCode::IntegrationDisabled => "The integration is disabled.".to_owned(),
        ReasonCode::IntegrationNotEnabled => "The integration has not been enabled yet.".to_owned(),
        ReasonCode::IntegrationError => {
            "The integration is in error. Test it to learn the cause.".to_owned()
        }
        ReasonCode::CredentialsInvalid => "The provider refused the credential.".to_owned(),
        ReasonCode::TenantSuspended => "The tenant is not active.".to_owned(),
        ReasonCode::BudgetExceeded => format!(
            "This call does not fit: ${} of the ${} budget is used or held.",
            usd(current),
            usd(limit)
        ),
        ReasonCode::TokenLimitExceeded => {
            format!("This call does not fit: {current} of the {limit} tokens are used or held.")
        }
        ReasonCode::RateLimitExceeded => {
            format!("{current} of {limit} calls a minute were made in the last 60 seconds.")
        }
        ReasonCode::CallLimitExceeded => {
            format!("This call does not fit: {current} of the {limit} calls are made or reserved.")
        }
        ReasonCode::ConcurrencyExceeded => {
            format!("{current} of the {limit} calls that may run at the same time are open.")
        }
        ReasonCode::ScopeMissing => {
            "A limit requires a label, such as an agent or a tag, that the call lacks.".to_owned()
        }
        ReasonCode::BudgetWarning => {
            format!("With this call, at least {percent} % of the budget is used or held.")
        }
        ReasonCode::TokenWarning => {
            format!("With this call, at least {percent} % of the tokens are used or held.")
        }
        ReasonCode::CallWarning => {
            format!("With this call, at least {percent} % of the calls are made or reserved.")
        }
        ReasonCode::ProviderUnreachable => {
            "The provider could not be reached at the last check.".to_owned()
        }
        ReasonCode::AllChecksPassed => "All checks passed.".to_owned(),
    }
}

/// The rate limit headers for an account. Empty when the account has no limits.
pub(crate) fn rate_limit_headers(
    account: &Account,
    decision: &Decision,
    now: Timestamp,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Ok(sums) = AccountSums::of(account, now) else { return headers };
    let limits = account.integration.limits.limits();
    let (policies, states): (Vec<_>, Vec<_>) =
        limits.map(|limit| quota(&sums, decision, limit, now)).unzip();
    for (name, items) in [(POLICY, policies), (RATELIMIT, states)] {
        if let Ok(value) = HeaderValue::try_from(items.join(", "))
            && !items.is_empty()
        {
            headers.insert(name, value);
        }
    }
    headers
}

/// One quota: its policy, what remains of it, and the seconds until it resets.
fn quota(
    sums: &AccountSums,
    decision: &Decision,
    limit: BuiltInLimit,
    now: Timestamp,
) -> (String, String) {
    /// The largest integer of a structured field (RFC 9651).
    const INTEGER_MAX: i128 = 999_999_999_999_999;
    let name = limit_type(limit.measure());
    let state = sums.state(limit);
    let (window, reset) = match state.resets_at {
        Some(end) => (end.second() - sums.month.start().second(), end.second() - now.second()),
        None => {
            let wait = decision.reasons.iter().find_map(|reason| reason.retry_after_seconds);
            (60, wait.map_or(60, i64::from))
        }
    };
    // A budget is reported in whole cents. The remainder is rounded down.
    let unit = match limit.measure() {
        Measure::Cost => i128::from(bursar_core::NANOS_PER_CENT),
        Measure::Tokens | Measure::Calls | Measure::Concurrent => 1,
    };
    let amount = (limit.amount() / unit).min(INTEGER_MAX);
    let left = (state.left().unwrap_or_default() / unit).min(INTEGER_MAX);
    (format!("\"{name}\";q={amount};w={window}"), format!("\"{name}\";r={left};t={reset}"))
}

/// `Retry-After`, for a caller that was throttled.
pub(crate) fn retry_after(decision: &Decision) -> Option<HeaderValue> {
    match decision.verdict {
        Verdict::Throttled => {
            let wait = decision.reasons.iter().find_map(|reason| reason.retry_after_seconds);
            wait.map(HeaderValue::from)
        }
        Verdict::Allowed | Verdict::Warned | Verdict::Blocked | Verdict::HardBlocked => None,
    }
}
