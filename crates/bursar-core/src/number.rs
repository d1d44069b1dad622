//! Numbers of clients, read exactly from decimal text.
//!
//! Deliberately absent: floats. A client that computes in floating point sends figures such as
//! `59.699999999999996`, which are rounded once, here.

#![warn(clippy::arithmetic_side_effects)]

/// The longest text of a number. A double written out in full has up to 1,077 characters.
const TEXT_BYTES_MAX: usize = 1_200;
/// Exponents are cut here. Nothing near it is a figure of a call.
const EXPONENT_MAX: i64 = 1_000_000_000_000;

/// Why a text is not a valid number. The text is the rest of a sentence about the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    #[error("must be a number")]
    NotANumber,
    #[error("must be a number of at most {TEXT_BYTES_MAX} characters")]
    TooLong,
    #[error("must not be negative")]
    Negative,
    #[error("must be a whole number")]
    NotWhole,
    /// The largest accepted number.
    #[error("must be at most {0}")]
    TooLarge(i64),
}

/// What to do with the digits that do not fit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Excess {
    /// Round half up.
    Round,
    /// Refuse, unless they are zeros.
    Refuse,
}

/// Reads a whole number from 0 to `at_most`, in any notation: `14417`, `14417.0`, `1.4417e4`.
///
/// # Errors
/// [`NumberError`], whose text is meant for the client.
pub fn whole_number(text: &str, at_most: i64) -> Result<i64, NumberError> {
    let read = scaled(text, 0, Excess::Refuse, at_most)?;
    read.ok_or(NumberError::TooLarge(at_most))
}

/// Reads a number from 0 to `at_most`, rounded half up to a whole one.
///
/// # Errors
/// [`NumberError`], whose text is meant for the client.
pub fn rounded_number(text: &str, at_most: i64) -> Result<i64, NumberError> {
    let read = scaled(text, 0, Excess::Round, at_most)?;
    read.ok_or(NumberError::TooLarge(at_most))
}

/// Reads `text` times 10^`places`, rounded half up once. `None` if that is more than `at_most`.
pub(crate) fn rounded_at(
    text: &str,
    places: u32,
    at_most: i64,
) -> Result<Option<i64>, NumberError> {
    scaled(text, places, Excess::Round, at_most)
}

/// Reads `text` times 10^`places`. `None` if that is more than `at_most`.
///
/// Accepts any notation of JSON. Also accepts a leading plus, and a missing digit on one side of the
/// point (`.5`), because other programs write them into files.
fn scaled(
    text: &str,
    places: u32,
    excess: Excess,
    at_most: i64,
) -> Result<Option<i64>, NumberError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(NumberError::TooLong);
    }
    let (mantissa, exponent) = split_exponent(text)?;
    let (is_negative, unsigned) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().next().is_none() || !digits().all(|byte| byte.is_ascii_digit()) {
        return Err(NumberError::NotANumber);
    }
    if digits().all(|byte| byte == b'0') {
        return Ok(Some(0));
    }
    if is_negative {
        return Err(NumberError::Negative);
    }
    let before_point = digits_before_point(whole, exponent, places);
    let (kept, skipped) = match u64::try_from(before_point) {
        Ok(kept) => (kept, usize::try_from(kept).unwrap_or(usize::MAX)),
        Err(_) => (0, 0),
    };
    let mut value = 0_i64;
    // A digit is not zero, so the sum grows beyond its bound before the zeros behind it run long.
    for (_, byte) in (0..kept).zip(digits().chain(std::iter::repeat(b'0'))) {
        let digit = i64::from(byte.saturating_sub(b'0'));
        let next = value.checked_mul(10).and_then(|value| value.checked_add(digit));
        match next.filter(|value| *value <= at_most) {
            Some(next) => value = next,
            None => return Ok(None),
        }
    }
    let mut rest = digits().skip(skipped);
    match excess {
        Excess::Refuse if rest.any(|byte| byte != b'0') => return Err(NumberError::NotWhole),
        Excess::Round if before_point >= 0 && rest.next().is_some_and(|byte| byte >= b'5') => {
            value = value.saturating_add(1);
        }
        Excess::Refuse | Excess::Round => {}
    }
    Ok(Some(value).filter(|value| *value <= at_most))
}

/// How many digits of the mantissa stand before the point; negative if zeros follow it first.
fn digits_before_point(whole: &str, exponent: i64, places: u32) -> i64 {
    let digits = i64::try_from(whole.len()).unwrap_or(EXPONENT_MAX);
    digits.saturating_add(exponent).saturating_add(i64::from(places))
}

/// Splits `1.5e-3` into `1.5` and -3; an absurdly large exponent is cut, but keeps its sign.
fn split_exponent(text: &str) -> Result<(&str, i64), NumberError> {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else {
        return Ok((text, 0));
    };
    let (is_negative, digits) = match exponent.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, exponent.strip_prefix('+').unwrap_or(exponent)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NumberError::NotANumber);
    }
    let size = digits.parse::<i64>().unwrap_or(EXPONENT_MAX).min(EXPONENT_MAX);
    Ok((mantissa, if is_negative { size.saturating_neg() } else { size }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Result<i64, NumberError>) {
        assert_eq!(whole_number(text, 1_000_000_000), expected, "{text}");
    }

    #[test]
    fn a_whole_number_is_read_in_any_notation() {
        for text in ["14417", "14417.0", "14417.", "1.4417e4", "144170E-1", "+14417", "0014417"] {
            check(text, Ok(14_417));
        }
        check("0", Ok(0));
        check("-0.0", Ok(0));
        check(".0", Ok(0));
        check("1e9", Ok(1_000_000_000));
        check("0e999999999999999999999", Ok(0));
        check(&format!("7.{}", "0".repeat(1_000)), Ok(7));
    }

    #[test]
    fn an_invalid_whole_number_is_refused_with_its_reason() {
        check("1.5", Err(NumberError::NotWhole));
        check("1e-1", Err(NumberError::NotWhole));
        check("1e-99999999999999999999", Err(NumberError::NotWhole));
        check("14417.0000000001", Err(NumberError::NotWhole));
        check("-1", Err(NumberError::Negative));
        check("-0.1", Err(NumberError::Negative));
        check("1000000001", Err(NumberError::TooLarge(1_000_000_000)));
        check("1e10", Err(NumberError::TooLarge(1_000_000_000)));
        check("1e99999999999999999999", Err(NumberError::TooLarge(1_000_000_000)));
        check("9223372036854775808", Err(NumberError::TooLarge(1_000_000_000)));
        check(&"0".repeat(1_201), Err(NumberError::TooLong));
        let wrong = ["", "-", "+", ".", "e", "1e", "1e+", "abc", "1,5", "1_000", "0x10", "NaN"];
        for text in wrong.into_iter().chain(["Infinity", "--1", "+-1", "1.2.3", " 1", "\u{661}"]) {
            check(text, Err(NumberError::NotANumber));
        }
    }

    #[test]
    fn a_number_is_rounded_half_up_once() {
        for (text, rounded) in [
            ("812.4", 812),
            ("812.5", 813),
            ("812.4999999999999999999999", 812),
            ("0.5", 1),
            ("0.05", 0),
            ("0.49", 0),
            ("5e-1", 1),
            ("5e-2", 0),
            ("9e-99999999999999999999", 0),
            ("999.5", 1_000),
        ] {
            assert_eq!(rounded_number(text, 1_000), Ok(rounded), "{text}");
        }
        assert_eq!(rounded_number("1000.5", 1_000), Err(NumberError::TooLarge(1_000)));
        assert_eq!(rounded_number("1000.4", 1_000), Ok(1_000));
    }

    proptest! {
        #[test]
        fn every_spelling_of_a_number_has_its_value(number in 0..=1_000_000_000_i64, zeros in 0..9_u32) {
            let padding = "0".repeat(zeros as usize);
            for text in [
                number.to_string(),
                format!("{number}.{padding}"),
                format!("{number}e0"),
                format!("{number}{padding}E-{zeros}"),
                format!("+{padding}{number}"),
            ] {
                prop_assert_eq!(whole_number(&text, 1_000_000_000), Ok(number), "{}", text);
                prop_assert_eq!(rounded_number(&text, 1_000_000_000), Ok(number), "{}", text);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[-+.0-9eE]{0,40}", places in 0..12_u32) {
            let _ = rounded_at(&text, places, i64::MAX);
            let _ = whole_number(&text, i64::MAX);
        }
    }
}
