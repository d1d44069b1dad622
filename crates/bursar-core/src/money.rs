//! Money as integers of nano-dollars, parsed and written exactly.
//!
//! Deliberately absent: floats, and a default of zero for amounts that cannot be computed. The only
//! rounding is [`cents_half_up`], which is applied once, to a final sum.

#![warn(clippy::arithmetic_side_effects)]

use std::fmt;

/// The number of nano-dollars (1e-9 USD) in a cent.
pub const NANOS_PER_CENT: i64 = 10_000_000;

/// An amount of money in nano-dollars (1e-9 USD); negative only in corrections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(i64);

/// Why a text is not a valid amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("must be a number")]
    NotANumber,
    /// Costs and estimates are never negative.
    #[error("must not be negative")]
    Negative,
    /// The amount is not a whole number of nano-dollars.
    #[error("must have at most 7 decimal places")]
    TooFine,
    /// The amount exceeds [`Nanos::RECORD_MAX`].
    #[error("must be at most 100000000 (one million dollars)")]
    TooLarge,
}

impl Nanos {
    pub const ZERO: Self = Self(0);
    /// The largest cost of one record or estimate: a million dollars.
    pub const RECORD_MAX: Self = Self(1_000_000 * 100 * NANOS_PER_CENT);

    /// An amount in nano-dollars.
    pub const fn new(nanos: i64) -> Self {
        Self(nanos)
    }

    pub const fn get(self) -> i64 {
        self.0
    }

    /// The sum; `None` if it does not fit 64 bits.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference; `None` if it does not fit 64 bits.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Some(Self(rest)),
            None => None,
        }
    }

    /// Parses a JSON number of cents exactly: an integer or a decimal with up to 7 places.
    ///
    /// Exponents are accepted, because common serializers write `0.00001` as `1e-05`. Trailing
    /// zeros do not count as decimal places.
    ///
    /// # Errors
    /// [`MoneyError`], whose text is meant for the client.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "a text has fewer digits than 64 bits count, and more than 16 are refused first"
    )]
    pub fn from_cents_text(text: &str) -> Result<Self, MoneyError> {
        let (mantissa, exponent) = split_exponent(text)?;
        let (negative, unsigned) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let fraction_is_empty = fraction.is_empty() && unsigned.contains('.');
        if whole.is_empty() || fraction_is_empty {
            return Err(MoneyError::NotANumber);
        }
        let mut digits: Vec<u8> = Vec::with_capacity(whole.len() + fraction.len());
        for byte in whole.bytes().chain(fraction.bytes()) {
            if !byte.is_ascii_digit() {
                return Err(MoneyError::NotANumber);
            }
            digits.push(byte - b'0');
        }
        // The value is digits * 10^scale cents, and 10^(scale + 7) nano-dollars.
        let mut scale = exponent - fraction.len() as i64 + 7;
        while digits.last() == Some(&0) {
            digits.pop();
            scale += 1;
        }
        let leading_zeros = digits.iter().take_while(|digit| **digit == 0).count();
        let significant = digits.get(leading_zeros..).unwrap_or_default();
        if significant.is_empty() {
            return Ok(Self::ZERO);
        }
        if negative {
            return Err(MoneyError::Negative);
        }
        if scale < 0 {
            return Err(MoneyError::TooFine);
        }
        // A million dollars has 16 digits in nano-dollars.
        if significant.len() as i64 + scale > 16 {
            return Err(MoneyError::TooLarge);
        }
        let mut nanos = 0i64;
        for digit in significant {
            nanos = nanos * 10 + i64::from(*digit);
        }
        for _ in 0..scale {
            nanos *= 10;
        }
        if nanos > Self::RECORD_MAX.0 { Err(MoneyError::TooLarge) } else { Ok(Self(nanos)) }
    }
}

/// Splits `1.5e-3` into `1.5` and -3; an absurdly large exponent is cut, but keeps its sign.
#[expect(clippy::arithmetic_side_effects, reason = "its size is bounded here")]
fn split_exponent(text: &str) -> Result<(&str, i64), MoneyError> {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else {
        return Ok((text, 0));
    };
    let (sign, digits) = match exponent.as_bytes().first() {
        Some(b'-') => (-1, exponent.strip_prefix('-')),
        Some(b'+') => (1, exponent.strip_prefix('+')),
        _ => (1, Some(exponent)),
    };
    let digits = digits.unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(MoneyError::NotANumber);
    }
    const BEYOND_REASON: i64 = 1_000_000_000_000;
    let size = digits.parse::<i64>().unwrap_or(BEYOND_REASON).min(BEYOND_REASON);
    Ok((mantissa, sign * size))
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&usd_string(i128::from(self.0)))
    }
}

/// Nano-dollars as whole cents, rounded half up; negative amounts round half away from zero.
///
/// This is the only rounding of money. Apply it once, to an exact sum.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "an exact sum is of 64-bit amounts, and no number of them comes near 128 bits"
)]
pub const fn cents_half_up(nanos: i128) -> i128 {
    let cent = NANOS_PER_CENT as i128;
    let half = cent / 2;
    if nanos >= 0 { (nanos + half) / cent } else { -((-nanos + half) / cent) }
}

/// Nano-dollars as an exact decimal string of dollars, without trailing zeros: `1.5`, `0`.
pub fn usd_string(nanos: i128) -> String {
    const PER_DOLLAR: u128 = 1_000_000_000;
    let sign = if nanos < 0 { "-" } else { "" };
    let size = nanos.unsigned_abs();
    let (whole, rest) = (size / PER_DOLLAR, size % PER_DOLLAR);
    if rest == 0 {
        return format!("{sign}{whole}");
    }
    let decimals = format!("{rest:09}");
    format!("{sign}{whole}.{}", decimals.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Result<i64, MoneyError>) {
        assert_eq!(Nanos::from_cents_text(text).map(Nanos::get), expected, "{text}");
    }

    #[test]
    fn cents_are_read_exactly() {
        check("0", Ok(0));
        check("-0", Ok(0));
        check("0.0000000000", Ok(0));
        check("1", Ok(10_000_000));
        check("0.0125", Ok(125_000));
        check("0.0000001", Ok(1));
        check("1.0000000000", Ok(10_000_000));
        check("1e-05", Ok(100));
        check("1.25E+2", Ok(1_250_000_000));
        check("100000000", Ok(1_000_000_000_000_000));
        check("1e8", Ok(1_000_000_000_000_000));
        check("0e999999999999999999999", Ok(0));
    }

    #[test]
    fn an_invalid_amount_is_refused_with_its_reason() {
        check("0.00000001", Err(MoneyError::TooFine));
        check("0.12345678", Err(MoneyError::TooFine));
        check("0.30000000000000004", Err(MoneyError::TooFine));
        check("1e-99999999999999999999", Err(MoneyError::TooFine));
        check("-1", Err(MoneyError::Negative));
        check("-0.0000001", Err(MoneyError::Negative));
        check("100000000.0000001", Err(MoneyError::TooLarge));
        check("9223372036854775808", Err(MoneyError::TooLarge));
        check("1e99999999999999999999", Err(MoneyError::TooLarge));
        for text in ["", "-", ".", "1.", ".5", "e", "1e", "1e+", "abc", "\"1\"", "1,5", "+1", "NaN"]
        {
            check(text, Err(MoneyError::NotANumber));
        }
    }

    #[test]
    fn cents_are_rounded_half_up_once() {
        assert_eq!(cents_half_up(4_999_999), 0);
        assert_eq!(cents_half_up(5_000_000), 1);
        assert_eq!(cents_half_up(15_000_000), 2);
        assert_eq!(cents_half_up(-5_000_000), -1);
        assert_eq!(cents_half_up(-4_999_999), 0);
    }

    #[test]
    fn dollars_are_written_exactly() {
        assert_eq!(usd_string(0), "0");
        assert_eq!(usd_string(1), "0.000000001");
        assert_eq!(usd_string(1_500_000_000), "1.5");
        assert_eq!(usd_string(-125_000), "-0.000125");
        assert_eq!(usd_string(20_000_000_000), "20");
    }

    proptest! {
        #[test]
        fn a_decimal_of_cents_leads_back(nanos in 0..=Nanos::RECORD_MAX.get()) {
            let text = format!("{}.{:07}", nanos / NANOS_PER_CENT, nanos % NANOS_PER_CENT);
            prop_assert_eq!(Nanos::from_cents_text(&text), Ok(Nanos(nanos)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+.0-9eE]{0,30}") {
            let _ = Nanos::from_cents_text(&text);
        }
    }
}
