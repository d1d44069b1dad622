//! The clock's row in the data file.
//!
//! With it, a restart neither goes back in time nor undoes an operator's confirmation.

use bursar_core::{ClockMark, ClockState, Timestamp};
use rusqlite::{Connection, params};

use super::error::store_error;
use crate::clock::{ClockConfirmed, StoreClock};
use crate::error::StoreError;
use crate::rows::codec::timestamp;

const SELECT_CLOCK: &str =
    "select now_at, wall_at, taken_back_until from clock where name = 'clock'";
const UPDATE_CLOCK: &str = "update clock set now_at = ?1, wall_at = ?2, taken_back_until = ?3 \
     where name = 'clock'";
const MAX_ENTRY_ID: &str = "select coalesce(max(entry_id), 0) from usage_entries";
const MAX_AUDIT_ID: &str = "select coalesce(max(audit_id), 0) from audit";
const MAX_LAST_AT: &str = "select coalesce(max(last_at), 0) from counters";

/// Bursar's time and the wall clock are saved if they differ by at least this much.
const SAVE_DIFFERENCE_MICROS: i64 = 1_000_000;
/// How often they are saved again while they differ.
const SAVE_EVERY_MICROS: i64 = 10_000_000;

/// The state of the clock at a start.
pub(super) struct StartClock {
    /// The last process's time and its wall clock, if they differed.
    pub(super) mark: ClockMark,
    /// The instant of the last decision.
    pub(super) floor: Timestamp,
    /// A number larger than all ids.
    pub(super) next_number: i64,
    pub(super) saved: SavedClock,
}

/// The content of the clock's row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SavedClock {
    /// Bursar's time and the wall clock, if they are saved as different.
    mark: Option<ClockMark>,
    /// The latest instant before an operator set Bursar's time back.
    ///
    /// Until the time has passed it again, stored instants and ids can be later than the present.
    taken_back_until: Option<i64>,
}

/// Reads the state of the clock at a start.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<StartClock> {
    let max = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let (now_at, wall_at, taken_back_until): (i64, i64, Option<i64>) =
        connection
            .query_row(SELECT_CLOCK, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let last_id = max(MAX_ENTRY_ID)?.max(max(MAX_AUDIT_ID)?);
    // Ids are instants in microseconds, so the last one was an instant too.
    let last_instant = last_id.max(max(MAX_LAST_AT)?);
    let instant = |micros| Timestamp::from_micros(micros).unwrap_or(Timestamp::MIN);
    let mark = ClockMark { now: instant(now_at), wall: instant(wall_at) };
    let floor = if taken_back_until.is_some() { Timestamp::MIN } else { instant(last_instant) };
    Ok(StartClock {
        mark,
        floor,
        next_number: last_id.max(taken_back_until.unwrap_or(0)) + 1,
        saved: SavedClock { mark: (now_at > 0).then_some(mark), taken_back_until },
    })
}

impl SavedClock {
    /// Saves Bursar's time and the wall clock from time to time while they differ.
    ///
    /// If they agree, nothing is written. `next_number` is larger than all ids.
    pub(super) fn save_if_due(
        &mut self,
        connection: &Connection,
        clock: &StoreClock,
        next_number: i64,
    ) -> Result<(), StoreError> {
        let ClockState { now, wall, .. } = clock.state();
        let mark = ClockMark { now, wall };
        let Self { mark: saved, taken_back_until } = *self;
        let now = mark.now.micros();
        let is_over = |until: i64| now > until.max(next_number);
        let taken_back_until = taken_back_until.filter(|until| !is_over(*until));
        let differs = (now - mark.wall.micros()).abs() >= SAVE_DIFFERENCE_MICROS;
        let is_needed = differs || taken_back_until.is_some();
        let is_due = match saved {
            Some(saved) => (now - saved.now.micros()).abs() >= SAVE_EVERY_MICROS || !is_needed,
            None => is_needed,
        };
        if is_due || taken_back_until != self.taken_back_until {
            self.write(connection, is_needed.then_some(mark), taken_back_until)?;
        }
        Ok(())
    }

    /// Adopts the wall clock's time: first in the file, then in memory.
    pub(super) fn confirm(
        &mut self,
        connection: &Connection,
        clock: &StoreClock,
        next_number: i64,
    ) -> Result<ClockConfirmed, StoreError> {
        let state = clock.state();
        let (now, wall) = (state.now.micros(), state.wall.micros());
        let taken_back = (wall < now).then(|| now.max(next_number));
        let until = self.taken_back_until.max(taken_back);
        let mark = ClockMark { now: timestamp(wall)?, wall: timestamp(wall)? };
        self.write(connection, until.map(|_| mark), until)?;
        Ok(clock.confirm_here())
    }

    fn write(
        &mut self,
        connection: &Connection,
        mark: Option<ClockMark>,
        until: Option<i64>,
    ) -> Result<(), StoreError> {
        let ClockMark { now, wall } = mark.unwrap_or_default();
        let row = params![now.micros(), wall.micros(), until];
        connection.execute(UPDATE_CLOCK, row).map_err(store_error)?;
        *self = Self { mark, taken_back_until: until };
        Ok(())
    }
}
