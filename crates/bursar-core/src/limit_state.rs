//! How far a limit is used: the one place where used, held, left and the reset are computed.

use crate::account::{Account, Counter, Overflow, Totals};
use crate::limit::{Limit, Measure, Scope, Window};
use crate::time::{Month, Timestamp};

/// What an account has counted: the input of every answer about a limit.
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
    /// The amount of the limit; 0 means unlimited.
    pub amount: i128,
    pub used: i128,
    /// What open reservations hold. A call that is reserved counts in a sliding window as used.
    pub held: i128,
    /// The end of the period; `None` for a sliding window, which has no end.
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

    /// The state of a limit of this account.
    pub fn state(&self, limit: &Limit) -> LimitState {
        match limit.scope {
            Scope::Integration => {}
        }
        let amount = limit.amount;
        match limit.window {
            Window::Month => {
                let [used, held] = [self.counter.used, self.counter.held]
                    .map(|totals| total(totals, limit.measure));
                LimitState { amount, used, held, resets_at: Some(self.month.end()) }
            }
            Window::Minute => {
                let used = i128::from(self.calls_last_minute);
                LimitState { amount, used, held: 0, resets_at: None }
            }
        }
    }
}

impl LimitState {
    /// What counts against the limit before the next call.
    pub const fn taken(self) -> i128 {
        self.used + self.held
    }

    /// What the next call may still take; `None` when there is no limit.
    pub fn left(self) -> Option<i128> {
        (self.amount > 0).then(|| (self.amount - self.taken()).max(0))
    }

    /// Whether a call that adds `estimate` exceeds the limit.
    pub const fn refuses(self, estimate: i128) -> bool {
        self.taken() >= self.amount || self.taken() + estimate > self.amount
    }
}

/// The total of one measure.
fn total(totals: Totals, measure: Measure) -> i128 {
    match measure {
        Measure::Cost => i128::from(totals.cost.get()),
        Measure::Tokens => i128::from(totals.tokens),
        Measure::Calls => i128::from(totals.calls),
    }
}
