//! What a call is expected to take.

use crate::measure::Measure;
use crate::money::Nanos;
use crate::tokens::check_tokens;
use crate::totals::Totals;
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
    pub(crate) const fn of(self, measure: Measure) -> i128 {
        match measure {
            Measure::Cost => self.cost.get() as i128,
            Measure::Tokens => self.tokens as i128,
            Measure::Calls | Measure::Concurrent => 1,
        }
    }

    /// The sums that a reservation with this estimate holds.
    pub const fn totals(self) -> Totals {
        Totals { cost: self.cost, tokens: self.tokens, calls: 1 }
    }
}
