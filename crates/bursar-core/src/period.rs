//! The periods over which a limit adds up: calendar hours, days, weeks and months of a time zone.
//!
//! Deliberately absent: the rules of time zones. The caller passes a [`Calendar`] that knows them.
//! [`UtcCalendar`] needs none.

use std::fmt;
use std::sync::Arc;

use crate::time::Timestamp;

const HOURS_PER_DAY: i64 = 24;
const DAYS_PER_WEEK: i32 = 7;
const MICROS_PER_HOUR: i64 = 3_600_000_000;

/// A calendar period as instants. It is never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    pub start: Timestamp,
    /// The first instant after the period.
    pub end: Timestamp,
}

impl Period {
    /// Whether the instant is in this period.
    pub fn contains(self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }
}

/// A unit of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CalendarUnit {
    Hour,
    Day,
    /// Seven days, from Monday.
    Week,
    Month,
}

/// The canonical IANA name of a time zone, such as `Europe/Berlin`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(Arc<str>);

impl Zone {
    const UTC: &str = "UTC";

    /// Coordinated universal time.
    pub fn utc() -> Self {
        Self::new(Self::UTC)
    }

    /// The zone of a name that a calendar returned.
    ///
    /// Only a calendar can check names. For another name, [`Calendar::period`] returns `None`.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    pub fn is_utc(&self) -> bool {
        self.as_str() == Self::UTC
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The calendars of time zones.
///
/// For each unit and zone, the periods partition time: every instant is in exactly one, and the end
/// of a period is the start of the next. An implementation must not read anything that differs
/// between nodes, such as the time zones of the system: all nodes count in the same periods.
pub trait Calendar: Send + Sync + fmt::Debug {
    /// The period that contains an instant.
    ///
    /// `None` if the zone is unknown, or if the period does not fit between [`Timestamp::MIN`] and
    /// [`Timestamp::MAX`], as in the first days of 1970 and the last days of 9999.
    fn period(&self, unit: CalendarUnit, zone: &Zone, at: Timestamp) -> Option<Period>;
}

/// The calendar of UTC. It knows no other zone.
#[derive(Clone, Copy, Debug)]
pub struct UtcCalendar;

impl Calendar for UtcCalendar {
    fn period(&self, unit: CalendarUnit, zone: &Zone, at: Timestamp) -> Option<Period> {
        if !zone.is_utc() {
            return None;
        }
        let day = at.day().number();
        let (first, next) = match unit {
            CalendarUnit::Hour => {
                let hour = i64::from(at.hour().number());
                (hour, hour + 1)
            }
            CalendarUnit::Day => (first_hour(day), first_hour(day + 1)),
            CalendarUnit::Week => {
                // Day 0, the first of 1970, is a Thursday.
                let monday = day - (day + 3).rem_euclid(DAYS_PER_WEEK);
                (first_hour(monday), first_hour(monday + DAYS_PER_WEEK))
            }
            CalendarUnit::Month => {
                let month = at.month();
                let first_day = month.first_day().number();
                (first_hour(first_day), first_hour(month.next().first_day().number()))
            }
        };
        Some(Period { start: start_of_hour(first)?, end: start_of_hour(next)? })
    }
}

/// The number of the first hour of a day; both are counted from 1970.
fn first_hour(day: i32) -> i64 {
    i64::from(day) * HOURS_PER_DAY
}

fn start_of_hour(hour: i64) -> Option<Timestamp> {
    Timestamp::from_micros(hour * MICROS_PER_HOUR)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNITS: [CalendarUnit; 4] =
        [CalendarUnit::Hour, CalendarUnit::Day, CalendarUnit::Week, CalendarUnit::Month];

    fn instant(text: &str) -> Timestamp {
        let known: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_micros(known.as_microsecond()).unwrap()
    }

    fn period(unit: CalendarUnit, at: Timestamp) -> Option<Period> {
        UtcCalendar.period(unit, &Zone::utc(), at)
    }

    proptest! {
        #[test]
        fn periods_partition_time(
            unit in prop::sample::select(UNITS.to_vec()),
            // From the first Monday of 1970, with the next month complete.
            micros in instant("1970-02-01T00:00:00Z").micros()
                ..instant("9999-11-01T00:00:00Z").micros(),
        ) {
            let at = Timestamp::from_micros(micros).unwrap();
            let found = period(unit, at).unwrap();
            prop_assert!(found.contains(at));
            prop_assert!(found.contains(found.start) && !found.contains(found.end));
            prop_assert_eq!(period(unit, found.end).unwrap().start, found.end);
            let before = Timestamp::from_micros(found.start.micros() - 1).unwrap();
            prop_assert_eq!(period(unit, before).unwrap().end, found.start);
        }
    }

    #[test]
    fn periods_start_with_their_unit() {
        #[track_caller]
        fn check(unit: CalendarUnit, at: &str, start: &str, end: &str) {
            let expected = Period { start: instant(start), end: instant(end) };
            assert_eq!(period(unit, instant(at)), Some(expected), "{unit:?} {at}");
        }
        use CalendarUnit::{Day, Hour, Month, Week};
        let at = "2024-02-29T23:59:59.999999Z";
        check(Hour, at, "2024-02-29T23:00:00Z", "2024-03-01T00:00:00Z");
        check(Day, at, "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z");
        check(Week, at, "2024-02-26T00:00:00Z", "2024-03-04T00:00:00Z");
        check(Month, at, "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z");
        // A week across the end of a year; its Monday is its first day and its Sunday the last.
        for at in ["2024-12-30T00:00:00Z", "2025-01-01T12:00:00Z", "2025-01-05T23:59:59Z"] {
            check(Week, at, "2024-12-30T00:00:00Z", "2025-01-06T00:00:00Z");
        }
        check(Month, "2100-02-28T23:00:00Z", "2100-02-01T00:00:00Z", "2100-03-01T00:00:00Z");
    }

    #[test]
    fn a_period_that_does_not_fit_the_range_of_instants_is_none() {
        for unit in UNITS {
            assert_eq!(period(unit, Timestamp::MAX), None, "{unit:?}");
            let expected = unit != CalendarUnit::Week;
            assert_eq!(period(unit, Timestamp::MIN).is_some(), expected, "{unit:?}");
        }
        assert!(period(CalendarUnit::Week, instant("1970-01-05T00:00:00Z")).is_some());
        assert!(period(CalendarUnit::Hour, instant("9999-12-30T22:00:00Z")).is_some());
    }

    #[test]
    fn the_calendar_of_utc_knows_no_other_zone() {
        for name in ["Europe/Berlin", "utc", ""] {
            let found = UtcCalendar.period(CalendarUnit::Day, &Zone::new(name), Timestamp::MIN);
            assert_eq!(found, None, "{name}");
        }
    }
}
