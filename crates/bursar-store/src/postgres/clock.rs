//! The database's clock, and the row that servers share: Bursar's time beside that clock, and the
//! number of an operator's confirmations.

use bursar_core::ClockMark;
use tokio_postgres::{Client, Row};

use super::tx::{params, store_error};
use crate::clock::StoredClock;
use crate::error::StoreError;
use crate::rows::codec::timestamp;
use crate::rows::columns::Columns;

/// The database's clock, and the number of confirmations.
pub(super) const CLOCK: &str = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint, \
     confirmations from clock where name = 'clock'";
const STORED_CLOCK: &str = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint, \
     confirmations, now_at, wall_at from clock where name = 'clock'";
// A server that does not know of the last confirmation yet must not overwrite it.
const SAVE_CLOCK: &str = "update clock set now_at = $1, wall_at = $2 \
     where name = 'clock' and confirmations = $3";
const CONFIRM_CLOCK: &str = "update clock set confirmations = confirmations + 1, \
     now_at = coalesce($1, (extract(epoch from clock_timestamp()) * 1000000)::bigint), \
     wall_at = coalesce($1, (extract(epoch from clock_timestamp()) * 1000000)::bigint) \
     where name = 'clock' returning wall_at, confirmations";

/// The database's clock in microseconds, and the number of confirmations, from column `at` on.
pub(super) fn reading_of(rows: &[Row], at: usize) -> Result<(i64, i64), StoreError> {
    let missing = || StoreError::Corrupt("the row of the clock is missing".to_owned());
    let row = rows.first().ok_or_else(missing)?;
    Ok((row.int(at)?, row.int(at + 1)?))
}

/// The database's clock, and the shared row, for a start.
pub(super) async fn read(client: &Client) -> Result<(i64, StoredClock), StoreError> {
    let rows = client.query_typed(STORED_CLOCK, params![]).await.map_err(store_error)?;
    let (wall, confirmations) = reading_of(&rows, 0)?;
    let instant = |at| rows.first().map_or(Ok(0), |row| row.int(at)).and_then(timestamp);
    let mark = ClockMark { now: instant(2)?, wall: instant(3)? };
    Ok((wall, StoredClock { mark, confirmations }))
}

/// Saves Bursar's time beside the database's clock.
pub(super) async fn save(client: &Client, stored: StoredClock) -> Result<(), StoreError> {
    let StoredClock { mark, confirmations } = stored;
    let (now, wall) = (mark.now.micros(), mark.wall.micros());
    let row = params![now, wall, confirmations];
    client.execute_typed(SAVE_CLOCK, row).await.map(|_| ()).map_err(store_error)
}

/// Saves a confirmation of the clock; returns the clock and the number of confirmations.
pub(super) async fn confirm(
    client: &Client,
    injected: Option<i64>,
) -> Result<(i64, i64), StoreError> {
    let rows = client.query_typed(CONFIRM_CLOCK, params![injected]).await.map_err(store_error)?;
    reading_of(&rows, 0)
}
