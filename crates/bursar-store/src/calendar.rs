//! The calendars of IANA time zones, from rules inside the binary.
//!
//! Deliberately absent: the time zones of the system. Nodes with different rules would add up the
//! same limit over different periods.

use std::collections::HashMap;

use bursar_core::{Calendar, CalendarUnit, Period, Timestamp, UtcCalendar, Zone};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Span, ToSpan};
use parking_lot::Mutex;

/// How many periods a calendar remembers. A full memory is cleared.
const REMEMBERED_MAX: usize = 1024;

/// The calendar of all IANA time zones.
///
/// A period starts at the first instant at which the clocks of the zone show its first time or a
/// later one, and ends where the next period starts. So the periods partition time:
///
/// - A day whose midnight is skipped starts when the clocks have been set forward.
/// - A day or an hour that is skipped as a whole does not exist.
/// - When clocks are set back, the repeated time is in the period that had begun. An hour may last
///   two hours, and a day 25.
#[derive(Debug, Default)]
pub struct ZonedCalendar {
    /// The last period of each unit and zone. Most calls are in the current one.
    remembered: Mutex<HashMap<(CalendarUnit, Zone), Period>>,
}

impl ZonedCalendar {
    /// The zone of an IANA name, in any case. UTC and Etc/UTC are the same zone.
    ///
    /// # Errors
    ///
    /// The database of time zones in this binary has no such name.
    pub fn zone(name: &str) -> Result<Zone, UnknownZone> {
        let unknown = || UnknownZone(name.to_owned());
        let time_zone = TimeZoneDatabase::bundled().get(name).map_err(|_| unknown())?;
        match time_zone.iana_name().ok_or_else(unknown)? {
            "Etc/UTC" => Ok(Zone::utc()),
            canonical => Ok(Zone::new(canonical)),
        }
    }

    fn remember(&self, key: (CalendarUnit, Zone), period: Period) {
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX && !remembered.contains_key(&key) {
            remembered.clear();
        }
        remembered.insert(key, period);
    }
}

impl Calendar for ZonedCalendar {
    fn period(&self, unit: CalendarUnit, zone: &Zone, at: Timestamp) -> Option<Period> {
        if zone.is_utc() {
            return UtcCalendar.period(unit, zone, at);
        }
        let key = (unit, zone.clone());
        let last = self.remembered.lock().get(&key).copied();
        if let Some(period) = last.filter(|period| period.contains(at)) {
            return Some(period);
        }
        let period = zoned_period(unit, zone, at)?;
        self.remember(key, period);
        Some(period)
    }
}

/// A name that is not in the database of time zones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a known time zone; use an IANA name such as Europe/Berlin")]
pub struct UnknownZone(String);

/// Computes the period of an instant.
fn zoned_period(unit: CalendarUnit, zone: &Zone, at: Timestamp) -> Option<Period> {
    let time_zone = TimeZoneDatabase::bundled().get(zone.as_str()).ok()?;
    // Names in another case would fill the memory.
    if time_zone.iana_name() != Some(zone.as_str()) {
        return None;
    }
    let at = jiff::Timestamp::from_microsecond(at.micros()).ok()?;
    // Clocks that show a time of this period now showed its first one, or skipped it, before.
    let mut first = first_time(unit, time_zone.to_datetime(at))?;
    let mut start = first_instant(&time_zone, first)?;
    // A later period has begun already if clocks went back since.
    loop {
        first = first.checked_add(step(unit)).ok()?;
        let end = first_instant(&time_zone, first)?;
        if end > at {
            return Some(Period { start: from_jiff(start)?, end: from_jiff(end)? });
        }
        start = end;
    }
}

/// The first time of the period in which a time is.
fn first_time(unit: CalendarUnit, time: DateTime) -> Option<DateTime> {
    let date = time.date();
    Some(match unit {
        CalendarUnit::Hour => date.at(time.hour(), 0, 0, 0),
        CalendarUnit::Day => date.at(0, 0, 0, 0),
        CalendarUnit::Week => {
            let days = date.weekday().to_monday_zero_offset();
            date.checked_sub(days.days()).ok()?.at(0, 0, 0, 0)
        }
        CalendarUnit::Month => date.first_of_month().at(0, 0, 0, 0),
    })
}

fn step(unit: CalendarUnit) -> Span {
    match unit {
        CalendarUnit::Hour => 1.hour(),
        CalendarUnit::Day => 1.day(),
        CalendarUnit::Week => 1.week(),
        CalendarUnit::Month => 1.month(),
    }
}

/// The first instant at which clocks show this time or a later one.
///
/// For a time that the clocks skip, jiff's own conversions count on from the time before the gap.
/// The period must start at the end of the gap.
fn first_instant(time_zone: &TimeZone, time: DateTime) -> Option<jiff::Timestamp> {
    match time_zone.to_ambiguous_timestamp(time).offset() {
        AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
            offset.to_timestamp(time).ok()
        }
        AmbiguousOffset::Gap { after, .. } => {
            let before_gap = after.to_timestamp(time).ok()?;
            let mut changes = time_zone.following(before_gap);
            changes.find(|change| change.offset() == after).map(|change| change.timestamp())
        }
    }
}

fn from_jiff(at: jiff::Timestamp) -> Option<Timestamp> {
    Timestamp::from_micros(at.as_microsecond())
}

#[cfg(test)]
mod tests;
