//! The calendar of the tests: real time zones, and one with odd periods.

use bursar_core::{Calendar, CalendarUnit, Period, Timestamp, UtcCalendar, Zone};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Span, ToSpan};

/// A zone whose periods have odd lengths, and start within a second.
pub(crate) const ODD: &str = "Test/Odd";

/// UTC, [`ODD`], and the zones of IANA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TestCalendar;

impl Calendar for TestCalendar {
    fn period(&self, unit: CalendarUnit, zone: &Zone, at: Timestamp) -> Option<Period> {
        match zone.as_str() {
            "UTC" => UtcCalendar.period(unit, zone, at),
            ODD => odd_period(unit, at),
            name => zoned_period(unit, &TimeZoneDatabase::bundled().get(name).ok()?, at),
        }
    }
}

fn odd_period(unit: CalendarUnit, at: Timestamp) -> Option<Period> {
    let micros = match unit {
        CalendarUnit::Hour => 3_700_000_001,
        CalendarUnit::Day => 90_061_234_567,
        CalendarUnit::Week => 500_000_000_003,
        CalendarUnit::Month => 2_222_222_222_222,
    };
    let start = at.micros() - at.micros() % micros;
    let (start, end) = (Timestamp::from_micros(start)?, Timestamp::from_micros(start + micros)?);
    Some(Period { start, end })
}

/// A period starts when the clocks first show its first time, or a later one.
fn zoned_period(unit: CalendarUnit, zone: &TimeZone, at: Timestamp) -> Option<Period> {
    let at = jiff::Timestamp::from_microsecond(at.micros()).ok()?;
    // The clocks went back by less than a day, so the period has begun at one of these times.
    let mut first = first_time(unit, zone.to_datetime(at) - 1.day())?;
    loop {
        let next = first.checked_add(length(unit)).ok()?;
        let (start, end) = (first_instant(zone, first)?, first_instant(zone, next)?);
        if start <= at && at < end {
            let instant = |at: jiff::Timestamp| Timestamp::from_micros(at.as_microsecond());
            return Some(Period { start: instant(start)?, end: instant(end)? });
        }
        first = next;
    }
}

fn first_time(unit: CalendarUnit, time: DateTime) -> Option<DateTime> {
    let midnight = time.date().at(0, 0, 0, 0);
    let monday = i64::from(time.date().weekday().to_monday_zero_offset()).days();
    match unit {
        CalendarUnit::Hour => Some(time.date().at(time.hour(), 0, 0, 0)),
        CalendarUnit::Day => Some(midnight),
        CalendarUnit::Week => midnight.checked_sub(monday).ok(),
        CalendarUnit::Month => Some(midnight.first_of_month()),
    }
}

fn length(unit: CalendarUnit) -> Span {
    match unit {
        CalendarUnit::Hour => 1.hour(),
        CalendarUnit::Day => 1.day(),
        CalendarUnit::Week => 1.week(),
        CalendarUnit::Month => 1.month(),
    }
}

/// The first instant at which the clocks show this time or a later one.
fn first_instant(zone: &TimeZone, time: DateTime) -> Option<jiff::Timestamp> {
    match zone.to_ambiguous_timestamp(time).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(time).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(time).ok(),
        AmbiguousOffset::Gap { after, .. } => {
            let before_gap = after.to_timestamp(time).ok()?;
            zone.following(before_gap).next().map(|change| change.timestamp())
        }
    }
}
