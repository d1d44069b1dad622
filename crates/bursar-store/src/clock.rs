//! Bursar's time in a store: reading the clocks, and logging their events.
//!
//! The rule itself is in the core ([`Timekeeper`]). Everything that a store writes, decides or
//! compares with an instant uses [`StoreClock`]. No other code of this crate reads a clock.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bursar_core::{ClockEvent, ClockMark, ClockReading, ClockState, Timekeeper, Timestamp};
use parking_lot::Mutex;

use crate::error::StoreError;

/// Reads a wall clock. It is injected, so that tests control the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Reads a clock that cannot be set, in microseconds since an arbitrary fixed moment.
pub type BootClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A wall clock and the boot clock beside it.
#[derive(Clone)]
pub struct Clocks {
    wall: Clock,
    boot: BootClock,
}

impl Clocks {
    pub fn new(wall: Clock, boot: BootClock) -> Self {
        Self { wall, boot }
    }

    /// The clocks of this machine.
    pub fn system() -> Self {
        Self { wall: Arc::new(system_wall), boot: system_boot() }
    }

    fn read(&self) -> ClockReading {
        ClockReading { wall: (self.wall)(), boot_micros: (self.boot)() }
    }
}

/// Uses one clock as both, so that it never jumps.
impl From<Clock> for Clocks {
    fn from(clock: Clock) -> Self {
        let boot = Arc::clone(&clock);
        Self { wall: clock, boot: Arc::new(move || boot().micros()) }
    }
}

fn system_wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(micros).unwrap_or(Timestamp::MAX)
}

/// The boot clock of this machine.
///
/// It counts the time for which the machine was suspended, so that waking up is not a jump.
#[cfg(target_os = "linux")]
pub fn system_boot() -> BootClock {
    use rustix::time::{ClockId, clock_gettime};
    Arc::new(|| {
        let since = clock_gettime(ClockId::Boottime);
        since.tv_sec.saturating_mul(1_000_000).saturating_add(since.tv_nsec / 1_000)
    })
}

/// The monotonic clock of this machine, which may not count the time of a suspension.
#[cfg(not(target_os = "linux"))]
pub fn system_boot() -> BootClock {
    let start = std::time::Instant::now();
    Arc::new(move || i64::try_from(start.elapsed().as_micros()).unwrap_or(i64::MAX))
}

/// The result of an operator's confirmation of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockConfirmed {
    /// Bursar's time, which is now that of the wall clock.
    pub now: Timestamp,
    /// How far Bursar's time moved forward; negative if it moved back.
    pub changed_micros: i64,
}

/// Where a store's wall clock is read.
#[derive(Clone)]
enum Wall {
    /// On this machine, at each use.
    Here(Clocks),
    /// In the database, from time to time. In between, the boot clock measures how much time passes.
    Database(BootClock),
}

/// Bursar's time, shared by all of a store.
#[derive(Clone)]
pub(crate) struct StoreClock {
    wall: Wall,
    kept: Arc<Mutex<Kept>>,
}

struct Kept {
    keeper: Timekeeper,
    /// How many confirmations the time includes, if servers share a database.
    confirmations: i64,
}

/// The clock's row in the database.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StoredClock {
    /// Bursar's time beside the wall clock, as a server wrote it.
    pub(crate) mark: ClockMark,
    /// How often an operator confirmed the wall clock.
    pub(crate) confirmations: i64,
}

impl StoreClock {
    /// A clock over the wall clock of this machine; its time never falls below `floor`.
    pub(crate) fn here(clocks: Clocks, mark: ClockMark, floor: Timestamp) -> Self {
        let mut keeper = Timekeeper::resume(clocks.read(), mark);
        keeper.not_before(floor);
        Self::over(Wall::Here(clocks), keeper, 0)
    }

    /// A clock over the wall clock of a database, which was read a moment ago.
    pub(crate) fn of_database(
        injected: Option<Clocks>,
        wall_micros: i64,
        stored: StoredClock,
    ) -> Self {
        let (reading, wall) = match injected {
            Some(clocks) => (clocks.read(), Wall::Here(clocks)),
            None => {
                let boot = system_boot();
                (reading_of(wall_micros, boot()), Wall::Database(boot))
            }
        };
        let keeper = Timekeeper::resume(reading, stored.mark);
        Self::over(wall, keeper, stored.confirmations)
    }

    fn over(wall: Wall, keeper: Timekeeper, confirmations: i64) -> Self {
        let state = keeper.state();
        if state.adopted_in_seconds.is_some() {
            log_event(ClockEvent::Jumped { seconds: state.ahead_seconds() });
        } else if state.ahead_seconds() < 0 {
            log_event(ClockEvent::Behind { seconds: -state.ahead_seconds() });
        }
        Self { wall, kept: Arc::new(Mutex::new(Kept { keeper, confirmations })) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.state().now
    }

    /// Bursar's time and the wall clock's.
    pub(crate) fn state(&self) -> ClockState {
        let mut kept = self.kept.lock();
        let event = match &self.wall {
            Wall::Here(clocks) => kept.keeper.observe(clocks.read()),
            Wall::Database(boot) => {
                kept.keeper.flow(boot());
                None
            }
        };
        let state = kept.keeper.state();
        drop(kept);
        event.into_iter().for_each(log_event);
        state
    }

    /// Bursar's time, for a write or a decision.
    ///
    /// # Errors
    /// [`StoreError::ClockJumped`] while the wall clock is ahead and not trusted.
    pub(crate) fn to_decide(&self) -> Result<Timestamp, StoreError> {
        decidable(&self.state())
    }

    /// Takes a reading of the database's clock and its number of confirmations.
    pub(crate) fn observe_database(&self, wall_micros: i64, confirmations: i64) -> ClockState {
        let mut kept = self.kept.lock();
        let reading = match &self.wall {
            Wall::Here(clocks) => clocks.read(),
            Wall::Database(boot) => reading_of(wall_micros, boot()),
        };
        // After a failover the number can be lower, because the new primary lost a confirmation.
        let is_confirmed = confirmations > kept.confirmations;
        kept.confirmations = confirmations;
        let event = if is_confirmed {
            kept.keeper.confirm(reading);
            tracing::warn!("an operator confirmed the clock, here or on another server");
            None
        } else {
            kept.keeper.observe(reading)
        };
        let state = kept.keeper.state();
        drop(kept);
        event.into_iter().for_each(log_event);
        state
    }

    /// Confirms the wall clock of this machine.
    pub(crate) fn confirm_here(&self) -> ClockConfirmed {
        let mut kept = self.kept.lock();
        let reading = match &self.wall {
            Wall::Here(clocks) => clocks.read(),
            // Not reached on PostgreSQL, where `observe_database` confirms.
            Wall::Database(boot) => reading_of(kept.keeper.state().wall.micros(), boot()),
        };
        confirm(&mut kept.keeper, reading)
    }

    /// The state to store, for the next start of a server.
    pub(crate) fn stored(&self) -> StoredClock {
        let kept = self.kept.lock();
        StoredClock { mark: kept.keeper.mark(), confirmations: kept.confirmations }
    }

    /// The time of an injected wall clock; `None` if the database's clock is used.
    pub(crate) fn injected(&self) -> Option<i64> {
        match &self.wall {
            Wall::Here(clocks) => Some(clocks.read().wall.micros()),
            Wall::Database(_) => None,
        }
    }
}

fn confirm(keeper: &mut Timekeeper, reading: ClockReading) -> ClockConfirmed {
    let changed_micros = keeper.confirm(reading);
    ClockConfirmed { now: keeper.now(), changed_micros }
}

fn reading_of(wall_micros: i64, boot_micros: i64) -> ClockReading {
    let wall = Timestamp::from_micros(wall_micros).unwrap_or(Timestamp::MIN);
    ClockReading { wall, boot_micros }
}

/// The time of a clock state, unless the wall clock is in doubt.
///
/// # Errors
/// [`StoreError::ClockJumped`].
pub(crate) fn decidable(state: &ClockState) -> Result<Timestamp, StoreError> {
    match state.adopted_in_seconds {
        None => Ok(state.now),
        Some(adopted_in_seconds) => Err(StoreError::ClockJumped {
            ahead_seconds: state.ahead_seconds(),
            adopted_in_seconds,
        }),
    }
}

fn log_event(event: ClockEvent) {
    match event {
        ClockEvent::Jumped { seconds } => tracing::warn!(
            seconds,
            "the clock jumped forward: writes and decisions are refused for a minute, unless the \
             clock goes back, or you confirm with `bursar clock confirm` that it is right"
        ),
        ClockEvent::Returned => {
            tracing::warn!("the clock is back: writes and decisions are accepted again");
        }
        ClockEvent::Adopted { seconds } => tracing::warn!(
            seconds,
            "the clock stayed ahead for a minute and is trusted now: writes and decisions are \
             accepted again"
        ),
        ClockEvent::Behind { seconds } => tracing::warn!(
            seconds,
            "the clock is behind Bursar's time, which advances more slowly until the clock catches \
             up; if the clock is right, run `bursar clock confirm`"
        ),
        ClockEvent::CaughtUp => tracing::info!("the clock has caught up with Bursar's time"),
    }
}
