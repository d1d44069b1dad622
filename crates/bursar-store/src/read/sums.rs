//! Sums of rollups.
//!
//! Tokens, money and milliseconds are added up in 128 bits, because clients decide how large they
//! are. No number of 64-bit rows can overflow that. Counts stay in 64 bits.

#![warn(clippy::arithmetic_side_effects)]

use crate::checked_sum::{add, add_wide, too_large};
use crate::error::StoreError;
use crate::rows::rollup_columns::{LATENCY_BUCKETS, Rollup};

/// Sums of rollups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub calls: i64,
    pub succeeded: i64,
    pub errors: i64,
    pub blocked: i64,
    /// Calls whose cost is unknown.
    pub unpriced: i64,
    pub tokens_in: i128,
    pub tokens_out: i128,
    pub cost_nanos: i128,
    pub latency_calls: i64,
    pub latency_sum_ms: i128,
    /// Calls by latency; bounds are [`crate::LATENCY_BOUNDS_MS`].
    pub latency_buckets: [i64; LATENCY_BUCKETS],
}

impl From<&Rollup> for Sums {
    fn from(rollup: &Rollup) -> Self {
        let Rollup {
            calls,
            succeeded,
            errors,
            blocked,
            cost_unknown: unpriced,
            tokens_in,
            tokens_out,
            cost_nanos,
            latency_calls,
            latency_sum_ms,
            latency_buckets,
            // No report shows them yet.
            status_final: _,
            status_partial: _,
            status_estimated: _,
            status_missing: _,
            cost_reported: _,
            cost_computed: _,
            cost_held: _,
            tokens_cache_read: _,
            tokens_cache_write: _,
            tokens_cache_write_long: _,
            tokens_audio_in: _,
            tokens_image_in: _,
            tokens_reasoning: _,
            tokens_audio_out: _,
            tokens_image_out: _,
            latency_max_ms: _,
        } = *rollup;
        Self {
            calls,
            succeeded,
            errors,
            blocked,
            unpriced,
            tokens_in: tokens_in.into(),
            tokens_out: tokens_out.into(),
            cost_nanos: cost_nanos.into(),
            latency_calls,
            latency_sum_ms: latency_sum_ms.into(),
            latency_buckets,
        }
    }
}

impl Sums {
    /// Adds a rollup.
    ///
    /// # Errors
    /// [`StoreError::TotalsOverflow`]; the sums must not be used then.
    pub(crate) fn add(&mut self, rollup: &Rollup) -> Result<(), StoreError> {
        self.merge(&Self::from(rollup))
    }

    /// Adds other sums.
    ///
    /// # Errors
    /// [`StoreError::TotalsOverflow`]; the sums must not be used then.
    pub fn merge(&mut self, other: &Self) -> Result<(), StoreError> {
        let Self {
            calls,
            succeeded,
            errors,
            blocked,
            unpriced,
            tokens_in,
            tokens_out,
            cost_nanos,
            latency_calls,
            latency_sum_ms,
            latency_buckets,
        } = other;
        add(&mut self.calls, *calls, "total_calls")?;
        add(&mut self.succeeded, *succeeded, "success_rate")?;
        add(&mut self.errors, *errors, "error_count")?;
        add(&mut self.blocked, *blocked, "blocked_count")?;
        add(&mut self.unpriced, *unpriced, "unpriced_count")?;
        add_wide(&mut self.tokens_in, *tokens_in, "total_tokens_in")?;
        add_wide(&mut self.tokens_out, *tokens_out, "total_tokens_out")?;
        add_wide(&mut self.cost_nanos, *cost_nanos, "total_cost_usd")?;
        add(&mut self.latency_calls, *latency_calls, "avg_latency_ms")?;
        add_wide(&mut self.latency_sum_ms, *latency_sum_ms, "avg_latency_ms")?;
        for (bucket, more) in self.latency_buckets.iter_mut().zip(latency_buckets) {
            add(bucket, *more, "latency_p50_ms")?;
        }
        Ok(())
    }

    /// Subtracts a part.
    ///
    /// # Errors
    /// [`StoreError::TotalsOverflow`] if a difference does not fit.
    pub fn without(&self, part: &Self) -> Result<Self, StoreError> {
        let mut left = *self;
        left.merge(&part.negated()?)?;
        Ok(left)
    }

    fn negated(&self) -> Result<Self, StoreError> {
        let count = |count: i64, figure| count.checked_neg().ok_or_else(|| too_large(figure));
        let amount = |sum: i128, figure| sum.checked_neg().ok_or_else(|| too_large(figure));
        let mut latency_buckets = self.latency_buckets;
        for bucket in &mut latency_buckets {
            *bucket = count(*bucket, "latency_p50_ms")?;
        }
        Ok(Self {
            calls: count(self.calls, "total_calls")?,
            succeeded: count(self.succeeded, "success_rate")?,
            errors: count(self.errors, "error_count")?,
            blocked: count(self.blocked, "blocked_count")?,
            unpriced: count(self.unpriced, "unpriced_count")?,
            tokens_in: amount(self.tokens_in, "total_tokens_in")?,
            tokens_out: amount(self.tokens_out, "total_tokens_out")?,
            cost_nanos: amount(self.cost_nanos, "total_cost_usd")?,
            latency_calls: count(self.latency_calls, "avg_latency_ms")?,
            latency_sum_ms: amount(self.latency_sum_ms, "avg_latency_ms")?,
            latency_buckets,
        })
    }

    /// Input plus output tokens.
    pub const fn tokens(&self) -> i128 {
        // Both are sums of 64-bit figures, so they are far below the limit of 128 bits.
        self.tokens_in.saturating_add(self.tokens_out)
    }
}
