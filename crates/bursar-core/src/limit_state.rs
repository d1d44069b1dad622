//! How far a limit is used: the one place where used, held, left and the reset are computed.

use crate::account::{Account, Counter};
use crate::estimate::Estimate;
use crate::integration::BuiltInLimit;
use crate::measure::{Measure, Measured, Quantity, Sums};
use crate::time::{Month, Timestamp};
use crate::totals::Overflow;

/// What the account of an integration has counted: the input of answers about its built-in limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountSums {
    pub month: Month,
    /// The counter of the month, without holds that are due.
    pub counter: Counter,
    /// Calls in the last 60 seconds; 0 for a month that is over.
    pub calls_last_minute: i64,
}

/// How far a limit is used, in the unit of its measure.
///
/// Decisions, views, headers and gauges all take these figures from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitState {
    pub measure: Measure,
    /// The amount in force. 0 means that an integration has no such limit.
    pub amount: i128,
    pub used: i128,
    /// What open reservations hold. The calls of an integration's last minute count as used.
    pub held: i128,
    /// The end of the period; `None` for a window without end.
    pub resets_at: Option<Timestamp>,
}

impl AccountSums {
    /// What an account has counted at `now`.
    ///
    /// # Errors
    /// [`Overflow`] when the month of `now` was not loaded.
    pub fn of(account: &Account, now: Timestamp) -> Result<Self, Overflow> {
        let month = now.month();
        let calls_last_minute = account.rate.current(now.second());
        Ok(Self { month, counter: account.counter(month)?, calls_last_minute })
    }

    /// The state of a built-in limit of this account.
    pub fn state(&self, limit: BuiltInLimit) -> LimitState {
        let Counter { used, held, .. } = &self.counter;
        let month_end = Some(self.month.end());
        match limit {
            BuiltInLimit::Budget(amount) => LimitState::of(amount, used, held, month_end),
            BuiltInLimit::Tokens(amount) => LimitState::of(amount, used, held, month_end),
            BuiltInLimit::Rate(amount) => {
                let calls = Quantity::new(self.calls_last_minute.into());
                LimitState::of(amount, &calls, &Quantity::new(0), None)
            }
        }
    }
}

impl LimitState {
    pub(crate) fn of<M: Measured>(
        amount: Quantity<M>,
        used: &impl Sums<M>,
        held: &impl Sums<M>,
        resets_at: Option<Timestamp>,
    ) -> Self {
        let (used, held) = (used.quantity().get(), held.quantity().get());
        Self { measure: M::MEASURE, amount: amount.get(), used, held, resets_at }
    }

    /// What counts against the limit before the next call.
    pub const fn taken(self) -> i128 {
        self.used + self.held
    }

    /// What the next call may still take; `None` when there is no limit.
    pub fn left(self) -> Option<i128> {
        (self.amount > 0).then(|| (self.amount - self.taken()).max(0))
    }

    /// The share of the limit that is left, in millionths.
    pub(crate) fn share_left(self) -> i128 {
        self.left().map_or(0, |left| left * 1_000_000 / self.amount)
    }

    /// What would count against the limit with this call.
    pub(crate) const fn taken_with(self, call: Estimate) -> i128 {
        self.taken() + call.of(self.measure)
    }

    /// Whether a call exceeds the limit.
    pub const fn refuses(self, call: Estimate) -> bool {
        self.taken() >= self.amount || self.taken_with(call) > self.amount
    }
}
