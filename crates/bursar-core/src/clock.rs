//! Bursar's time: what it makes of a wall clock that may jump and a boot clock that only flows.
//!
//! Periods, rates, holds and keys go by this time. It flows with the boot clock, follows the wall
//! clock through small corrections, and never goes back by itself. No clock is read here: readings
//! come in as parameters.

use crate::time::Timestamp;

const MICROS_PER_SECOND: i64 = 1_000_000;
/// How far the wall clock may step forward before it is taken for a jump.
const STEP_MICROS_MAX: i64 = 60 * MICROS_PER_SECOND;
/// How long a wall clock must stay ahead until it is believed.
const ADOPTED_AFTER_MICROS: i64 = 60 * MICROS_PER_SECOND;
/// A wall clock that is behind by less is not worth a word.
const BEHIND_MICROS: i64 = MICROS_PER_SECOND;
/// The pace of a time that waits for the wall clock, in tenths of the boot clock's: what was
/// promised for a minute then lasts a little longer, never shorter.
const SLOW_TENTHS: i64 = 9;

/// Both clocks, read in the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall clock, which people and NTP set.
    pub wall: Timestamp,
    /// Microseconds since any fixed moment, by a clock that nobody sets.
    pub boot_micros: i64,
}

/// Bursar's time beside the wall clock's, as it was at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockMark {
    pub now: Timestamp,
    /// The wall clock.
    pub wall: Timestamp,
}

/// A change that an operator wants to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockEvent {
    /// The wall clock jumped forward; writes and decisions are refused from now on.
    Jumped {
        /// By how much.
        seconds: i64,
    },
    /// The wall clock is back where the boot clock says that it should be.
    Returned,
    /// The wall clock stayed ahead, so Bursar's time is the wall clock's from now on.
    Adopted {
        /// By how much Bursar's time went forward.
        seconds: i64,
    },
    /// The wall clock fell behind; Bursar's time goes on, slower.
    Behind {
        /// By how much.
        seconds: i64,
    },
    /// The wall clock caught up with Bursar's time.
    CaughtUp,
}

/// How Bursar's time and the wall clock stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockState {
    pub now: Timestamp,
    /// The wall clock, as it was read last.
    pub wall: Timestamp,
    /// Seconds until a wall clock that jumped forward is believed; nothing when it did not.
    pub adopted_in_seconds: Option<u32>,
}

impl ClockState {
    /// How far the wall clock is ahead of Bursar's time, in microseconds; below zero behind it.
    pub const fn ahead_micros(&self) -> i64 {
        self.wall.micros() - self.now.micros()
    }

    /// The same in whole seconds, cut towards zero.
    pub const fn ahead_seconds(&self) -> i64 {
        self.ahead_micros() / MICROS_PER_SECOND
    }
}

/// Keeps Bursar's time.
#[derive(Clone, Debug)]
pub struct Timekeeper {
    /// Bursar's time at the last reading.
    now: i64,
    /// Tenths of a microsecond that the slow pace has left over.
    rest_tenths: i64,
    /// Where the boot clock alone leads from the last instant at which both clocks agreed.
    unslowed: i64,
    wall: i64,
    boot: i64,
    jump: Option<Jump>,
    is_behind: bool,
}

/// A wall clock that is ahead and not believed yet.
#[derive(Clone, Copy, Debug)]
struct Jump {
    since_boot: i64,
    ahead: i64,
}

impl Timekeeper {
    /// Begins at the wall clock's time.
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

    /// Begins where an earlier process left off: its time goes on by what passed on the wall clock
    /// since. A jump that the process did not believe is not believed now either.
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

    /// Goes forward to an instant that was decided at, if it lies ahead.
    pub fn not_before(&mut self, floor: Timestamp) {
        self.now = self.now.max(floor.micros());
        self.unslowed = self.unslowed.max(self.now);
        self.tell_behind();
    }

    /// Bursar's time at the last reading.
    pub fn now(&self) -> Timestamp {
        instant(self.now)
    }

    /// What to keep for [`Timekeeper::resume`].
    pub fn mark(&self) -> ClockMark {
        ClockMark { now: instant(self.now), wall: instant(self.wall) }
    }

    /// How both stand to each other.
    pub fn state(&self) -> ClockState {
        let adopted_in_seconds = self.jump.map(|jump| {
            let left = ADOPTED_AFTER_MICROS - (self.boot - jump.since_boot);
            let seconds = left.max(1).saturating_add(MICROS_PER_SECOND - 1) / MICROS_PER_SECOND;
            u32::try_from(seconds).unwrap_or(1)
        });
        ClockState { now: instant(self.now), wall: instant(self.wall), adopted_in_seconds }
    }

    /// Goes on by the boot clock alone, when nobody asked the wall clock.
    pub fn flow(&mut self, boot_micros: i64) {
        let passed = self.elapse(boot_micros);
        self.wall = self.wall.saturating_add(passed);
        self.now = if self.is_behind { self.slowed(passed) } else { self.now + passed };
    }

    /// Takes a reading of both clocks, and tells what changed by it.
    pub fn observe(&mut self, reading: ClockReading) -> Option<ClockEvent> {
        let passed = self.elapse(reading.boot_micros);
        let expected = self.now.saturating_add(passed);
        self.wall = reading.wall.micros();
        // Where the boot clock leads is no jump either, however long the wall clock was behind.
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
        let told = self.tell_behind();
        if had_jumped { Some(ClockEvent::Returned) } else { told }
    }

    /// Takes the wall clock's time for right, forward or back, because an operator says so; by how
    /// many microseconds Bursar's time went forward.
    pub fn confirm(&mut self, reading: ClockReading) -> i64 {
        let expected = self.now.saturating_add(self.elapse(reading.boot_micros));
        self.wall = reading.wall.micros();
        self.believe();
        self.jump = None;
        self.is_behind = false;
        self.now - expected
    }

    /// What passed on the boot clock, by which the unslowed time went on.
    fn elapse(&mut self, boot_micros: i64) -> i64 {
        // Readings of several threads may come out of order by a moment.
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
            // A clock that jumps on is no better known than one that jumped first.
            Some(_) | None => {
                self.now = expected;
                self.jump = Some(Jump { since_boot: self.boot, ahead });
                Some(ClockEvent::Jumped { seconds })
            }
        }
    }

    fn tell_behind(&mut self) -> Option<ClockEvent> {
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

/// The instant of so many microseconds, held between the first and the last one that there is.
fn instant(micros: i64) -> Timestamp {
    let clamped = micros.clamp(Timestamp::MIN.micros(), Timestamp::MAX.micros());
    Timestamp::from_micros(clamped).unwrap_or(Timestamp::MAX)
}
