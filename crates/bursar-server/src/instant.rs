//! Instants and days as text: RFC 3339 in UTC.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use bursar_core::{Day, Month, Timestamp};

/// The system's clock.
pub fn system_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros).unwrap_or(Timestamp::MAX)
}

/// `2026-11-20T13:00:39.123456Z`, without a fraction when there is none.
pub fn text(at: Timestamp) -> String {
    let mut text = String::with_capacity(27);
    // Writing to a String cannot fail.
    let _ = write!(text, "{at}");
    text
}

/// Reads RFC 3339; what is finer than a microsecond is cut.
///
/// # Errors
/// The rest of a sentence about the field.
pub fn parse(text: &str) -> Result<Timestamp, &'static str> {
    const WRONG: &str = "must be an instant with a zone, like 2026-11-20T13:00:00Z";
    let read: jiff::Timestamp = text.parse().map_err(|_| WRONG)?;
    Timestamp::from_micros(read.as_microsecond().min(read.as_nanosecond().div_euclid(1_000) as i64))
        .ok_or("must lie between the years 1970 and 9999")
}

/// Reads a day: `2026-11-20`.
///
/// # Errors
/// The rest of a sentence about the field.
pub fn parse_day(text: &str) -> Result<Day, &'static str> {
    const WRONG: &str = "must be a day, like 2026-11-20";
    let mut parts = text.splitn(3, '-');
    let mut next = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u16>().ok())?
    };
    let (year, month, day) = (next(4), next(2), next(2));
    let (Some(year), Some(month), Some(day)) = (year, month, day) else { return Err(WRONG) };
    Day::from_civil(i32::from(year), month as u8, day as u8).ok_or(WRONG)
}

/// Reads an instant, or a day, which means its beginning.
///
/// # Errors
/// The rest of a sentence about the field.
pub fn parse_start(text: &str) -> Result<Timestamp, &'static str> {
    parse_day(text).map(Day::start).or_else(|_| parse(text))
}

/// Reads a month: `2026-10`.
///
/// # Errors
/// The rest of a sentence about the field.
pub fn parse_month(text: &str) -> Result<Month, &'static str> {
    const WRONG: &str = "must be a month, like 2026-10";
    let (year, month) = text.split_once('-').ok_or(WRONG)?;
    let digits = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !digits(year, 4) || !digits(month, 2) {
        return Err(WRONG);
    }
    let (year, month) = (year.parse().map_err(|_| WRONG)?, month.parse().map_err(|_| WRONG)?);
    Month::from_civil(year, month).ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_lead_back() {
        for known in ["2026-11-20T13:00:39.123456Z", "1970-01-01T00:00:00Z", "2024-02-29T23:59:59Z"]
        {
            assert_eq!(parse(known).map(text).as_deref(), Ok(known));
        }
        assert_eq!(
            parse("2023-11-16T19:17:03.9799609+01:00").map(text).as_deref(),
            Ok("2023-11-16T18:17:03.979960Z")
        );
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for wrong in ["", "2026-11-20", "2026-11-20T13:00:00", "1969-12-31T23:59:59.9Z", "now"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        for wrong in ["2026-13-01", "2026-02-30", "26-01-01", "2026-1-1", "2026-01-01T", ""] {
            assert!(parse_day(wrong).is_err(), "{wrong}");
        }
        for wrong in ["2026", "2026-13", "2026-1", "2026-00", "1969-12"] {
            assert!(parse_month(wrong).is_err(), "{wrong}");
        }
        assert!(parse_month("2023-11").is_ok());
    }
}
