//! Statements that read one row or none, and those that change rows.

use rusqlite::{Connection, Params, Row};

use super::error::store_error;
use crate::error::StoreError;

/// The row of a statement, decoded by `read`; `None` if it returns none.
pub(super) fn fetch_optional<T>(
    db: &Connection,
    sql: &str,
    key: impl Params,
    read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(store_error)?;
    let mut rows = statement.query(key).map_err(store_error)?;
    rows.next().map_err(store_error)?.map(read).transpose()
}

/// Runs a statement that changes rows.
pub(super) fn execute(db: &Connection, sql: &str, values: impl Params) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(store_error)?;
    statement.execute(values).map(|_| ()).map_err(store_error)
}
