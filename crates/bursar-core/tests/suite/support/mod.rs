//! Sample ids, instants, requests and records for the tests of the core.

#![expect(clippy::unwrap_used, reason = "all values are valid constants")]

pub(crate) mod calendar;
pub(crate) mod limited;
pub(crate) mod naive;
pub(crate) mod script;
pub(crate) mod storage;

use bursar_core::{
    CallId, Day, EntryId, Estimate, IntegrationId, LimitSettings, Month, NANOS_PER_CENT, Nanos,
    ReserveRequest, TenantId, Timestamp, TokenBuckets, Usage,
};

/// No limits at all.
pub(crate) const NONE: LimitSettings =
    LimitSettings { budget_limit_cents: 0, token_limit_month: 0, rate_limit_rpm: 0 };

/// The instant at which tests begin, in the middle of a month.
pub(crate) fn now() -> Timestamp {
    day(2026, 10, 15)
}

/// The instant `second` seconds after [`now`], or before it.
pub(crate) fn at(second: i64) -> Timestamp {
    seconds(now(), second)
}

/// The month of [`now`].
pub(crate) fn october() -> Month {
    now().month()
}

pub(crate) fn tenant(number: i64) -> TenantId {
    TenantId::from_number(number).unwrap()
}

pub(crate) fn integration(number: i64) -> IntegrationId {
    IntegrationId::from_number(number).unwrap()
}

pub(crate) fn entry(number: i64) -> EntryId {
    EntryId::from_number(number).unwrap()
}

pub(crate) fn call_id(text: &str) -> CallId {
    CallId::new(text).unwrap()
}

pub(crate) fn cents(cents: i64) -> Nanos {
    Nanos::new(cents * NANOS_PER_CENT)
}

pub(crate) fn day(year: i32, month: u8, day: u8) -> Timestamp {
    Day::from_civil(year, month, day).unwrap().start()
}

/// The instant `micros` after another, or before it.
pub(crate) fn shifted(at: Timestamp, micros: i64) -> Timestamp {
    Timestamp::from_micros(at.micros() + micros).unwrap()
}

/// The instant `seconds` after another, or before it.
pub(crate) fn seconds(at: Timestamp, seconds: i64) -> Timestamp {
    shifted(at, seconds * 1_000_000)
}

/// A record of 10 + 20 tokens without a cost.
pub(crate) fn usage(integration_id: IntegrationId, call: &str) -> Usage {
    Usage {
        tokens: TokenBuckets::new(10, 20, 0, 0, 0).unwrap(),
        ..Usage::new(integration_id, call_id(call), "openai".into(), "gpt".into())
    }
}

/// A request for 10 cents and 100 tokens, for ten minutes.
pub(crate) fn request(integration_id: IntegrationId, call: &str) -> ReserveRequest {
    let estimate = Estimate::new(cents(10), 100).unwrap();
    ReserveRequest::new(integration_id, call_id(call), estimate)
}
