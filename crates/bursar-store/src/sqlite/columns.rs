//! The columns of a row of SQLite.

use rusqlite::Row;
use rusqlite::types::{FromSqlResult, ValueRef};

use super::error::store_error;
use crate::error::StoreError;
use crate::rows::columns::{Columns, RawColumns};

impl RawColumns for Row<'_> {
    fn opt_number(&self, at: usize) -> Result<Option<i64>, StoreError> {
        value(self, at, |value| value.as_i64_or_null())
    }

    fn opt_str(&self, at: usize) -> Result<Option<&str>, StoreError> {
        value(self, at, |value| value.as_str_or_null())
    }

    fn opt_bytes(&self, at: usize) -> Result<Option<&[u8]>, StoreError> {
        value(self, at, |value| value.as_blob_or_null())
    }

    fn flag(&self, at: usize) -> Result<bool, StoreError> {
        // SQLite has no booleans: a comparison is 0 or 1.
        self.int::<i64>(at).map(|number| number != 0)
    }
}

fn value<'a, T>(
    row: &'a Row<'_>,
    at: usize,
    read: impl FnOnce(ValueRef<'a>) -> FromSqlResult<T>,
) -> Result<T, StoreError> {
    let found = row.get_ref(at).map_err(store_error)?;
    read(found).map_err(|error| StoreError::Corrupt(format!("column {at}: {error}")))
}
