//! Bursar's time under wall clocks that jump: scripts, and properties over random scripts.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use bursar_core::{ClockEvent, ClockMark, ClockReading, Day, Timekeeper, Timestamp};
use proptest::prelude::*;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600;
const FOUR_DAYS: i64 = 4 * 86_400;

fn start() -> i64 {
    Day::from_civil(2026, 11, 28).unwrap().start().micros()
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

/// A timekeeper with clocks that the test moves.
struct Clocks {
    keeper: Timekeeper,
    /// Microseconds of the boot clock since the start.
    boot: i64,
    /// How far the wall clock is off, in microseconds.
    off: i64,
}

impl Clocks {
    fn new() -> Self {
        let keeper = Timekeeper::start(reading(0, 0));
        Self { keeper, boot: 0, off: 0 }
    }

    fn wall(&self) -> i64 {
        start() + self.boot + self.off
    }

    /// Lets seconds pass, with four readings in each.
    fn advance(&mut self, seconds: i64) -> Vec<ClockEvent> {
        (0..seconds * 4).filter_map(|_| self.pass_micros(SECOND / 4)).collect()
    }

    fn pass_micros(&mut self, micros: i64) -> Option<ClockEvent> {
        self.boot += micros;
        self.keeper.observe(reading(self.boot, self.off))
    }

    fn jump(&mut self, seconds: i64) -> Option<ClockEvent> {
        self.off += seconds * SECOND;
        self.keeper.observe(reading(self.boot, self.off))
    }

    /// Microseconds of Bursar's time since the start.
    fn now(&self) -> i64 {
        self.keeper.now().micros() - start()
    }

    fn is_refusing(&self) -> bool {
        self.keeper.state().adopted_in_seconds.is_some()
    }
}

fn reading(boot: i64, off: i64) -> ClockReading {
    ClockReading { wall: at(start() + boot + off), boot_micros: 7 * SECOND + boot }
}

#[test]
fn a_jump_forward_for_half_a_second_changes_nothing() {
    for seconds in [61, HOUR, FOUR_DAYS] {
        let mut clocks = Clocks::new();
        assert_eq!(clocks.advance(10), []);
        assert_eq!(clocks.jump(seconds), Some(ClockEvent::Jumped { seconds }));
        assert!(clocks.is_refusing());
        assert_eq!(clocks.pass_micros(SECOND / 2), None);
        assert_eq!(clocks.now(), 10 * SECOND + SECOND / 2);
        assert_eq!(clocks.jump(-seconds), Some(ClockEvent::Returned));
        assert!(!clocks.is_refusing());
        assert_eq!(clocks.now(), 10 * SECOND + SECOND / 2);
    }
}

#[test]
fn a_lasting_jump_forward_is_adopted_after_a_minute() {
    for seconds in [61, HOUR, FOUR_DAYS] {
        let mut clocks = Clocks::new();
        clocks.jump(seconds);
        assert_eq!(clocks.keeper.state().adopted_in_seconds, Some(60));
        assert_eq!(clocks.advance(59), []);
        assert_eq!((clocks.now(), clocks.is_refusing()), (59 * SECOND, true));
        assert_eq!(clocks.keeper.state().adopted_in_seconds, Some(1));
        assert_eq!(clocks.keeper.state().ahead_seconds(), seconds);
        assert_eq!(clocks.advance(1), [ClockEvent::Adopted { seconds }]);
        assert_eq!((clocks.now(), clocks.is_refusing()), ((60 + seconds) * SECOND, false));
    }
}

#[test]
fn a_second_jump_starts_the_wait_again() {
    let mut clocks = Clocks::new();
    clocks.jump(HOUR);
    clocks.advance(50);
    assert_eq!(clocks.jump(FOUR_DAYS), Some(ClockEvent::Jumped { seconds: HOUR + FOUR_DAYS }));
    assert_eq!(clocks.advance(59), []);
    assert!(clocks.is_refusing());
}

#[test]
fn a_small_step_forward_is_followed_at_once() {
    let mut clocks = Clocks::new();
    assert_eq!(clocks.jump(60), None);
    assert_eq!((clocks.now(), clocks.is_refusing()), (60 * SECOND, false));
}

#[test]
fn a_jump_back_slows_the_time_until_the_clock_has_caught_up() {
    let mut clocks = Clocks::new();
    assert_eq!(clocks.jump(-HOUR), Some(ClockEvent::Behind { seconds: HOUR }));
    assert_eq!(clocks.advance(600), []);
    assert_eq!((clocks.now(), clocks.is_refusing()), (540 * SECOND, false));
    let events = clocks.advance(10 * HOUR - 600);
    assert_eq!(events, [ClockEvent::CaughtUp]);
    assert_eq!(clocks.now(), 9 * HOUR * SECOND);
}

#[test]
fn a_clock_that_comes_back_from_behind_has_not_jumped() {
    let mut clocks = Clocks::new();
    clocks.jump(-HOUR);
    // After this, the slowed time is behind by more than a small step.
    clocks.advance(1_200);
    assert_eq!(clocks.jump(HOUR), Some(ClockEvent::CaughtUp));
    assert_eq!((clocks.now(), clocks.is_refusing()), (1_200 * SECOND, false));
}

#[test]
fn a_confirmation_adopts_the_wall_clocks_time_in_both_directions() {
    for seconds in [FOUR_DAYS, HOUR, -HOUR, -FOUR_DAYS] {
        let mut clocks = Clocks::new();
        clocks.jump(seconds);
        clocks.advance(5);
        let expected = clocks.now();
        let changed = clocks.keeper.confirm(reading(clocks.boot, clocks.off));
        assert_eq!(changed, clocks.now() - expected);
        assert_eq!((clocks.now(), clocks.is_refusing()), ((5 + seconds) * SECOND, false));
        assert_eq!(clocks.advance(5), []);
        assert_eq!(clocks.now(), (10 + seconds) * SECOND);
    }
}

#[test]
fn a_start_never_falls_behind_the_last_decision() {
    let floor = at(start() + HOUR * SECOND);
    let mut keeper = Timekeeper::start(reading(0, 0));
    keeper.not_before(floor);
    assert_eq!(keeper.now(), floor);
    assert_eq!(keeper.state().ahead_seconds(), -HOUR);
}

#[test]
fn a_start_continues_from_the_time_of_the_last_process() {
    let mark = |ahead: i64| ClockMark { now: at(start() + ahead * SECOND), wall: at(start()) };
    let passed = reading(100 * SECOND, 0);
    // The stored time equals the wall clock, is ahead of it, or is behind an adopted jump.
    let resumed = |ahead: i64| Timekeeper::resume(passed, mark(ahead)).now().micros() - start();
    assert_eq!(resumed(0), 100 * SECOND);
    assert_eq!(resumed(HOUR), (HOUR + 90) * SECOND);
    assert_eq!(resumed(-HOUR), 100 * SECOND);
    // A jump is still doubted a moment later.
    let soon = Timekeeper::resume(reading(5 * SECOND, 0), mark(-HOUR));
    assert_eq!(soon.now().micros() - start(), (5 - HOUR) * SECOND);
    assert_eq!(soon.state().adopted_in_seconds, Some(60));
    // The wall clock came back while no process ran.
    let back = Timekeeper::resume(reading(5 * SECOND, -HOUR * SECOND), mark(-HOUR));
    assert_eq!(back.now().micros() - start(), (5 - HOUR) * SECOND);
    assert_eq!(back.state().adopted_in_seconds, None);
}

#[test]
fn readings_out_of_order_count_no_time_twice() {
    let mut clocks = Clocks::new();
    clocks.advance(10);
    // A thread observes its reading after another thread has observed a later one.
    for late in [10 * SECOND - 1, 9 * SECOND + SECOND / 2] {
        clocks.keeper.flow(7 * SECOND + late);
        clocks.keeper.observe(reading(late, 0));
        assert_eq!(clocks.now(), 10 * SECOND);
    }
    clocks.keeper.flow(7 * SECOND + 11 * SECOND);
    assert_eq!(clocks.now(), 11 * SECOND);

    // Such a reading does not end the wait after a jump earlier either.
    let mut clocks = Clocks::new();
    clocks.jump(HOUR);
    clocks.advance(59);
    clocks.keeper.observe(reading(58 * SECOND, HOUR * SECOND));
    assert_eq!(clocks.pass_micros(SECOND / 2), None);
    assert_eq!((clocks.now(), clocks.is_refusing()), (59 * SECOND + SECOND / 2, true));
}

/// One step of a random script.
#[derive(Clone, Debug)]
enum Move {
    Pass(i64),
    Jump(i64),
    Flow(i64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let pass = (1..90 * SECOND).prop_map(Move::Pass);
    let short = (1..2 * SECOND).prop_map(Move::Pass);
    let flow = (1..SECOND).prop_map(Move::Flow);
    let known = prop::sample::select(vec![-HOUR, HOUR, FOUR_DAYS, -FOUR_DAYS, 60, -60, 61, 1]);
    let jump = prop_oneof![known, -10_000..10_000i64].prop_map(Move::Jump);
    prop::collection::vec(prop_oneof![3 => pass, 3 => short, 1 => flow, 2 => jump], 1..120)
}

proptest! {
    #[test]
    fn the_time_never_goes_back_and_only_jumps_to_the_wall_clock(
        moves in moves()
    ) {
        let mut clocks = Clocks::new();
        for step in moves {
            let (before, was_refusing) = (clocks.now(), clocks.is_refusing());
            let was_behind = clocks.keeper.state().ahead_micros() < 0;
            let passed = match step {
                Move::Pass(micros) => {
                    clocks.pass_micros(micros);
                    micros
                }
                Move::Flow(micros) => {
                    clocks.boot += micros;
                    clocks.keeper.flow(7 * SECOND + clocks.boot);
                    micros
                }
                Move::Jump(seconds) => {
                    clocks.jump(seconds);
                    0
                }
            };
            let (now, wall) = (clocks.now(), clocks.wall() - start());
            prop_assert!(now >= before, "it went back");
            prop_assert!(now - before >= passed * 9 / 10 - 1, "it stood still");
            // More than a small step leads only to a wall clock that stayed ahead, or to one that
            // came back from behind.
            prop_assert!(now - before <= passed + 60 * SECOND || now == wall);
            prop_assert!(now - before <= passed + 60 * SECOND || was_refusing || was_behind);
            if clocks.is_refusing() {
                prop_assert!(wall > now + 60 * SECOND, "refused without a jump");
                prop_assert_eq!(now - before, passed, "it moved while it was in doubt");
            }
        }
    }

    #[test]
    fn a_steady_clock_is_followed_to_the_microsecond(passes in prop::collection::vec(1..SECOND, 1..50)) {
        let mut clocks = Clocks::new();
        for micros in passes {
            prop_assert_eq!(clocks.pass_micros(micros), None);
            prop_assert_eq!(clocks.now(), clocks.boot);
        }
    }
}
