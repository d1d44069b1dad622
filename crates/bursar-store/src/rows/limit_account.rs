//! The stored form of the accounts of limits.

use bursar_core::{
    Bound, LimitAccount, LimitCounter, LimitValues, MinuteSlot, Timestamp, Totals, Window,
};

use crate::error::StoreError;
use crate::rows::columns::Columns;
use crate::rows::decode;

/// The sums of an account, without its seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccountSums {
    /// The start of the period; [`Timestamp::MIN`] for a window without periods.
    pub(crate) start: Timestamp,
    pub(crate) used: Totals,
    pub(crate) held: Totals,
}

impl AccountSums {
    /// The sums to store. Those of a minute are in its seconds.
    pub(crate) fn of(account: &LimitAccount) -> Self {
        match account.counter() {
            LimitCounter::Period { start, used, held } => {
                Self { start: *start, used: *used, held: *held }
            }
            LimitCounter::Minute(_) => Self::default(),
            LimitCounter::Open { held } => {
                Self { held: Totals { calls: *held, ..Totals::default() }, ..Self::default() }
            }
        }
    }

    /// The columns of the sums, in their order.
    pub(crate) const fn figures(&self) -> [i64; 7] {
        let Self { start, used, held } = self;
        [
            start.micros(),
            used.cost.get(),
            used.tokens,
            used.calls,
            held.cost.get(),
            held.tokens,
            held.calls,
        ]
    }
}

/// An account of a limit: `period_start, used_cost_nanos, used_tokens, used_calls, held_cost_nanos,
/// held_tokens, held_calls, last_at`, and its seconds if the window is a minute.
pub(crate) fn read_account(
    row: &impl Columns,
    at: usize,
    bound: &Bound,
    seconds: Vec<MinuteSlot>,
) -> Result<LimitAccount, StoreError> {
    let (used, held) = (decode::totals(row, at + 1)?, decode::totals(row, at + 4)?);
    let counter = match bound.window() {
        Some(Window::Calendar(..) | Window::Total { .. }) => {
            LimitCounter::Period { start: row.instant(at)?, used, held }
        }
        Some(Window::Minute) => LimitCounter::Minute(in_order(seconds)),
        None => LimitCounter::Open { held: held.calls },
    };
    Ok(LimitAccount::stored(counter, row.instant(at + 7)?))
}

/// Whether an account of this limit has seconds.
pub(crate) const fn has_seconds(bound: &Bound) -> bool {
    matches!(bound.window(), Some(Window::Minute))
}

/// A second: `second, used_cost_nanos, used_tokens, used_calls, held_cost_nanos, held_tokens,
/// held_calls`.
pub(crate) fn read_second(row: &impl Columns, at: usize) -> Result<MinuteSlot, StoreError> {
    let (used, held) = (decode::totals(row, at + 1)?, decode::totals(row, at + 4)?);
    Ok(MinuteSlot::stored(row.int(at)?, used, held))
}

/// The columns of a second, in the order of [`read_second`].
pub(crate) const fn second_figures(slot: &MinuteSlot) -> [i64; 7] {
    let MinuteSlot { second, used, held, .. } = slot;
    [*second, used.cost.get(), used.tokens, used.calls, held.cost.get(), held.tokens, held.calls]
}

/// `period_start, accounts`.
pub(crate) fn read_values(row: &impl Columns, at: usize) -> Result<LimitValues, StoreError> {
    Ok(LimitValues { start: row.instant(at)?, accounts: row.int(at + 1)? })
}

fn in_order(mut seconds: Vec<MinuteSlot>) -> Vec<MinuteSlot> {
    seconds.sort_unstable_by_key(|slot| slot.second);
    seconds
}
