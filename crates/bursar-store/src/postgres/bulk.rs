//! Statements over many rows of a tenant, with one array for each column.
//!
//! Such a statement inserts by `values ($1, unnest($2), unnest($3), ...)`: each array element is one
//! row. Citus sends that to the node of the tenant as it is, while it refuses
//! `select ... from unnest(...)` under row level security, and PostgreSQL takes less time over it.
//! Integers are sent as `bigint[]`. A narrower column casts the array (`unnest($4::smallint[])`),
//! because a cast of each value would enclose the set-returning `unnest`.

use tokio_postgres::{Client, Row};

use super::pipeline::Sent;
use super::tx::{Key, Param, param, store_error};
use crate::error::StoreError;

/// A statement and its rows. Its parameters are single integers, of which the tenant is the first,
/// and then the columns.
pub(super) struct Bulk<'b> {
    pub(super) sql: &'static str,
    pub(super) rows: usize,
    pub(super) columns: Vec<Column<'b>>,
}

/// The values of a column, one for each row.
pub(super) enum Column<'b> {
    Numbers(Vec<i64>),
    OptNumbers(Vec<Option<i64>>),
    Texts(Vec<&'b str>),
    OptTexts(Vec<Option<&'b str>>),
    OwnTexts(Vec<Option<String>>),
    Keys(Vec<Key>),
}

impl Bulk<'_> {
    /// Runs the statement, and returns the number of rows that it wrote.
    pub(super) fn execute<'s>(&'s self, client: &'s Client, first: &'s [i64]) -> Sent<'s, u64> {
        Box::pin(async move {
            client.execute_typed(self.sql, &self.values(first)?).await.map_err(store_error)
        })
    }

    /// Runs the statement, and returns its rows.
    pub(super) async fn query(
        &self,
        client: &Client,
        first: &[i64],
    ) -> Result<Vec<Row>, StoreError> {
        client.query_typed(self.sql, &self.values(first)?).await.map_err(store_error)
    }

    /// All parameters in order.
    ///
    /// The lengths are checked here, because the database would pad a shorter array with nulls.
    fn values<'s>(&'s self, first: &'s [i64]) -> Result<Vec<Param<'s>>, StoreError> {
        let rows = self.rows;
        if let Some(len) = self.columns.iter().map(Column::len).find(|len| *len != rows) {
            return Err(StoreError::Corrupt(format!("a column of {len} values for {rows} rows")));
        }
        Ok(first.iter().map(param).chain(self.columns.iter().map(Column::param)).collect())
    }
}

impl Column<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Numbers(values) => values.len(),
            Self::OptNumbers(values) => values.len(),
            Self::Texts(values) => values.len(),
            Self::OptTexts(values) => values.len(),
            Self::OwnTexts(values) => values.len(),
            Self::Keys(values) => values.len(),
        }
    }

    fn param(&self) -> Param<'_> {
        match self {
            Self::Numbers(values) => param(values),
            Self::OptNumbers(values) => param(values),
            Self::Texts(values) => param(values),
            Self::OptTexts(values) => param(values),
            Self::OwnTexts(values) => param(values),
            Self::Keys(values) => param(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(second: Column<'_>, is_sent: bool) {
        let columns = vec![Column::Numbers(vec![7, 8]), second];
        let bulk = Bulk { sql: "", rows: 2, columns };
        assert_eq!(bulk.values(&[1]).map(|values| values.len()).ok(), is_sent.then_some(3));
    }

    #[test]
    fn a_column_with_another_length_than_the_others_is_refused() {
        check(Column::OptTexts(vec![None, Some("text")]), true);
        check(Column::OptTexts(vec![Some("text")]), false);
        check(Column::Texts(Vec::new()), false);
        check(Column::OptNumbers(vec![None; 3]), false);
    }
}
