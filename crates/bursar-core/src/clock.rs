//! Bursar's time, derived from a wall clock that may jump and a boot clock that never does.
//!
//! Periods, rates, holds and keys use this time. It advances with the boot clock, follows small
//! corrections of the wall clock, and never goes back on its own.
//!
//! Deliberately absent: reading clocks. Readings are parameters.

use crate::time::Timestamp;

const MICROS_PER_SECOND: i64 = 1_000_000;
/// How far the wall clock may step forward before the step counts as a jump.
const STEP_MICROS_MAX: i64 = 60 * MICROS_PER_SECOND;
/// How long a wall clock must stay ahead before Bursar adopts its time.
const ADOPTED_AFTER_MICROS: i64 = 60 * MICROS_PER_SECOND;
/// How far the wall clock must be behind before an event is reported.
const BEHIND_MICROS: i64 = MICROS_PER_SECOND;
/// The pace of Bursar's time while the wall clock is behind, in tenths of the boot clock's pace.
///
/// It is slower than the boot clock, so that no period is shorter than promised.
const SLOW_TENTHS: i64 = 9;

/// Readings of both clocks from the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall clock, which people and NTP set.
    pub wall: Timestamp,
    /// Microseconds since an arbitrary fixed moment, from a clock that cannot be set.
    pub boot_micros: i64,
}

/// Bursar's time and the wall clock's time at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockMark {
    pub now: Timestamp,
    /// The wall clock.
    pub wall: Timestamp,
}

/// A change of the clock that operators need to know about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockEvent {
    /// The wall clock jumped forward. Writes and decisions are refused from now on.
    Jumped { seconds: i64 },
    /// The wall clock is back at the time that the boot clock predicts.
    Returned,
    /// The wall clock stayed ahead, so Bursar's time moved forward to it.
    Adopted { seconds: i64 },
    /// The wall clock fell behind. Bursar's time advances more slowly.
    Behind { seconds: i64 },
    /// The wall clock caught up with Bursar's time.
    CaughtUp,
}

/// The state of Bursar's time relative to the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockState {
    pub now: Timestamp,
    /// The last reading of the wall clock.
    pub wall: Timestamp,
    /// Seconds until Bursar adopts a wall clock that jumped forward; `None` if it did not jump.
    pub adopted_in_seconds: Option<u32>,
}

impl ClockState {
    /// How far the wall clock is ahead of Bursar's time; negative if it is behind.
    pub const fn ahead_micros(&self) -> i64 {
        self.wall.micros() - self.now.micros()
    }

    /// Like [`ClockState::ahead_micros`] in whole seconds, truncated towards zero.
    pub const fn ahead_seconds(&self) -> i64 {
        self.ahead_micros() / MICROS_PER_SECOND
    }
}

/// Keeps Bursar's time.
#[derive(Clone, Debug)]
pub struct Timekeeper {
    /// Bursar's time at the last reading.
    now: i64,
    /// The remainder of the slow pace, in tenths of a microsecond.
    rest_tenths: i64,
    /// The last instant at which both clocks agreed, advanced by the boot clock alone.
    unslowed: i64,
    wall: i64,
    boot: i64,
    jump: Option<Jump>,
    is_behind: bool,
}

/// A jump of the wall clock that is not adopted yet.
#[derive(Clone, Copy, Debug)]
struct Jump {
    since_boot: i64,
    ahead: i64,
}

impl Timekeeper {
    /// Starts at the wall clock's time.
    pub const fn start(reading: ClockReading) -> Self {
        let wall = reading.wall.micros();
        Self {
            now: wall,
            rest_tenths: 0,
            unslowed: wall,
            wall,
            boot: reading.boot_micros,
            jump: None,
            is_behind: false,
        }
    }

    /// Resumes from the mark of an earlier process, advanced by the time that the wall clock shows.
    ///
    /// If that process saw a jump and had not adopted it, it is still not adopted.
    pub fn resume(reading: ClockReading, mark: ClockMark) -> Self {
        let passed = reading.wall.micros().saturating_sub(mark.wall.micros());
        let had_jumped = mark.wall.micros().saturating_sub(mark.now.micros()) > STEP_MICROS_MAX;
        if had_jumped && (0..ADOPTED_AFTER_MICROS).contains(&passed) {
            let expected = instant(mark.now.micros().saturating_add(passed));
            let mut keeper = Self::start(ClockReading { wall: expected, ..reading });
            keeper.observe(reading);
            return keeper;
        }
        let slow = passed.max(0) / 10 * SLOW_TENTHS;
        let mut keeper = Self::start(reading);
        keeper.not_before(instant(mark.now.micros().saturating_add(slow)));
        keeper
    }

    /// Moves forward to the instant of a decision, if that is ahead.
    pub fn not_before(&mut self, floor: Timestamp) {
        self.now = self.now.max(floor.micros());
        self.unslowed = self.unslowed.max(self.now);
        self.behind_event();
    }

    /// Bursar's time at the last reading.
    pub fn now(&self) -> Timestamp {
        instant(self.now)
    }

    /// The mark to store for [`Timekeeper::resume`].
    pub fn mark(&self) -> ClockMark {
        ClockMark { now: instant(self.now), wall: instant(self.wall) }
    }

    /// The state at the last reading.
    pub fn state(&self) -> ClockState {
        let adopted_in_seconds = self.jump.map(|jump| {
            let left = ADOPTED_AFTER_MICROS - (self.boot - jump.since_boot);
            let seconds = left.max(1).saturating_add(MICROS_PER_SECOND - 1) / MICROS_PER_SECOND;
            u32::try_from(seconds).unwrap_or(1)
        });
        ClockState { now: instant(self.now), wall: instant(self.wall), adopted_in_seconds }
    }

    /// Advances by the boot clock alone, without a reading of the wall clock.
    pub fn flow(&mut self, boot_micros: i64) {
        let passed = self.elapse(boot_micros);
        self.wall = self.wall.saturating_add(passed);
        self.now = if self.is_behind { self.slowed(passed) } else { self.now + passed };
    }

    /// Takes a reading of both clocks, and returns the event that it causes.
    pub fn observe(&mut self, reading: ClockReading) -> Option<ClockEvent> {
        let passed = self.elapse(reading.boot_micros);
        let expected = self.now.saturating_add(passed);
        self.wall = reading.wall.micros();
        // A wall clock that returns to the boot clock's time after being behind does not jump.
        let limit = expected.max(self.unslowed).saturating_add(STEP_MICROS_MAX);
        if self.wall > limit {
            return self.doubt(expected);
        }
        let had_jumped = self.jump.take().is_some();
        let slow = self.slowed(passed);
        if self.wall >= slow {
            self.believe();
        } else {
            self.now = slow;
        }
        let behind = self.behind_event();
        if had_jumped { Some(ClockEvent::Returned) } else { behind }
    }

    /// Adopts the wall clock's time, forward or back, because an operator confirmed it.
    ///
    /// Returns how many microseconds Bursar's time moved forward.
    pub fn confirm(&mut self, reading: ClockReading) -> i64 {
        let expected = self.now.saturating_add(self.elapse(reading.boot_micros));
        self.wall = reading.wall.micros();
        self.believe();
        self.jump = None;
        self.is_behind = false;
        self.now - expected
    }

    /// Advances `unslowed` by the boot clock, and returns the microseconds that passed.
    fn elapse(&mut self, boot_micros: i64) -> i64 {
        // Readings of several threads can arrive slightly out of order.
        let passed = boot_micros.saturating_sub(self.boot).max(0);
        self.boot = self.boot.max(boot_micros);
        self.unslowed = self.unslowed.saturating_add(passed);
        passed
    }

    fn slowed(&mut self, passed: i64) -> i64 {
        let tenths = passed.saturating_mul(SLOW_TENTHS).saturating_add(self.rest_tenths);
        self.rest_tenths = tenths % 10;
        self.now.saturating_add(tenths / 10)
    }

    fn believe(&mut self) {
        self.now = self.wall;
        self.unslowed = self.wall;
        self.rest_tenths = 0;
    }

    fn doubt(&mut self, expected: i64) -> Option<ClockEvent> {
        self.is_behind = false;
        let ahead = self.wall - expected;
        let seconds = ahead / MICROS_PER_SECOND;
        match self.jump {
            Some(jump) if jump.ahead.abs_diff(ahead) <= STEP_MICROS_MAX.unsigned_abs() => {
                if self.boot.saturating_sub(jump.since_boot) >= ADOPTED_AFTER_MICROS {
                    self.believe();
                    self.jump = None;
                    return Some(ClockEvent::Adopted { seconds });
                }
                self.now = expected;
                None
            }
            // A clock that jumps again starts a new wait.
            Some(_) | None => {
                self.now = expected;
                self.jump = Some(Jump { since_boot: self.boot, ahead });
                Some(ClockEvent::Jumped { seconds })
            }
        }
    }

    /// The event when the wall clock falls behind or catches up.
    fn behind_event(&mut self) -> Option<ClockEvent> {
        let behind = self.now - self.wall;
        match (self.is_behind, behind) {
            (false, BEHIND_MICROS..) => {
                self.is_behind = true;
                Some(ClockEvent::Behind { seconds: behind / MICROS_PER_SECOND })
            }
            (true, ..=0) => {
                self.is_behind = false;
                Some(ClockEvent::CaughtUp)
            }
            _ => None,
        }
    }
}

/// The instant of `micros`, clamped to the range of [`Timestamp`].
fn instant(micros: i64) -> Timestamp {
    let clamped = micros.clamp(Timestamp::MIN.micros(), Timestamp::MAX.micros());
    Timestamp::from_micros(clamped).unwrap_or(Timestamp::MAX)
}
