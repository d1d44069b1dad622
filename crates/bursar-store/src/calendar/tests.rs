//! Periods of zones whose clocks change in unusual ways.

use proptest::prelude::*;

use super::*;
use CalendarUnit::{Day, Hour, Month, Week};

const UNITS: [CalendarUnit; 4] = [Hour, Day, Week, Month];

const ZONES: [&str; 9] = [
    "Africa/Cairo",
    "America/Sao_Paulo",
    "America/St_Johns",
    "America/Toronto",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Apia",
    "UTC",
];

fn instant(text: &str) -> Timestamp {
    from_jiff(text.parse().unwrap()).unwrap()
}

fn micros_later(at: Timestamp, micros: i64) -> Timestamp {
    Timestamp::from_micros(at.micros() + micros).unwrap()
}

fn zone(name: &str) -> Zone {
    ZonedCalendar::zone(name).unwrap()
}

/// The changes of the clocks of a zone between two instants.
fn changes(name: &str, from: &str, to: &str) -> Vec<Timestamp> {
    let time_zone = TimeZoneDatabase::bundled().get(name).unwrap();
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    let changes = time_zone.following(from).map(|change| change.timestamp());
    changes.take_while(|at| *at < to).map(|at| from_jiff(at).unwrap()).collect()
}

/// Asserts that the periods around an instant contain it and adjoin.
#[track_caller]
fn check_partition(calendar: &ZonedCalendar, unit: CalendarUnit, zone: &Zone, at: Timestamp) {
    let period = |at| calendar.period(unit, zone, at).unwrap();
    let found = period(at);
    assert!(found.contains(at), "{unit:?} {zone} {at}: {found:?}");
    assert_eq!(period(found.end).start, found.end, "after {unit:?} {zone} {at}");
    let before = micros_later(found.start, -1);
    assert_eq!(period(before).end, found.start, "before {unit:?} {zone} {at}");
}

prop_compose! {
    fn instants()(
        micros in instant("1970-03-01T00:00:00Z").micros()..instant("2200-01-01T00:00:00Z").micros()
    ) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }
}

fn units_and_zones() -> impl Strategy<Value = (CalendarUnit, Zone)> {
    let zones: Vec<Zone> = ZONES.into_iter().map(zone).collect();
    (prop::sample::select(UNITS.to_vec()), prop::sample::select(zones))
}

proptest! {
    #[test]
    fn periods_partition_time((unit, zone) in units_and_zones(), at in instants()) {
        check_partition(&ZonedCalendar::default(), unit, &zone, at);
    }

    #[test]
    fn zone_arithmetic_for_utc_agrees_with_the_core(
        unit in prop::sample::select(UNITS.to_vec()),
        at in instants(),
    ) {
        let expected = UtcCalendar.period(unit, &Zone::utc(), at);
        prop_assert!(expected.is_some());
        // jiff's own UTC, and a zone with the rules of UTC.
        prop_assert_eq!(zoned_period(unit, &Zone::utc(), at), expected);
        prop_assert_eq!(zoned_period(unit, &Zone::new("Etc/UTC"), at), expected);
        prop_assert_eq!(ZonedCalendar::default().period(unit, &Zone::utc(), at), expected);
    }

    #[test]
    fn a_calendar_with_a_memory_answers_like_one_without(
        (unit, zone) in units_and_zones(),
        first in instants(),
        // Up to two months away, in both directions, so that some are in the same period.
        distances in prop::collection::vec(-1_440_i64..=1_440, 1..8),
    ) {
        let calendar = ZonedCalendar::default();
        for hours in distances {
            let micros = (first.micros() + hours * 3_600_000_000).max(0);
            let at = Timestamp::from_micros(micros).unwrap();
            prop_assert_eq!(calendar.period(unit, &zone, at), zoned_period(unit, &zone, at));
        }
    }
}

#[test]
fn periods_partition_time_at_every_change_of_every_zone() {
    let calendar = ZonedCalendar::default();
    for name in TimeZoneDatabase::bundled().available() {
        let zone = zone(name.as_str());
        for change in changes(name.as_str(), "1970-03-01T00:00:00Z", "2090-01-01T00:00:00Z") {
            for (unit, micros) in [(Hour, 0), (Hour, -1), (Day, 0), (Day, -1)] {
                check_partition(&calendar, unit, &zone, micros_later(change, micros));
            }
        }
    }
}

/// The rule in other words: a period lasts while the latest time that the clocks have shown is in it.
#[test]
fn a_period_ends_when_clocks_first_show_a_time_of_the_next() {
    const QUARTER_HOUR: i64 = 900_000_000;
    const DAY_AND_A_HALF: i64 = 36 * 4;
    let calendar = ZonedCalendar::default();
    for name in ZONES {
        let (zone, time_zone) = (zone(name), TimeZoneDatabase::bundled().get(name).unwrap());
        for change in changes(name, "1970-03-01T00:00:00Z", "2038-01-01T00:00:00Z") {
            for unit in UNITS {
                let mut last: Option<(DateTime, Period)> = None;
                // Whole quarters of an hour: periods start there, also where clocks change at 00:01.
                let change = micros_later(change, -(change.micros() % QUARTER_HOUR));
                for quarter in -DAY_AND_A_HALF..=DAY_AND_A_HALF {
                    let at = micros_later(change, quarter * QUARTER_HOUR);
                    let known = jiff::Timestamp::from_microsecond(at.micros()).unwrap();
                    let shown = first_time(unit, time_zone.to_datetime(known)).unwrap();
                    let period = calendar.period(unit, &zone, at).unwrap();
                    if let Some((latest, before)) = last {
                        let expected = shown > latest;
                        assert_eq!(period != before, expected, "{unit:?} {name} {at}");
                    }
                    last = Some((last.map_or(shown, |(latest, _)| latest.max(shown)), period));
                }
            }
        }
    }
}

#[track_caller]
fn check(unit: CalendarUnit, name: &str, ats: &[&str], start: &str, end: &str) {
    let expected = Period { start: instant(start), end: instant(end) };
    let calendar = ZonedCalendar::default();
    for at in [start].iter().chain(ats) {
        let found = calendar.period(unit, &zone(name), instant(at));
        assert_eq!(found, Some(expected), "{unit:?} {name} {at}");
    }
}

#[test]
fn a_day_is_shorter_or_longer_when_clocks_change() {
    let berlin = "Europe/Berlin";
    check(Day, berlin, &[], "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
    check(Day, berlin, &[], "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
    check(Month, berlin, &[], "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z");
    check(Month, berlin, &[], "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z");
    check(Week, berlin, &[], "2026-03-22T23:00:00Z", "2026-03-29T22:00:00Z");
    let toronto = "America/Toronto";
    check(Day, toronto, &[], "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z");
    check(Day, toronto, &[], "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z");
}

#[test]
fn a_repeated_hour_is_one_period_and_a_skipped_hour_is_none() {
    let berlin = "Europe/Berlin";
    check(Hour, berlin, &["2026-03-29T00:59:59Z"], "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z");
    check(Hour, berlin, &["2026-03-29T01:59:59Z"], "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z");
    let both = ["2026-10-25T00:59:59Z", "2026-10-25T01:00:00Z", "2026-10-25T01:59:59Z"];
    check(Hour, berlin, &both, "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z");
    let toronto = "America/Toronto";
    check(Hour, toronto, &["2026-11-01T06:30:00Z"], "2026-11-01T05:00:00Z", "2026-11-01T07:00:00Z");
    check(Hour, toronto, &[], "2026-03-08T07:00:00Z", "2026-03-08T08:00:00Z");
}

#[test]
fn hours_follow_offsets_that_are_not_whole_hours() {
    // A change by half an hour: 90 minutes in April, 30 in October.
    let howe = "Australia/Lord_Howe";
    check(Hour, howe, &["2026-04-04T15:10:00Z"], "2026-04-04T14:00:00Z", "2026-04-04T15:30:00Z");
    check(Hour, howe, &[], "2026-10-03T14:30:00Z", "2026-10-03T15:30:00Z");
    check(Hour, howe, &["2026-10-03T15:59:59Z"], "2026-10-03T15:30:00Z", "2026-10-03T16:00:00Z");
    // 5:45 hours ahead of UTC, since clocks were set forward by a quarter of an hour at midnight.
    let kathmandu = "Asia/Kathmandu";
    check(Hour, kathmandu, &[], "2026-01-01T11:15:00Z", "2026-01-01T12:15:00Z");
    check(Day, kathmandu, &[], "2025-12-31T18:15:00Z", "2026-01-01T18:15:00Z");
    check(Hour, kathmandu, &[], "1985-12-31T18:30:00Z", "1985-12-31T19:15:00Z");
    check(Day, kathmandu, &[], "1985-12-31T18:30:00Z", "1986-01-01T18:15:00Z");
}

#[test]
fn a_day_whose_midnight_is_skipped_starts_after_the_gap() {
    let paulo = "America/Sao_Paulo";
    check(Day, paulo, &["2018-11-04T02:59:59Z"], "2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z");
    check(Day, paulo, &[], "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z");
    check(Hour, paulo, &[], "2018-11-04T03:00:00Z", "2018-11-04T04:00:00Z");
    check(Day, paulo, &[], "1987-10-25T03:00:00Z", "1987-10-26T02:00:00Z");
    check(Day, "Africa/Cairo", &[], "2023-04-27T22:00:00Z", "2023-04-28T21:00:00Z");
}

#[test]
fn time_that_is_repeated_around_midnight_is_in_one_day() {
    // At midnight, clocks go back to 23:00: the old day goes on.
    let paulo = "America/Sao_Paulo";
    check(Day, paulo, &["2018-02-18T02:30:00Z"], "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z");
    check(Hour, paulo, &["2018-02-18T02:30:00Z"], "2018-02-18T01:00:00Z", "2018-02-18T03:00:00Z");
    check(Day, "Africa/Cairo", &[], "2023-10-25T21:00:00Z", "2023-10-26T22:00:00Z");
    // At 00:01, clocks go back to 23:01: the new day has begun, and does not end.
    let johns = "America/St_Johns";
    check(Day, johns, &[], "2010-11-06T02:30:00Z", "2010-11-07T02:30:00Z");
    check(Day, johns, &["2010-11-07T02:45:00Z"], "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z");
    check(Hour, johns, &["2010-11-07T02:45:00Z"], "2010-11-07T02:30:00Z", "2010-11-07T04:30:00Z");
}

#[test]
fn a_skipped_day_is_no_period() {
    // There was no 30 December 2011: the date line moved.
    let apia = "Pacific/Apia";
    check(Day, apia, &["2011-12-30T09:59:59Z"], "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z");
    check(Day, apia, &[], "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z");
    check(Hour, apia, &[], "2011-12-30T09:00:00Z", "2011-12-30T10:00:00Z");
    check(Hour, apia, &[], "2011-12-30T10:00:00Z", "2011-12-30T11:00:00Z");
    check(Week, apia, &[], "2011-12-26T10:00:00Z", "2012-01-01T10:00:00Z");
    check(Month, apia, &[], "2011-12-01T10:00:00Z", "2011-12-31T10:00:00Z");
    // Its clocks change too.
    check(Hour, apia, &[], "2012-03-31T13:00:00Z", "2012-03-31T15:00:00Z");
    check(Day, apia, &[], "2012-03-31T10:00:00Z", "2012-04-01T11:00:00Z");
    check(Day, apia, &[], "2012-09-29T11:00:00Z", "2012-09-30T10:00:00Z");
}

#[test]
fn leap_days_and_weeks_across_years_follow_the_civil_calendar() {
    let berlin = "Europe/Berlin";
    check(Day, berlin, &[], "2024-02-28T23:00:00Z", "2024-02-29T23:00:00Z");
    check(Month, berlin, &[], "2024-01-31T23:00:00Z", "2024-02-29T23:00:00Z");
    check(Month, berlin, &[], "2100-01-31T23:00:00Z", "2100-02-28T23:00:00Z");
    let new_year = ["2025-12-31T22:59:59Z", "2025-12-31T23:00:00Z", "2026-01-04T22:59:59Z"];
    check(Week, berlin, &new_year, "2025-12-28T23:00:00Z", "2026-01-04T23:00:00Z");
}

#[test]
fn a_call_in_the_remembered_period_computes_nothing() {
    let calendar = ZonedCalendar::default();
    let (berlin, at) = (zone("Europe/Berlin"), instant("2026-06-01T12:00:00Z"));
    // Not a day of Berlin: only the memory can answer with it.
    let planted = Period { start: at, end: at.plus_seconds(1) };
    calendar.remember((Day, berlin.clone()), planted);
    assert_eq!(calendar.period(Day, &berlin, at), Some(planted));
    assert_ne!(calendar.period(Week, &berlin, at), Some(planted));
    assert_ne!(calendar.period(Day, &zone("Africa/Cairo"), at), Some(planted));
    assert_ne!(calendar.period(Day, &berlin, planted.end), Some(planted));
}

#[test]
fn the_memory_is_bounded() {
    let calendar = ZonedCalendar::default();
    let at = instant("2026-06-01T12:00:00Z");
    for name in TimeZoneDatabase::bundled().available() {
        for unit in UNITS {
            assert!(calendar.period(unit, &zone(name.as_str()), at).is_some(), "{name}");
            assert!(calendar.remembered.lock().len() <= REMEMBERED_MAX);
        }
    }
    // Names that no calendar returned are not remembered.
    let before = calendar.remembered.lock().len();
    for name in ["europe/berlin", "Mars/Base", ""] {
        assert_eq!(calendar.period(Day, &Zone::new(name), at), None, "{name}");
    }
    assert_eq!(calendar.remembered.lock().len(), before);
}

#[test]
fn a_period_that_does_not_fit_the_range_of_instants_is_none() {
    let calendar = ZonedCalendar::default();
    // The first day of 1970 began in 1969 in Berlin.
    for at in [Timestamp::MIN, Timestamp::MAX] {
        assert_eq!(calendar.period(Day, &zone("Europe/Berlin"), at), None);
    }
    assert!(
        calendar.period(Day, &zone("Europe/Berlin"), instant("1970-01-01T23:00:00Z")).is_some()
    );
    assert!(calendar.period(Hour, &zone("Europe/Berlin"), Timestamp::MIN).is_some());
}

#[test]
fn names_of_zones_are_found_in_any_case() {
    #[track_caller]
    fn check(name: &str, expected: &str) {
        assert_eq!(ZonedCalendar::zone(name).unwrap().as_str(), expected);
    }
    check("europe/berlin", "Europe/Berlin");
    check("AMERICA/ARGENTINA/buenos_aires", "America/Argentina/Buenos_Aires");
    for name in ["UTC", "utc", "Etc/UTC", "etc/utc"] {
        check(name, "UTC");
        assert!(ZonedCalendar::zone(name).unwrap().is_utc());
    }
    assert!(!zone("Europe/London").is_utc());
}

#[test]
fn unknown_names_are_refused() {
    // jiff's own name for an unknown zone, an offset, a POSIX rule, a path, and a control character.
    let names = ["", "Mars/Base", "Etc/Unknown", "+01:00", "CET-1CEST", "../UTC", "UTC\n", "Local"];
    for name in names {
        assert_eq!(ZonedCalendar::zone(name), Err(UnknownZone(name.to_owned())), "{name:?}");
    }
    let message = ZonedCalendar::zone("Mars/Base").unwrap_err().to_string();
    assert_eq!(
        message,
        "\"Mars/Base\" is not a known time zone; use an IANA name such as Europe/Berlin"
    );
}
