//! The stored forms of the core's values: codes of enums, keys of calls, decisions.
//!
//! Codes are part of the stored data: they are added, and never changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bursar_core::{
    Action, CallId, CallKey, CostBasis, CostSource, Decision, Dimension, EntryKind, FailureCause,
    Health, IntegrationStatus, LimitAccountKey, LimitId, Measure, OnboardingState, PolicyResult,
    Posting, Reason, ReasonCode, RecordSource, ReservationState, Tags, TenantId, TenantLifecycle,
    Timestamp, UnitAmount, Units, UsageStatus, Verdict,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::StoreError;
use crate::rows::row::{DecisionKind, ManagedBy};

/// The code of the only scope of counters.
pub(crate) const SCOPE_INTEGRATION: i64 = 1;

/// The short key of a call id: 128 bits of BLAKE3 over tenant and call id.
///
/// A match is confirmed with the whole call id, so two ids with the same key never count as one call.
pub fn call_key(tenant_id: TenantId, call_id: &CallId) -> CallKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&tenant_id.number().to_be_bytes());
    hasher.update(call_id.as_str().as_bytes());
    let mut key = [0; 16];
    hasher.finalize_xof().fill(&mut key);
    CallKey(u128::from_be_bytes(key))
}

macro_rules! codes {
    ($type:ty, $to:ident, $from:ident, { $($pattern:pat => $value:expr, $code:literal;)+ }) => {
        pub(crate) const fn $to(value: $type) -> i64 {
            match value { $($pattern => $code,)+ }
        }

        pub(crate) fn $from(code: i64) -> Result<$type, StoreError> {
            match code {
                $($code => Ok($value),)+
                other => Err(StoreError::Corrupt(format!(
                    concat!(stringify!($type), " has no code {}"), other
                ))),
            }
        }
    };
    ($type:ident, $to:ident, $from:ident, { $($variant:ident = $code:literal,)+ }) => {
        codes!($type, $to, $from, { $($type::$variant => $type::$variant, $code;)+ });
    };
}

codes!(TenantLifecycle, lifecycle_code, lifecycle, {
    Active = 1, Suspended = 2, Terminated = 3, Archived = 4,
});
codes!(OnboardingState, onboarding_code, onboarding, {
    Created = 1, IdentityVerified = 2, ApiKeyCreated = 3, SdkConnected = 4, Complete = 5,
});
codes!(IntegrationStatus, status_code, status, {
    Created = 1, Enabled = 2, Disabled = 3, Error = 4, Deleted = 5,
});
codes!(Health, health_code, health, {
    Health::Unknown => Health::Unknown, 1;
    Health::Healthy => Health::Healthy, 2;
    Health::Degraded => Health::Degraded, 3;
    Health::Failing(FailureCause::Credential) => Health::Failing(FailureCause::Credential), 4;
    Health::Failing(FailureCause::Provider) => Health::Failing(FailureCause::Provider), 5;
});
codes!(CostBasis, cost_basis_code, cost_basis, { Reported = 1, Computed = 2, });
codes!(EntryKind, kind_code, kind, { Usage = 1, Correction = 2, });
codes!(CostSource, cost_source_code, cost_source, {
    Reported = 1, Computed = 2, Held = 3, Unknown = 4,
});
codes!(UsageStatus, usage_status_code, usage_status, {
    Final = 1, Partial = 2, Estimated = 3, Missing = 4,
});
codes!(RecordSource, source_code, source, { Api = 1, Import = 2, Gateway = 3, Otlp = 4, });
codes!(PolicyResult, policy_code, policy, { Allowed = 1, Warned = 2, Blocked = 3, });
codes!(DecisionKind, decision_kind_code, decision_kind, { Check = 1, Reservation = 2, });
codes!(ReservationState, reservation_state_code, reservation_state, {
    Open = 1, Settled = 2, Released = 3, Expired = 4,
});

codes!(Measure, measure_code, measure, { Cost = 1, Tokens = 2, Calls = 3, Concurrent = 4, });
codes!(Action, action_code, action, { Block = 1, Throttle = 2, Warn = 3, });
codes!(ManagedBy, managed_by_code, managed_by, { Tenant = 1, Operator = 2, });

codes!(Dimension, dimension_code, dimension, { Rate = 1, Burst = 2, Cost = 3, Anomaly = 4, });

/// An instant from its stored number.
pub(crate) fn timestamp(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_micros(micros)
        .ok_or_else(|| StoreError::Corrupt(format!("{micros} is not an instant")))
}

/// Units from their stored JSON object; `None` if there are none.
pub(crate) fn units(text: Option<&str>) -> Result<Units, StoreError> {
    let mut units = Units::default();
    let Some(text) = text else { return Ok(units) };
    let corrupt = || StoreError::Corrupt("the units of an entry have an unknown form".to_owned());
    let amounts: BTreeMap<&str, &RawValue> = serde_json::from_str(text).map_err(|_| corrupt())?;
    for (name, amount) in amounts {
        let amount = UnitAmount::from_text(amount.get()).map_err(|_| corrupt())?;
        if !units.add(name, amount) {
            return Err(corrupt());
        }
    }
    Ok(units)
}

/// Tags from their stored JSON object; `None` if there are none.
pub(crate) fn tags(text: Option<&str>) -> Result<Tags, StoreError> {
    let Some(text) = text else { return Ok(Tags::default()) };
    let corrupt = |_| StoreError::Corrupt("the tags of an entry have an unknown form".to_owned());
    serde_json::from_str(text).map(Tags::stored).map_err(corrupt)
}

/// Postings as a JSON array of `[limit_id, value, start]`; `None` if there are none.
pub(crate) fn postings_text(postings: &[Posting]) -> Option<String> {
    let of = |posting: &Posting| {
        let Posting { account, start } = posting;
        serde_json::json!([account.limit_id.number(), &*account.value, start.micros()])
    };
    let list: Vec<serde_json::Value> = postings.iter().map(of).collect();
    (!list.is_empty()).then(|| serde_json::Value::Array(list).to_string())
}

/// Reads what [`postings_text`] wrote.
pub(crate) fn postings(
    tenant_id: TenantId,
    text: Option<&str>,
) -> Result<Arc<[Posting]>, StoreError> {
    let Some(text) = text else { return Ok(Arc::default()) };
    let corrupt = || StoreError::Corrupt("the postings of a reservation are not readable".into());
    let list: Vec<(i64, String, i64)> = serde_json::from_str(text).map_err(|_| corrupt())?;
    let of = |(limit, value, start): (i64, String, i64)| {
        let limit_id = id(LimitId::from_number, limit)?;
        let account = LimitAccountKey { tenant_id, limit_id, value: value.into() };
        Ok(Posting { account, start: timestamp(start)? })
    };
    list.into_iter().map(of).collect()
}

/// An id from its stored number.
pub(crate) fn id<T>(make: impl FnOnce(i64) -> Option<T>, number: i64) -> Result<T, StoreError> {
    make(number).ok_or_else(|| StoreError::Corrupt(format!("{number} is not an id")))
}

#[derive(Serialize, Deserialize)]
struct DecisionText {
    verdict: String,
    reasons: Vec<ReasonText>,
}

#[derive(Serialize, Deserialize)]
struct ReasonText {
    code: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    measure: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threshold: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after: Option<u32>,
}

/// A decision as text; `None` for "allowed" without reasons.
pub(crate) fn decision_text(decision: &Decision) -> Option<String> {
    if *decision == plainly_allowed() {
        return None;
    }
    let reasons = decision.reasons.iter().map(|reason| ReasonText {
        code: reason.code.as_str().to_owned(),
        measure: reason.measure.map(|measure| measure_word(measure).to_owned()),
        limit: reason.measure.map(|_| reason.limit_value.to_string()),
        current: reason.measure.map(|_| reason.current_value.to_string()),
        threshold: reason.threshold_percent,
        retry_after: reason.retry_after_seconds,
    });
    let text =
        DecisionText { verdict: decision.verdict.as_str().to_owned(), reasons: reasons.collect() };
    serde_json::to_string(&text).ok()
}

/// Reads what [`decision_text`] wrote.
pub(crate) fn decision(text: Option<&str>) -> Result<Decision, StoreError> {
    let Some(text) = text else { return Ok(plainly_allowed()) };
    let corrupt = || StoreError::Corrupt("a decision has an unknown form".to_owned());
    let read: DecisionText = serde_json::from_str(text).map_err(|_| corrupt())?;
    let verdict = Verdict::ALL
        .into_iter()
        .find(|verdict| verdict.as_str() == read.verdict)
        .ok_or_else(corrupt)?;
    let mut reasons = Vec::with_capacity(read.reasons.len());
    for reason in read.reasons {
        let code = ReasonCode::ALL.into_iter().find(|code| code.as_str() == reason.code);
        let amount = |text: Option<String>| text.map_or(Ok(0), |text| text.parse::<i128>());
        let measure = match reason.measure.as_deref() {
            None => None,
            Some(word) => Some(
                Measure::ALL
                    .into_iter()
                    .find(|measure| measure_word(*measure) == word)
                    .ok_or_else(corrupt)?,
            ),
        };
        reasons.push(Reason {
            code: code.ok_or_else(corrupt)?,
            measure,
            limit_value: amount(reason.limit).map_err(|_| corrupt())?,
            current_value: amount(reason.current).map_err(|_| corrupt())?,
            threshold_percent: reason.threshold,
            retry_after_seconds: reason.retry_after,
        });
    }
    Ok(Decision { verdict, reasons })
}

fn plainly_allowed() -> Decision {
    let reasons = vec![Reason::plain(ReasonCode::AllChecksPassed)];
    Decision { verdict: Verdict::Allowed, reasons }
}

const fn measure_word(measure: Measure) -> &'static str {
    match measure {
        Measure::Cost => "cost",
        Measure::Tokens => "tokens",
        Measure::Calls => "calls",
        Measure::Concurrent => "concurrent",
    }
}

#[cfg(test)]
pub(crate) mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_read_back() {
        let warned = Decision {
            verdict: Verdict::Warned,
            reasons: vec![
                Reason {
                    code: ReasonCode::BudgetWarning,
                    measure: Some(Measure::Cost),
                    limit_value: i128::MAX,
                    current_value: 42,
                    threshold_percent: Some(80),
                    retry_after_seconds: None,
                },
                Reason::plain(ReasonCode::ProviderUnreachable),
            ],
        };
        let throttled = Decision {
            verdict: Verdict::Throttled,
            reasons: vec![Reason {
                code: ReasonCode::RateLimitExceeded,
                measure: Some(Measure::Calls),
                limit_value: 60,
                current_value: 60,
                threshold_percent: None,
                retry_after_seconds: Some(17),
            }],
        };
        for known in [warned, throttled, plainly_allowed()] {
            let text = decision_text(&known);
            assert_eq!(decision(text.as_deref()).expect("readable"), known);
        }
        assert!(decision(Some("{}")).is_err());
    }

    #[test]
    fn the_key_of_a_call_belongs_to_its_tenant() {
        let tenant = |number| TenantId::from_number(number).expect("in range");
        let call = CallId::new("call-1").expect("valid");
        assert_eq!(call_key(tenant(1), &call), call_key(tenant(1), &call));
        assert_ne!(call_key(tenant(1), &call), call_key(tenant(2), &call));
    }
}
