//! Sums of cost, tokens and calls.

#![warn(clippy::arithmetic_side_effects)]

use crate::money::Nanos;

/// A sum does not fit its integer, or a figure that it needs was not loaded.
///
/// Nothing may be decided on such an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the account's totals cannot be computed")]
pub struct Overflow;

/// Sums of cost, tokens and calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub cost: Nanos,
    /// Input and output tokens.
    pub tokens: i64,
    pub calls: i64,
}

impl Totals {
    /// Adds.
    ///
    /// # Errors
    /// [`Overflow`] if a sum does not fit 64 bits.
    pub fn plus(self, other: Self) -> Result<Self, Overflow> {
        Ok(Self {
            cost: self.cost.checked_add(other.cost).ok_or(Overflow)?,
            tokens: self.tokens.checked_add(other.tokens).ok_or(Overflow)?,
            calls: self.calls.checked_add(other.calls).ok_or(Overflow)?,
        })
    }

    /// Subtracts an amount that must be part of this one.
    ///
    /// # Errors
    /// [`Overflow`] if a difference would be negative.
    pub fn less(self, other: Self) -> Result<Self, Overflow> {
        let rest = self.minus(other)?;
        if rest.cost < Nanos::ZERO || rest.tokens < 0 || rest.calls < 0 {
            return Err(Overflow);
        }
        Ok(rest)
    }

    /// Subtracts; a difference may be negative.
    ///
    /// # Errors
    /// [`Overflow`] if a difference does not fit 64 bits.
    pub(crate) fn minus(self, other: Self) -> Result<Self, Overflow> {
        Ok(Self {
            cost: self.cost.checked_sub(other.cost).ok_or(Overflow)?,
            tokens: self.tokens.checked_sub(other.tokens).ok_or(Overflow)?,
            calls: self.calls.checked_sub(other.calls).ok_or(Overflow)?,
        })
    }
}
