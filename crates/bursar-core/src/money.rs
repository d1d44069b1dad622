//! Money as integers of nano-dollars, parsed and written exactly.
//!
//! Deliberately absent: floats, and a default of zero for amounts that cannot be computed. Amounts
//! are rounded in two places: when a client's figure is read, to a nano-dollar, and when a final sum
//! is shown in cents ([`cents_half_up`]).

#![warn(clippy::arithmetic_side_effects)]

use std::fmt;

use crate::number::{NumberError, rounded_at};

/// The number of nano-dollars (1e-9 USD) in a cent.
pub const NANOS_PER_CENT: i64 = 10_000_000;
/// The decimal places of a cent, and of a dollar, down to a nano-dollar.
const NANOS_PLACES_OF_CENT: u32 = 7;
const NANOS_PLACES_OF_DOLLAR: u32 = 9;
/// The largest cost of one record or estimate, in dollars.
const RECORD_MAX_DOLLARS: i64 = 1_000_000;

/// An amount of money in nano-dollars (1e-9 USD); negative only in corrections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(i64);

impl Nanos {
    pub const ZERO: Self = Self(0);
    /// The largest cost of one record or estimate: a million dollars.
    pub const RECORD_MAX: Self = Self(RECORD_MAX_DOLLARS * 100 * NANOS_PER_CENT);

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

    /// Reads an amount in cents from decimal text, rounded half up once to a nano-dollar.
    ///
    /// # Errors
    /// [`NumberError`], whose text is meant for the client.
    pub fn from_cents_text(text: &str) -> Result<Self, NumberError> {
        let read = rounded_at(text, NANOS_PLACES_OF_CENT, Self::RECORD_MAX.0)?;
        read.map(Self).ok_or(NumberError::TooLarge(RECORD_MAX_DOLLARS * 100))
    }

    /// Reads an amount in dollars from decimal text, rounded half up once to a nano-dollar.
    ///
    /// # Errors
    /// [`NumberError`], whose text is meant for the client.
    pub fn from_usd_text(text: &str) -> Result<Self, NumberError> {
        let read = rounded_at(text, NANOS_PLACES_OF_DOLLAR, Self::RECORD_MAX.0)?;
        read.map(Self).ok_or(NumberError::TooLarge(RECORD_MAX_DOLLARS))
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&usd_string(i128::from(self.0)))
    }
}

/// Nano-dollars as whole cents, rounded half up; negative amounts round half away from zero.
///
/// Apply it once, to an exact sum.
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

    const TOO_LARGE: NumberError = NumberError::TooLarge(100_000_000);

    #[track_caller]
    fn check(text: &str, expected: Result<i64, NumberError>) {
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
    fn fractions_of_a_nano_dollar_are_rounded_half_up_once() {
        check("59.699999999999996", Ok(597_000_000));
        check("0.30000000000000004", Ok(3_000_000));
        check("3.5e-7", Ok(4));
        check("0.00000005", Ok(1));
        check("0.000000049999999999999999999999", Ok(0));
        check("1e-99999999999999999999", Ok(0));
        // A figure that was rounded to cents first would be 2 nano-dollars.
        check("0.000000149999999", Ok(1));
        check("100000000.00000004", Ok(1_000_000_000_000_000));
        assert_eq!(Nanos::from_usd_text("0.0000000005"), Ok(Nanos(1)));
        assert_eq!(Nanos::from_usd_text("0.59699999999999996"), Ok(Nanos(597_000_000)));
        assert_eq!(Nanos::from_usd_text("1e6"), Ok(Nanos::RECORD_MAX));
        let too_large = Err(NumberError::TooLarge(1_000_000));
        assert_eq!(Nanos::from_usd_text("1000000.000000001"), too_large);
    }

    #[test]
    fn an_invalid_amount_is_refused_with_its_reason() {
        check("-1", Err(NumberError::Negative));
        check("-0.0000001", Err(NumberError::Negative));
        check("-1e-99", Err(NumberError::Negative));
        check("100000000.0000001", Err(TOO_LARGE));
        check("9223372036854775808", Err(TOO_LARGE));
        check("1e99999999999999999999", Err(TOO_LARGE));
        for text in ["", "-", ".", "e", "1e", "1e+", "abc", "\"1\"", "1,5", "$1", "NaN"] {
            check(text, Err(NumberError::NotANumber));
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
        fn a_decimal_of_cents_is_parsed_back(nanos in 0..=Nanos::RECORD_MAX.get()) {
            let text = format!("{}.{:07}", nanos / NANOS_PER_CENT, nanos % NANOS_PER_CENT);
            prop_assert_eq!(Nanos::from_cents_text(&text), Ok(Nanos(nanos)));
        }

        #[test]
        fn an_amount_in_cents_equals_the_same_in_dollars(nanos in 0..=Nanos::RECORD_MAX.get()) {
            let dollars = usd_string(nanos.into());
            prop_assert_eq!(Nanos::from_usd_text(&dollars), Ok(Nanos(nanos)));
            prop_assert_eq!(Nanos::from_cents_text(&format!("{dollars}e2")), Ok(Nanos(nanos)));
        }
    }
}
