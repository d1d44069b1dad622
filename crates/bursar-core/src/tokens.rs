//! The tokens of a call, by bucket.

use crate::usage_error::UsageError;

/// The largest number of tokens of one kind in a record or an estimate.
pub const TOKENS_MAX: i64 = 1_000_000_000;

/// Numbers of tokens, as reported or as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// Input tokens, with those of all other input buckets.
    pub tokens_in: i64,
    /// Output tokens, with those of all other output buckets.
    pub tokens_out: i64,
    /// Input tokens read from the provider's cache.
    pub cache_read: i64,
    /// Input tokens written to the provider's cache.
    pub cache_write: i64,
    /// The part of `cache_write` that is kept for an hour or longer.
    pub cache_write_long: i64,
    /// Input tokens of audio.
    pub audio_in: i64,
    /// Input tokens of images.
    pub image_in: i64,
    /// Output tokens spent on reasoning.
    pub reasoning: i64,
    /// Output tokens of audio.
    pub audio_out: i64,
    /// Output tokens of images.
    pub image_out: i64,
}

/// The tokens of a call, each bucket between 0 and 10^9, and the parts within their wholes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenBuckets(TokenCounts);

impl TokenBuckets {
    /// Checks the buckets.
    ///
    /// Cache reads, cache writes, audio and images are parts of `tokens_in` that do not overlap.
    /// `cache_write_long` is a part of `cache_write`. Audio and images are parts of `tokens_out`
    /// that do not overlap, and `reasoning` is a part of `tokens_out`.
    ///
    /// # Errors
    /// [`UsageError`] for the first bucket that is out of bounds.
    pub fn checked(counts: TokenCounts) -> Result<Self, UsageError> {
        let TokenCounts {
            tokens_in,
            tokens_out,
            cache_read,
            cache_write,
            cache_write_long,
            audio_in,
            image_in,
            reasoning,
            audio_out,
            image_out,
        } = counts;
        check_tokens("tokens_in", tokens_in)?;
        check_tokens("tokens_out", tokens_out)?;
        check_parts(
            ("tokens_in", tokens_in),
            &[
                ("tokens_cache_read", cache_read),
                ("tokens_cache_write", cache_write),
                ("tokens_audio_in", audio_in),
                ("tokens_image_in", image_in),
            ],
        )?;
        check_parts(
            ("tokens_cache_write", cache_write),
            &[("tokens_cache_write_long", cache_write_long)],
        )?;
        check_parts(("tokens_out", tokens_out), &[("tokens_reasoning", reasoning)])?;
        check_parts(
            ("tokens_out", tokens_out),
            &[("tokens_audio_out", audio_out), ("tokens_image_out", image_out)],
        )?;
        Ok(Self(counts))
    }

    /// Checks the buckets that most calls have.
    ///
    /// # Errors
    /// As for [`TokenBuckets::checked`].
    pub fn new(
        tokens_in: i64,
        tokens_out: i64,
        cache_read: i64,
        cache_write: i64,
        reasoning: i64,
    ) -> Result<Self, UsageError> {
        let counts = TokenCounts {
            tokens_in,
            tokens_out,
            cache_read,
            cache_write,
            reasoning,
            ..TokenCounts::default()
        };
        Self::checked(counts)
    }

    /// All buckets.
    pub const fn counts(self) -> TokenCounts {
        self.0
    }

    /// Input tokens.
    pub const fn tokens_in(self) -> i64 {
        self.0.tokens_in
    }

    /// Output tokens.
    pub const fn tokens_out(self) -> i64 {
        self.0.tokens_out
    }

    /// Input plus output tokens, which is what limits count.
    pub const fn total(self) -> i64 {
        self.0.tokens_in + self.0.tokens_out
    }
}

/// Checks a number of tokens.
pub(crate) fn check_tokens(field: &'static str, tokens: i64) -> Result<(), UsageError> {
    if tokens < 0 {
        return Err(UsageError::new(field, "must not be negative"));
    }
    if tokens > TOKENS_MAX {
        return Err(UsageError::new(field, format!("must be at most {TOKENS_MAX}")));
    }
    Ok(())
}

/// Checks numbers of tokens that together are part of another.
fn check_parts(
    (whole_field, whole): (&'static str, i64),
    parts: &[(&'static str, i64)],
) -> Result<(), UsageError> {
    let mut left = whole;
    for (field, tokens) in parts {
        check_tokens(field, *tokens)?;
        left -= tokens;
        if left < 0 {
            return Err(UsageError::new(field, format!("must be part of {whole_field}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(change: impl FnOnce(&mut TokenCounts), field: Option<&str>) {
        let mut counts = TokenCounts { tokens_in: 10, tokens_out: 5, ..TokenCounts::default() };
        change(&mut counts);
        assert_eq!(TokenBuckets::checked(counts).err().map(|error| error.field), field);
    }

    #[test]
    fn token_buckets_are_limited_by_their_total() {
        check(|_| {}, None);
        check(|c| (c.cache_read, c.cache_write, c.reasoning) = (6, 4, 5), None);
        check(|c| (c.cache_read, c.audio_in, c.image_in) = (4, 3, 3), None);
        check(|c| (c.cache_write, c.cache_write_long) = (10, 10), None);
        check(|c| (c.reasoning, c.audio_out, c.image_out) = (5, 3, 2), None);
        check(|c| c.cache_read = 11, Some("tokens_cache_read"));
        check(|c| (c.cache_read, c.cache_write) = (6, 5), Some("tokens_cache_write"));
        check(|c| (c.cache_read, c.audio_in) = (6, 5), Some("tokens_audio_in"));
        check(|c| (c.audio_in, c.image_in) = (6, 5), Some("tokens_image_in"));
        check(|c| c.cache_write_long = 1, Some("tokens_cache_write_long"));
        check(|c| c.reasoning = 6, Some("tokens_reasoning"));
        check(|c| c.audio_out = 6, Some("tokens_audio_out"));
        check(|c| (c.audio_out, c.image_out) = (3, 3), Some("tokens_image_out"));
        check(|c| c.tokens_in = -1, Some("tokens_in"));
        check(|c| c.image_out = -1, Some("tokens_image_out"));
        check(|c| c.tokens_out = 1_000_000_001, Some("tokens_out"));
    }
}
