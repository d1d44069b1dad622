//! Times as text: written as RFC 3339 in UTC, read as ISO 8601.
//!
//! Every time from outside is parsed here: in requests, command-line arguments and imported files.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use bursar_core::{Day, Month, Timestamp};
use jiff::civil::{DateTime, Time};
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
/// The largest offset from UTC in RFC 3339: 23:59.
const OFFSET_SECONDS_MAX: i32 = (23 * 60 + 59) * 60;
/// The digits of a fraction of a second that jiff reads.
const FRACTION_DIGITS_MAX: usize = 9;
const OFFSET_OUT_OF_RANGE: &str = "must have an offset from UTC between -23:59 and +23:59";
const ONLY_ZONE_NAME: &str = "must have an offset from UTC, not only the name of a zone";
const OUT_OF_RANGE: &str = "must be in the years 1970 to 9999";

/// The time of the system clock.
pub fn system_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros).unwrap_or(Timestamp::MAX)
}

/// `2026-11-20T13:00:39.123456Z`; without a fraction if it is zero.
pub fn text(at: Timestamp) -> String {
    let mut text = String::with_capacity(27);
    // Writing to a String cannot fail.
    let _ = write!(text, "{at}");
    text
}

/// Parses RFC 3339 and equivalent spellings of ISO 8601.
///
/// Digits beyond microseconds are cut, and a leap second becomes the second before it.
///
/// # Errors
/// The rest of a sentence about the field.
pub fn parse(text: &str) -> Result<Timestamp, &'static str> {
    const WRONG: &str = "must be an instant with an offset, such as 2026-11-20T13:00:00Z";
    let written = Written::read(text, WRONG)?;
    let (Some(time), Some(offset)) = (written.time, written.offset) else { return Err(WRONG) };
    let local = DateTime::from_parts(written.date, time).duration_since(EPOCH);
    from_nanos(local.as_nanos() - i128::from(offset.seconds()) * 1_000_000_000)
}

/// Converts from jiff, cut to the microsecond.
///
/// # Errors
/// The rest of a sentence about the field.
pub(crate) fn from_jiff(at: jiff::Timestamp) -> Result<Timestamp, &'static str> {
    from_nanos(at.as_nanosecond())
}

/// Converts nanoseconds since 1970 in UTC. jiff's own type ends a day before the year 9999 does.
fn from_nanos(nanos: i128) -> Result<Timestamp, &'static str> {
    let micros = i64::try_from(nanos.div_euclid(1_000)).ok();
    micros.and_then(Timestamp::from_micros).ok_or(OUT_OF_RANGE)
}

/// A date and the other parts of a written time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// The local date.
    pub(crate) date: jiff::civil::Date,
    /// The local time of day.
    pub(crate) time: Option<Time>,
    /// The offset from UTC.
    pub(crate) offset: Option<Offset>,
}

impl Written {
    /// Parses a date, optionally with a time and an offset.
    ///
    /// # Errors
    /// The rest of a sentence about the field; `wrong` if the text has another form.
    pub(crate) fn read(text: &str, wrong: &'static str) -> Result<Self, &'static str> {
        let text = cut_fraction(text);
        let pieces = Pieces::parse(text.as_ref()).map_err(|_| wrong)?;
        let offset = pieces.to_numeric_offset();
        if offset.is_some_and(|offset| offset.seconds().abs() > OFFSET_SECONDS_MAX) {
            return Err(OFFSET_OUT_OF_RANGE);
        }
        // The name of a zone is not enough, because the rules of zones change.
        if offset.is_none() && pieces.time_zone_annotation().is_some() {
            return Err(ONLY_ZONE_NAME);
        }
        Ok(Self { date: pieces.date(), time: pieces.time(), offset })
    }
}

/// Cuts a fraction of a second to the supported digits.
fn cut_fraction(text: &str) -> Cow<'_, str> {
    let Some((before, fraction)) =
        text.find(['.', ',']).and_then(|at| text.split_at_checked(at + 1))
    else {
        return text.into();
    };
    let end = fraction.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(fraction.len());
    if end <= FRACTION_DIGITS_MAX {
        return text.into();
    }
    let (digits, rest) = fraction.split_at(end);
    let (kept, _) = digits.split_at(FRACTION_DIGITS_MAX);
    format!("{before}{kept}{rest}").into()
}

/// Parses a day: `2026-11-20`.
///
/// # Errors
/// The rest of a sentence about the field.
pub fn parse_day(text: &str) -> Result<Day, &'static str> {
    const WRONG: &str = "must be a day, such as 2026-11-20";
    let mut parts = text.splitn(3, '-');
    let mut next = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u16>().ok())?
    };
    let (year, month, day) = (next(4), next(2), next(2));
    let (Some(year), Some(month), Some(day)) = (year, month, day) else { return Err(WRONG) };
    Day::from_civil(i32::from(year), month as u8, day as u8).ok_or(WRONG)
}

/// Parses an instant, or a day, which means its beginning.
///
/// # Errors
/// The rest of a sentence about the field.
pub(crate) fn parse_start(text: &str) -> Result<Timestamp, &'static str> {
    parse_day(text).map(Day::start).or_else(|_| parse(text))
}

/// Parses a month: `2026-10`.
///
/// # Errors
/// The rest of a sentence about the field.
pub fn parse_month(text: &str) -> Result<Month, &'static str> {
    const WRONG: &str = "must be a month, such as 2026-10";
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
    fn one_instant_has_many_spellings() {
        for (spelling, expected) in [
            ("2026-11-20T13:00:39Z", "2026-11-20T13:00:39Z"),
            ("2026-11-20t13:00:39z", "2026-11-20T13:00:39Z"),
            ("2026-11-20 13:00:39Z", "2026-11-20T13:00:39Z"),
            ("20261120T130039Z", "2026-11-20T13:00:39Z"),
            ("2026-11-20T130039Z", "2026-11-20T13:00:39Z"),
            ("20261120 13:00:39Z", "2026-11-20T13:00:39Z"),
            ("+002026-11-20T13:00:39Z", "2026-11-20T13:00:39Z"),
            // Without seconds, or without minutes.
            ("2026-11-20T13:00Z", "2026-11-20T13:00:00Z"),
            ("2026-11-20T1300Z", "2026-11-20T13:00:00Z"),
            ("2026-11-20T13Z", "2026-11-20T13:00:00Z"),
            // Offsets from UTC.
            ("2026-11-20T13:00:39+00:00", "2026-11-20T13:00:39Z"),
            ("2026-11-20T13:00:39-00:00", "2026-11-20T13:00:39Z"),
            ("2026-11-20T13:00:39+02:00", "2026-11-20T11:00:39Z"),
            ("2026-11-20T13:00:39+0200", "2026-11-20T11:00:39Z"),
            ("2026-11-20T13:00:39+02", "2026-11-20T11:00:39Z"),
            ("2026-11-20T13:00:39-02:30", "2026-11-20T15:30:39Z"),
            ("2026-11-20T13:00:39+02:00:30", "2026-11-20T11:00:09Z"),
            ("2026-11-20T13:00:39+23:59", "2026-11-19T13:01:39Z"),
            ("2026-11-20T13:00:39-23:59", "2026-11-21T12:59:39Z"),
            ("2026-11-20T13:00:39-2359", "2026-11-21T12:59:39Z"),
            // Zone names are informational.
            ("2026-11-20T13:00:39Z[UTC]", "2026-11-20T13:00:39Z"),
            ("2026-11-20T13:00:39+01:00[Europe/Berlin]", "2026-11-20T12:00:39Z"),
            ("2026-11-20T13:00:39+09:00[Europe/Berlin]", "2026-11-20T04:00:39Z"),
            // A fraction is cut to microseconds.
            ("2026-11-20T13:00:39.5Z", "2026-11-20T13:00:39.500000Z"),
            ("2026-11-20T13:00:39,5Z", "2026-11-20T13:00:39.500000Z"),
            ("2026-11-20T13:00:39.000000999Z", "2026-11-20T13:00:39Z"),
            ("2026-11-20T13:00:39.1234567890Z", "2026-11-20T13:00:39.123456Z"),
            ("2026-11-20T13:00:39.99999999999999999999999Z", "2026-11-20T13:00:39.999999Z"),
            ("2026-11-20T13:00:39,999999999999+02:00", "2026-11-20T11:00:39.999999Z"),
            ("20261120T130039.1234567891234-0200", "2026-11-20T15:00:39.123456Z"),
            // A leap second is the second before it.
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
            ("2017-01-01T00:59:60.5+01:00", "2016-12-31T23:59:59.500000Z"),
            ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            ("1970-01-01T02:00:00+02:00", "1970-01-01T00:00:00Z"),
            ("1969-12-31T23:00:00-01:00", "1970-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999Z"),
            ("9999-12-31T00:00:00-23:59", "9999-12-31T23:59:00Z"),
        ] {
            assert_eq!(parse(spelling).map(text).as_deref(), Ok(expected), "{spelling}");
        }
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        const WRONG: &str = "must be an instant with an offset, such as 2026-11-20T13:00:00Z";
        for (wrong, expected) in [
            ("2026-11-20T13:00:00+24:00", OFFSET_OUT_OF_RANGE),
            ("2026-11-20T13:00:00-24:00", OFFSET_OUT_OF_RANGE),
            ("2026-11-20T13:00:00+24", OFFSET_OUT_OF_RANGE),
            ("2026-11-20T13:00:00+2400", OFFSET_OUT_OF_RANGE),
            ("2026-11-20T13:00:00+25:00", OFFSET_OUT_OF_RANGE),
            ("2026-11-20T13:00:00-25:59", OFFSET_OUT_OF_RANGE),
            ("2026-11-20T13:00:00+23:59:01", OFFSET_OUT_OF_RANGE),
            ("2026-11-20T13:00:00+26:00", WRONG),
            ("2026-11-20T13:00:00+99:00", WRONG),
            ("2026-11-20T13:00:00+02:60", WRONG),
            ("2026-11-20T13:00:00+2", WRONG),
            ("2026-11-20T13:00:00+200", WRONG),
            ("2026-11-20T13:00:00+02:", WRONG),
            ("2026-11-20T13:00:00[Europe/Berlin]", ONLY_ZONE_NAME),
            ("2026-11-20T13:00:00 Europe/Berlin", WRONG),
            ("2026-11-20T13:00:00 UTC", WRONG),
            ("", WRONG),
            ("now", WRONG),
            ("1795179639", WRONG),
            ("2026-11-20", WRONG),
            ("2026-11-20Z", WRONG),
            ("2026-11-20T13:00:00", WRONG),
            (" 2026-11-20T13:00:00Z", WRONG),
            ("2026-11-20T13:00:00Z ", WRONG),
            ("2026-11-20T13:00:00.Z", WRONG),
            ("2026-11-20T13:00:00.1.1Z", WRONG),
            ("2026-11-20T13:00:00.1234567890x1Z", WRONG),
            ("2026-11-20T24:00:00Z", WRONG),
            ("2026-11-20T13:60:00Z", WRONG),
            ("2026-11-20T13:00:61Z", WRONG),
            ("2026-02-29T13:00:00Z", WRONG),
            ("2026-13-01T13:00:00Z", WRONG),
            ("26-11-20T13:00:00Z", WRONG),
            // Week dates and ordinal dates.
            ("2026-W47-5T13:00:00Z", WRONG),
            ("2026-324T13:00:00Z", WRONG),
            ("1969-12-31T23:59:59.9Z", OUT_OF_RANGE),
            ("1970-01-01T00:59:59+01:00", OUT_OF_RANGE),
            ("-000001-01-01T00:00:00Z", OUT_OF_RANGE),
            ("9999-12-31T23:59:59-01:00", OUT_OF_RANGE),
        ] {
            assert_eq!(parse(wrong).map(text), Err(expected), "{wrong}");
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
