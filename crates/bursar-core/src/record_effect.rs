//! How a new record counts: its instant, its cost, and the reservation that it settles.

#![warn(clippy::arithmetic_side_effects)]

use crate::account::Account;
use crate::command::{RecordOutcome, RecordRefusal};
use crate::entry::CostSource;
use crate::id::KeyId;
use crate::integration::CostBasis;
use crate::limit_account::CountedRecord;
use crate::money::Nanos;
use crate::reservation::{Reservation, ReservationState};
use crate::time::Timestamp;
use crate::totals::Totals;
use crate::usage::{PolicyResult, Usage};

/// How far in the future a record may lie, because client clocks run ahead.
const AHEAD_SECONDS_MAX: u32 = 5 * 60;
/// How long a call counts against the rate limit.
const RATE_SECONDS: i64 = 60;

/// How a new record counts.
pub(crate) struct RecordEffect {
    pub(crate) occurred_at: Timestamp,
    pub(crate) cost: Nanos,
    pub(crate) cost_source: CostSource,
    /// The open reservation that the record settles.
    pub(crate) settles: Option<Reservation>,
    /// Whether the call has a reservation on this integration, in any state. The cost of an
    /// admitted call always counts, so caps do not apply to it.
    pub(crate) is_reserved: bool,
    pub(crate) counts_in_rate: bool,
    /// The key in whose accounts the call counts.
    pub(crate) account_key_id: Option<KeyId>,
    pub(crate) in_limits: CountedRecord,
}

/// Computes how a first record of a call counts, without changing anything.
pub(crate) fn record_effect(
    of_call: Option<&Reservation>,
    account: &Account,
    usage: &Usage,
    now: Timestamp,
) -> Result<RecordEffect, RecordOutcome> {
    let (reservation, elsewhere) = match of_call {
        Some(held) if held.request.integration_id == usage.integration_id => (Some(held), None),
        other => (None, other),
    };
    // An open reservation on another integration must be settled or released there first. After it
    // has ended, the record counts: the caller may have switched to another provider.
    if elsewhere.is_some_and(|held| held.state_at(now) == ReservationState::Open) {
        return Err(RecordOutcome::Conflict);
    }
    let default_instant = reservation.map_or(now, |held| held.created_at);
    let occurred_at = usage.occurred_at.unwrap_or(default_instant);
    if occurred_at > now.plus_seconds(AHEAD_SECONDS_MAX) {
        return Err(RecordOutcome::Refused(RecordRefusal::InTheFuture));
    }
    let settles = reservation.filter(|held| held.state_at(now) == ReservationState::Open).cloned();
    let (cost, cost_source) = cost_of(usage, settles.as_ref(), account.integration.cost_basis);
    let is_reserved = reservation.is_some();
    let counts_in_rate = !is_reserved && counts_in_rate(usage, occurred_at, now);
    let account_key_id =
        reservation.map_or(usage.account_key_id, |held| held.request.account_key_id);
    let calls = i64::from(went_on(usage));
    let amount = Totals { cost, tokens: usage.tokens.total(), calls };
    let counts_already = is_reserved && settles.is_none();
    let in_limits = CountedRecord {
        at: occurred_at.min(now),
        amount,
        minute_at: reservation.map_or(occurred_at.min(now), |held| held.created_at),
        minute_amount: Totals { calls: if counts_already { 0 } else { calls }, ..amount },
    };
    Ok(RecordEffect {
        occurred_at,
        cost,
        cost_source,
        settles,
        is_reserved,
        counts_in_rate,
        account_key_id,
        in_limits,
    })
}

/// The cost of a record, and the source of that figure.
///
/// Under [`CostBasis::Computed`] the client's figure is ignored. Without a usable figure, the
/// amount of the settled reservation counts. A hold of zero is not used for this, because an
/// unknown cost must never look like a free call.
fn cost_of(usage: &Usage, settles: Option<&Reservation>, basis: CostBasis) -> (Nanos, CostSource) {
    let reported = match basis {
        CostBasis::Reported => usage.cost,
        CostBasis::Computed => None,
    };
    if let Some(reported) = reported {
        return (reported, CostSource::Reported);
    }
    match settles.map(|held| held.request.estimate.cost) {
        Some(held) if held > Nanos::ZERO => (held, CostSource::Held),
        Some(_) | None => (Nanos::ZERO, CostSource::Unknown),
    }
}

fn counts_in_rate(usage: &Usage, occurred_at: Timestamp, now: Timestamp) -> bool {
    went_on(usage) && occurred_at.second() > now.second().saturating_sub(RATE_SECONDS)
}

/// Whether the call was made. A blocked one counts as no call.
const fn went_on(usage: &Usage) -> bool {
    match usage.policy_result {
        PolicyResult::Allowed | PolicyResult::Warned => true,
        PolicyResult::Blocked => false,
    }
}
