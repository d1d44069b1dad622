//! The edges of periods in real time zones: what counts before them counts nothing after.

#![expect(clippy::unwrap_used, reason = "all instants are valid constants")]

use bursar_core::{CalendarUnit, ReasonCode, Scope, Timestamp, Window, Zone};
use proptest::prelude::*;

use crate::support::limited::{Limited, calls, limit, zoned_period};
use crate::support::script::{as_is, record, reserve};
use crate::support::shifted;

use CalendarUnit::{Day, Hour, Month, Week};

const ZONES: [&str; 5] =
    ["America/Sao_Paulo", "Asia/Kathmandu", "Australia/Lord_Howe", "Europe/Berlin", "UTC"];

fn instant(text: &str) -> Timestamp {
    let known: jiff::Timestamp = text.parse().unwrap();
    Timestamp::from_micros(known.as_microsecond()).unwrap()
}

/// One call in a period of a zone.
fn one_call(unit: CalendarUnit, zone: &str) -> Limited {
    let window = Window::Calendar(unit, Zone::new(zone));
    Limited::new([limit(1, Scope::Tenant, calls(window, 1))])
}

/// Units and zones, and the end of one of their periods.
fn edges() -> impl Strategy<Value = (CalendarUnit, &'static str, Timestamp)> {
    let units = prop::sample::select(vec![Hour, Day, Week, Month]);
    let zones = prop::sample::select(ZONES.to_vec());
    let years = instant("1975-01-01T00:00:00Z").micros()..instant("2100-01-01T00:00:00Z").micros();
    (units, zones, years).prop_map(|(unit, zone, micros)| {
        let at = Timestamp::from_micros(micros).unwrap();
        (unit, zone, zoned_period(unit, zone, at).end)
    })
}

proptest! {
    #[test]
    fn what_came_before_the_end_of_a_period_counts_nothing_after_it(
        (unit, zone, edge) in edges(),
    ) {
        let before = shifted(edge, -1);
        let mut limited = one_call(unit, zone);
        limited.admits(before, &reserve("held", as_is));
        prop_assert_eq!(limited.sums(1, "", before), (0, 1));
        prop_assert_eq!(limited.sums(1, "", edge), (0, 0));

        // Neither the end of the hold nor a late record moves the new period.
        limited.run(edge, &record("late", |usage| usage.occurred_at = Some(before)));
        limited.run(edge, &record("held", |_| {}));
        prop_assert_eq!(limited.sums(1, "", edge), (0, 0));
        limited.admits(edge, &reserve("next", as_is));
        prop_assert_eq!(limited.sums(1, "", edge), (0, 1));
    }

    #[test]
    fn a_record_that_is_ahead_of_its_arrival_counts_at_its_arrival(
        (unit, zone, edge) in edges(),
    ) {
        let before = shifted(edge, -1);
        let mut limited = one_call(unit, zone);
        limited.run(before, &record("ahead", |usage| usage.occurred_at = Some(edge)));
        prop_assert_eq!(limited.sums(1, "", before), (1, 0));
        prop_assert_eq!(limited.sums(1, "", edge), (0, 0));
    }
}

/// Checks the first instant of a period, and the first one after it.
#[track_caller]
fn check(unit: CalendarUnit, zone: &str, first: &str, next: &str) {
    let (first, next) = (instant(first), instant(next));
    let mut limited = one_call(unit, zone);
    limited.run(shifted(first, -1), &record("before", |_| {}));
    assert_eq!(limited.sums(1, "", first), (0, 0), "{unit:?} {zone}");
    limited.run(first, &record("first", |_| {}));
    let code = limited.blocks(shifted(next, -1), &reserve("last", as_is));
    assert_eq!(code, ReasonCode::CallLimitExceeded, "{unit:?} {zone}");
    limited.admits(next, &reserve("next", as_is));
}

#[test]
fn a_day_is_as_long_as_the_clocks_make_it() {
    // 23 hours, and 25.
    check(Day, "Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
    check(Day, "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
    // Midnight does not exist, so the day starts at one o'clock.
    check(Day, "America/Sao_Paulo", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z");
    // Midnight occurs twice, and the first one starts the day before.
    check(Day, "America/Sao_Paulo", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z");
    check(Day, "Asia/Kathmandu", "2026-06-14T18:15:00Z", "2026-06-15T18:15:00Z");
    // The clocks change by half an hour.
    check(Day, "Australia/Lord_Howe", "2026-04-04T13:00:00Z", "2026-04-05T13:30:00Z");
}

#[test]
fn an_hour_is_as_long_as_the_clocks_make_it() {
    check(Hour, "Asia/Kathmandu", "2026-06-15T00:15:00Z", "2026-06-15T01:15:00Z");
    // The clocks show 2:00 to 3:00 twice.
    check(Hour, "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z");
    // The clocks show 1:30 to 2:00 twice.
    check(Hour, "Australia/Lord_Howe", "2026-04-04T14:00:00Z", "2026-04-04T15:30:00Z");
}

#[test]
fn a_week_starts_on_monday() {
    check(Week, "UTC", "2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z");
    check(Week, "Europe/Berlin", "2026-10-18T22:00:00Z", "2026-10-25T23:00:00Z");
    check(Week, "Asia/Kathmandu", "2028-02-27T18:15:00Z", "2028-03-05T18:15:00Z");
}

#[test]
fn a_month_ends_with_its_last_day() {
    check(Month, "UTC", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z");
    check(Month, "UTC", "2100-02-01T00:00:00Z", "2100-03-01T00:00:00Z");
    check(Day, "UTC", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z");
    check(Month, "Europe/Berlin", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z");
    check(Month, "America/Sao_Paulo", "2026-12-01T03:00:00Z", "2027-01-01T03:00:00Z");
}
