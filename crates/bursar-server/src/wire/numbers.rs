//! Numbers in requests: a JSON number in any notation, or a decimal number in a string.
//!
//! They are read from the text that the client sent. Going through a float would change them.

use std::borrow::Cow;

use bursar_core::{
    LATENCY_MS_MAX, Nanos, NumberError, TOKENS_MAX, UnitAmount, rounded_number, whole_number,
};
use serde_json::value::RawValue;

use crate::wire::error::ApiError;

/// Reads an amount in cents, rounded half up once to a nano-dollar.
///
/// # Errors
/// 422 on the field.
pub(crate) fn read_cents(field: &str, number: &RawValue) -> Result<Nanos, ApiError> {
    read(field, number, Nanos::from_cents_text)
}

/// Reads an amount in dollars, rounded half up once to a nano-dollar.
///
/// # Errors
/// 422 on the field.
pub(crate) fn read_usd(field: &str, number: &RawValue) -> Result<Nanos, ApiError> {
    read(field, number, Nanos::from_usd_text)
}

/// Reads a number of tokens, which is whole.
///
/// # Errors
/// 422 on the field.
pub(crate) fn read_tokens(field: &str, number: &RawValue) -> Result<i64, ApiError> {
    read(field, number, |text| whole_number(text, TOKENS_MAX))
}

/// Reads a duration in milliseconds, rounded half up.
///
/// # Errors
/// 422 on the field.
pub(crate) fn read_millis(field: &str, number: &RawValue) -> Result<i64, ApiError> {
    read(field, number, |text| rounded_number(text, LATENCY_MS_MAX))
}

/// Reads an amount of a unit, rounded half up once to a millionth.
///
/// # Errors
/// 422 on the field.
pub(crate) fn read_amount(field: &str, number: &RawValue) -> Result<UnitAmount, ApiError> {
    read(field, number, UnitAmount::from_text)
}

fn read<T>(
    field: &str,
    number: &RawValue,
    parse: impl FnOnce(&str) -> Result<T, NumberError>,
) -> Result<T, ApiError> {
    let read =
        number_text(number).ok_or(NumberError::NotANumber).and_then(|text| parse(text.trim()));
    read.map_err(|error| ApiError::field(field, &error.to_string()))
}

/// The text of a number or of a string. `None` for other values.
fn number_text(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    match text.as_bytes().first()? {
        b'"' => match text.strip_prefix('"')?.strip_suffix('"')? {
            plain if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
            _ => serde_json::from_str(text).ok().map(Cow::Owned),
        },
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).expect("JSON")
    }

    #[test]
    fn a_number_and_a_string_of_it_are_the_same() {
        for json in
            ["14417", "14417.0", "1.4417e+4", "\"14417\"", "\" 14417.0 \"", "\"\\u00314417\""]
        {
            assert_eq!(read_tokens("t", raw(json)).ok(), Some(14_417), "{json}");
        }
        assert_eq!(read_millis("l", raw("812.4")).ok(), Some(812));
        assert_eq!(read_millis("l", raw("\"812.5\"")).ok(), Some(813));
        assert_eq!(read_cents("c", raw("59.699999999999996")).ok(), Some(Nanos::new(597_000_000)));
        assert_eq!(read_usd("c", raw("\"0.5\"")).ok(), Some(Nanos::new(500_000_000)));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for json in
            ["true", "[1]", "{}", "\"\"", "\" \"", "\"1,5\"", "\"NaN\"", "\"Infinity\"", "null"]
        {
            assert!(read_tokens("t", raw(json)).is_err(), "{json}");
            assert!(read_cents("c", raw(json)).is_err(), "{json}");
        }
    }
}
