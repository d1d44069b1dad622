//! Runs the statements of [`tables`](crate::tables) in SQLite.

use bursar_core::TenantId;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, Statement, ToSql};

use super::error::store_error;
use super::open::SqliteStore;
use super::readers::Snapshot;
use crate::error::StoreError;
use crate::read::page::{Page, Paged};
use crate::rows::columns::RawColumns;
use crate::tables::query::{PagedSql, Query};
use crate::tables::value::{FromRow, Value, values};

/// The names of values. SQLite takes `$1` for a name, not for a position.
const NAMES: [&str; 24] = [
    "$1", "$2", "$3", "$4", "$5", "$6", "$7", "$8", "$9", "$10", "$11", "$12", "$13", "$14", "$15",
    "$16", "$17", "$18", "$19", "$20", "$21", "$22", "$23", "$24",
];

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Int(Some(number)) => ValueRef::Integer(*number),
            Self::Text(Some(text)) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(Some(bytes)) => ValueRef::Blob(bytes),
            Self::Int(None) | Self::Text(None) | Self::Bytes(None) => ValueRef::Null,
        }))
    }
}

/// Binds the values of a statement.
///
/// A statement need not use all of them. A missing value is an error, because SQLite would use null.
fn bind(statement: &mut Statement<'_>, values: &[Value]) -> Result<(), StoreError> {
    let mut bound = 0;
    for (name, value) in NAMES.iter().zip(values) {
        if let Some(index) = statement.parameter_index(name).map_err(store_error)? {
            statement.raw_bind_parameter(index, value).map_err(store_error)?;
            bound += 1;
        }
    }
    let wanted = statement.parameter_count();
    if bound == wanted {
        return Ok(());
    }
    Err(store_error(rusqlite::Error::InvalidParameterCount(bound, wanted)))
}

/// The rows of a statement, one call of `take` each.
pub(super) fn select(
    db: &Connection,
    sql: &str,
    values: &[Value],
    take: &mut dyn FnMut(&Row<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(store_error)?;
    bind(&mut statement, values)?;
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(store_error)? {
        take(row)?;
    }
    Ok(())
}

/// Runs a statement that returns no rows.
pub(super) fn execute(db: &Connection, sql: &str, values: &[Value]) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(store_error)?;
    bind(&mut statement, values)?;
    statement.raw_execute().map(|_| ()).map_err(store_error)
}

/// The row of a statement, if there is one.
pub(super) fn row<T: FromRow>(
    db: &Connection,
    sql: &str,
    values: &[Value],
) -> Result<Option<T>, StoreError> {
    Ok(rows(db, sql, values)?.pop())
}

fn rows<T: FromRow>(db: &Connection, sql: &str, values: &[Value]) -> Result<Vec<T>, StoreError> {
    let mut rows = Vec::new();
    select(db, sql, values, &mut |row| {
        rows.push(T::from_row(row as &dyn RawColumns)?);
        Ok(())
    })?;
    Ok(rows)
}

fn list<T: FromRow>(db: &Snapshot<'_>, sql: &str, values: &[Value]) -> Result<Vec<T>, StoreError> {
    let mut rows = Vec::new();
    select(db, sql, values, &mut |row| {
        db.take_row(row)?;
        rows.push(T::from_row(row as &dyn RawColumns)?);
        Ok(())
    })?;
    Ok(rows)
}

impl Query for SqliteStore {
    async fn row<T: FromRow>(
        &self,
        _: Option<TenantId>,
        sql: &'static str,
        values: impl Into<Vec<Value>> + Send,
    ) -> Result<Option<T>, StoreError> {
        let values = values.into();
        self.readers.look_up(move |db| row(db, sql, &values)).await
    }

    async fn rows<T: FromRow>(
        &self,
        _: TenantId,
        sql: &'static str,
        values: impl Into<Vec<Value>> + Send,
    ) -> Result<Vec<T>, StoreError> {
        let values = values.into();
        self.readers.look_up(move |db| rows(db, sql, &values)).await
    }

    async fn list<T: FromRow>(
        &self,
        tenant_id: TenantId,
        sql: &'static str,
        values: impl Into<Vec<Value>> + Send,
    ) -> Result<Vec<T>, StoreError> {
        let values = values.into();
        self.read(tenant_id, move |db| list(db, sql, &values)).await
    }

    async fn page<T: FromRow>(
        &self,
        tenant_id: Option<TenantId>,
        sql: PagedSql,
        values: impl Into<Vec<Value>> + Send,
        page: Page,
    ) -> Result<Paged<T>, StoreError> {
        let mut values = values.into();
        values.extend(values![page.limit, page.offset]);
        let query = move |db: &Snapshot<'_>| {
            let total = row(db, sql.count.sqlite, &values)?.unwrap_or_default();
            Ok(Paged { rows: list(db, sql.list.sqlite, &values)?, total })
        };
        match tenant_id {
            Some(tenant_id) => self.read(tenant_id, query).await,
            None => self.readers.read_all(query).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sql: &str, values: &[Value], expected: Option<i64>) {
        let db = Connection::open_in_memory().expect("a database");
        assert_eq!(row::<i64>(&db, sql, values).ok().flatten(), expected, "{sql}");
    }

    #[test]
    fn a_missing_value_of_a_statement_is_an_error() {
        check("select $2", &values![1_i64, 2_i64], Some(2));
        check("select $1", &values![1_i64, 2_i64], Some(1));
        check("select coalesce($2, 7)", &values![1_i64], None);
        let many: Vec<Value> = (0..30_i64).flat_map(|number| values![number]).collect();
        check("select coalesce($25, 7)", &many, None);
    }
}
