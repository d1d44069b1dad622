//! Runs statements, and reads their rows.

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::{Client, Row};

use super::readers::{Reader, read_error};
use super::tx::Param;
use crate::error::StoreError;

/// The rows of a statement, each decoded by `read`. All rows are in memory at once.
pub(super) async fn fetch_all<T>(
    db: &Client,
    sql: &str,
    params: &[Param<'_>],
    read: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let found = db.query_typed(sql, params).await.map_err(read_error)?;
    found.iter().map(read).collect()
}

/// The rows of a list, each decoded by `read` after its memory is reserved.
pub(super) async fn fetch_list<T>(
    db: &Reader,
    sql: &str,
    params: &[Param<'_>],
    read: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut list = Vec::new();
    for_each_row(db.client()?, sql, params, |row| {
        db.take_row(row)?;
        list.push(read(row)?);
        Ok(())
    })
    .await?;
    Ok(list)
}

/// The row of a statement; `None` if it returns none.
pub(super) async fn fetch_optional<T>(
    db: &Client,
    sql: &str,
    params: &[Param<'_>],
    read: impl FnOnce(&Row) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let found = db.query_typed_opt(sql, params).await.map_err(read_error)?;
    found.as_ref().map(read).transpose()
}

/// The number in the only row of a statement.
pub(super) async fn fetch_number(
    db: &Client,
    sql: &str,
    params: &[Param<'_>],
) -> Result<i64, StoreError> {
    let row = db.query_typed_one(sql, params).await.map_err(read_error)?;
    row.try_get(0).map_err(read_error)
}

/// Calls `take` for each row of a statement; only a few rows are in memory at once.
pub(super) async fn for_each_row(
    db: &Client,
    sql: &str,
    params: &[Param<'_>],
    mut take: impl FnMut(&Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let params = params.iter().map(|(value, of)| (*value, of.clone()));
    let found = db.query_typed_raw(sql, params).await.map_err(read_error)?;
    let mut found = pin!(found);
    while let Some(row) = found.try_next().await.map_err(read_error)? {
        take(&row)?;
    }
    Ok(())
}
