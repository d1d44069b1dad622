//! The database's clock, and what servers share about it: how Bursar's time stands beside it, for a
//! start of all servers, and how often an operator confirmed it.

use bursar_core::ClockMark;
use tokio_postgres::{Client, Row};

use super::tx::{params, store_error};
use crate::clock::StoredClock;
use crate::error::StoreError;
use crate::rows::codec::timestamp;
use crate::rows::columns::Columns;

/// The clock, and the number of confirmations that its time has to be looked at with.
pub(super) const CLOCK: &str = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint, \
     confirmations from clock where name = 'clock'";
const STORED_CLOCK: &str = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint, \
     confirmations, now_at, wall_at from clock where name = 'clock'";
// A server that has not heard of a confirmation yet notes nothing over it.
const NOTE_CLOCK: &str = "update clock set now_at = $1, wall_at = $2 \
     where name = 'clock' and confirmations = $3";
const CONFIRM_CLOCK: &str = "update clock set confirmations = confirmations + 1, \
     now_at = coalesce($1, (extract(epoch from clock_timestamp()) * 1000000)::bigint), \
     wall_at = coalesce($1, (extract(epoch from clock_timestamp()) * 1000000)::bigint) \
     where name = 'clock' returning wall_at, confirmations";

/// The database's clock, in microseconds, and the number of confirmations, of a row that has both.
pub(super) fn heard(rows: &[Row], at: usize) -> Result<(i64, i64), StoreError> {
    let missing = || StoreError::Corrupt("the row of the clock is missing".to_owned());
    let row = rows.first().ok_or_else(missing)?;
    Ok((row.int(at)?, row.int(at + 1)?))
}

/// What a start has to know: the database's clock, and what servers noted.
pub(super) async fn read(client: &Client) -> Result<(i64, StoredClock), StoreError> {
    let rows = client.query_typed(STORED_CLOCK, params![]).await.map_err(store_error)?;
    let (wall, confirmations) = heard(&rows, 0)?;
    let instant = |at| rows.first().map_or(Ok(0), |row| row.int(at)).and_then(timestamp);
    let mark = ClockMark { now: instant(2)?, wall: instant(3)? };
    Ok((wall, StoredClock { mark, confirmations }))
}

/// Notes how Bursar's time stands beside the database's clock.
pub(super) async fn note(client: &Client, stored: StoredClock) -> Result<(), StoreError> {
    let StoredClock { mark, confirmations } = stored;
    let (now, wall) = (mark.now.micros(), mark.wall.micros());
    let row = params![now, wall, confirmations];
    client.execute_typed(NOTE_CLOCK, row).await.map(|_| ()).map_err(store_error)
}

/// Writes down that the clock is right; what it shows, and the number of confirmations.
pub(super) async fn confirm(
    client: &Client,
    injected: Option<i64>,
) -> Result<(i64, i64), StoreError> {
    let rows = client.query_typed(CONFIRM_CLOCK, params![injected]).await.map_err(store_error)?;
    heard(&rows, 0)
}
