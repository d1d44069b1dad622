//! Instants and the UTC calendar: quarter hours, hours, days and months as counts since 1970.
//!
//! No clock: every instant comes in as a parameter. No time zones: the periods of limits, which have
//! them, are in period.rs.

use std::fmt;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// An instant, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest instant that Bursar accepts: the start of 1970.
    pub const MIN: Self = Self(0);
    /// The latest instant that Bursar accepts: the last microsecond of the year 9999.
    pub const MAX: Self = Self(253_402_300_799_999_999);

    /// An instant; `None` if it is not between [`Self::MIN`] and [`Self::MAX`].
    pub const fn from_micros(micros: i64) -> Option<Self> {
        if micros >= Self::MIN.0 && micros <= Self::MAX.0 { Some(Self(micros)) } else { None }
    }

    /// Microseconds since 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn second(self) -> i64 {
        self.0.div_euclid(MICROS_PER_SECOND)
    }

    /// The quarter hour of this instant.
    pub const fn quarter_hour(self) -> QuarterHour {
        QuarterHour(self.second().div_euclid(900) as i32)
    }

    /// The hour of this instant.
    pub const fn hour(self) -> Hour {
        Hour(self.second().div_euclid(3600) as i32)
    }

    /// The day of this instant.
    pub const fn day(self) -> Day {
        Day(self.second().div_euclid(SECONDS_PER_DAY) as i32)
    }

    /// The month of this instant.
    pub fn month(self) -> Month {
        self.day().month()
    }

    /// This many seconds later, at most [`Self::MAX`].
    #[must_use]
    pub const fn plus_seconds(self, seconds: u32) -> Self {
        let later = self.0 + seconds as i64 * MICROS_PER_SECOND;
        if later > Self::MAX.0 { Self::MAX } else { Self(later) }
    }
}

/// RFC 3339 in UTC: `2026-11-20T13:00:39.123456Z`, without a fraction when there is none.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let second = self.second().rem_euclid(SECONDS_PER_DAY);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{}T{hour:02}:{minute:02}:{second:02}", self.day())?;
        let fraction = self.0.rem_euclid(MICROS_PER_SECOND);
        if fraction != 0 {
            write!(f, ".{fraction:06}")?;
        }
        f.write_str("Z")
    }
}

/// A quarter of an hour, counted from 1970.
///
/// The offset of every time zone from UTC is a whole number of quarter hours today, so hours and
/// days of any zone are whole numbers of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuarterHour(i32);

impl QuarterHour {
    /// Quarter hours since 1970.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The quarter hour of this number.
    pub const fn from_number(number: i32) -> Self {
        Self(number)
    }

    /// The hour that it is a part of.
    pub const fn hour(self) -> Hour {
        Hour(self.0.div_euclid(4))
    }
}

/// An hour of the UTC calendar, counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(i32);

impl Hour {
    /// Hours since 1970.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The hour of this number.
    pub const fn from_number(number: i32) -> Self {
        Self(number)
    }

    /// Its first quarter.
    pub const fn first_quarter(self) -> QuarterHour {
        QuarterHour(self.0 * 4)
    }

    /// Its first instant.
    pub fn start(self) -> Timestamp {
        Day(self.0.div_euclid(24)).start().plus_seconds(self.0.rem_euclid(24) as u32 * 3_600)
    }
}

/// A day of the UTC calendar, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

impl Day {
    /// Days since 1970-01-01.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The day of this number.
    pub const fn from_number(number: i32) -> Self {
        Self(number)
    }

    /// The day of a calendar date, with `month` and `day` from 1; `None` if it does not exist.
    pub fn from_civil(year: i32, month: u8, day: u8) -> Option<Self> {
        let of_month = Month::from_civil(year, month)?;
        let first = of_month.first_day();
        let candidate = Self(first.0 + i32::from(day) - 1);
        (day >= 1 && candidate.month() == of_month).then_some(candidate)
    }

    /// Year, month and day.
    pub fn civil(self) -> (i32, u8, u8) {
        let (year, month) = self.month().civil();
        let first = self.month().first_day().0;
        (year, month, (self.0 - first + 1) as u8)
    }

    /// Its first instant.
    pub fn start(self) -> Timestamp {
        Timestamp(i64::from(self.0) * SECONDS_PER_DAY * MICROS_PER_SECOND)
    }

    /// The month of this day.
    pub fn month(self) -> Month {
        // 400 years have 146,097 days in 4,800 months, so the guess is at most one month off.
        let guess = Month(((i64::from(self.0) + 15) * 4_800 / 146_097) as i32);
        if guess.first_day() > self {
            Month(guess.0 - 1)
        } else if Month(guess.0 + 1).first_day() <= self {
            Month(guess.0 + 1)
        } else {
            guess
        }
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

/// A month of the UTC calendar, counted from January 1970: the period of every monthly limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(i32);

impl Month {
    /// Months since January 1970.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The month of this number.
    pub const fn from_number(number: i32) -> Self {
        Self(number)
    }

    /// The month of a year from 1970 to 9999 and a month number from 1 to 12, else `None`.
    pub fn from_civil(year: i32, month: u8) -> Option<Self> {
        ((1970..=9999).contains(&year) && (1..=12).contains(&month))
            .then(|| Self((year - 1970) * 12 + i32::from(month) - 1))
    }

    /// Year and month.
    pub const fn civil(self) -> (i32, u8) {
        (1970 + self.0.div_euclid(12), (self.0.rem_euclid(12) + 1) as u8)
    }

    /// Its first day.
    ///
    /// In a year that begins in March, the days before a month follow from integer arithmetic; see
    /// Howard Hinnant, "chrono-compatible low-level date algorithms".
    pub const fn first_day(self) -> Day {
        let (civil_year, civil_month) = self.civil();
        let year = if civil_month <= 2 { civil_year - 1 } else { civil_year };
        let month_from_march = (civil_month as i32 + 9) % 12;
        let day_of_year = (153 * month_from_march + 2) / 5;
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        Day(year * 365 + leap_days + day_of_year - 719_468)
    }

    /// The month after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Its first instant.
    pub fn start(self) -> Timestamp {
        self.first_day().start()
    }

    /// The first instant after it.
    pub fn end(self) -> Timestamp {
        self.next().start()
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month) = self.civil();
        write!(f, "{year:04}-{month:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_calendar_agrees_with_jiff(micros in 0..=Timestamp::MAX.micros()) {
            let at = Timestamp(micros);
            let known = jiff::Timestamp::from_microsecond(micros)
                .expect("in range").to_zoned(jiff::tz::TimeZone::UTC);
            let (year, month, day) = at.day().civil();
            prop_assert_eq!(at.to_string().parse().ok(), Some(known.timestamp()));
            prop_assert_eq!(
                (i32::from(known.year()), known.month() as u8, known.day() as u8),
                (year, month, day)
            );
            prop_assert_eq!(at.month().civil(), (year, month));
            prop_assert_eq!(Day::from_civil(year, month, day), Some(at.day()));
            prop_assert!(at.month().start() <= at && at < at.month().end());
            prop_assert_eq!(i64::from(at.hour().number()), micros / 3_600_000_000);
            prop_assert_eq!(i64::from(at.quarter_hour().number()), micros / 900_000_000);
            prop_assert_eq!(at.quarter_hour().hour(), at.hour());
        }
    }

    #[test]
    fn the_first_and_last_day_of_a_month_are_in_that_month() {
        for number in 0..(8030 * 12) {
            let month = Month(number);
            assert_eq!(month.first_day().month(), month);
            assert_eq!(Day(month.next().first_day().0 - 1).month(), month);
        }
    }

    #[test]
    fn dates_that_do_not_exist_are_refused() {
        assert_eq!(Day::from_civil(2023, 2, 29), None);
        assert_eq!(Day::from_civil(2023, 4, 31), None);
        assert_eq!(Day::from_civil(2023, 13, 1), None);
        assert_eq!(Day::from_civil(2023, 1, 0), None);
        assert_eq!(
            Day::from_civil(2024, 2, 29).map(|d| d.to_string()).as_deref(),
            Some("2024-02-29")
        );
    }
}
