//! Runs the statements of [`tables`](crate::tables) in PostgreSQL.

use std::sync::Arc;

use bursar_core::TenantId;
use tokio::try_join;
use tokio_postgres::types::Type;

use super::fetch::{fetch_all, fetch_list, fetch_number, fetch_optional};
use super::open::PostgresStore;
use super::readers::Reader;
use super::tx::Param;
use crate::error::StoreError;
use crate::read::page::{Page, Paged};
use crate::tables::query::{PagedSql, Query};
use crate::tables::value::{FromRow, Value, values};

/// The values as typed parameters.
pub(super) fn typed<'a>(values: &'a [Value]) -> Vec<Param<'a>> {
    let param = |value: &'a Value| -> Param<'a> {
        match value {
            Value::Int(number) => (number, Type::INT8),
            Value::Text(text) => (text, Type::TEXT),
            Value::Bytes(bytes) => (bytes, Type::BYTEA),
        }
    };
    values.iter().map(param).collect()
}

impl Query for PostgresStore {
    async fn row<T: FromRow>(
        &self,
        tenant_id: Option<TenantId>,
        sql: &'static str,
        values: impl Into<Vec<Value>> + Send,
    ) -> Result<Option<T>, StoreError> {
        let values = values.into();
        let query = async move |db: Arc<Reader>| {
            fetch_optional(db.client()?, sql, &typed(&values), |row| T::from_row(row)).await
        };
        self.readers.look_up(tenant_id, query).await
    }

    async fn rows<T: FromRow>(
        &self,
        tenant_id: TenantId,
        sql: &'static str,
        values: impl Into<Vec<Value>> + Send,
    ) -> Result<Vec<T>, StoreError> {
        let values = values.into();
        let query = async move |db: Arc<Reader>| {
            fetch_all(db.client()?, sql, &typed(&values), |row| T::from_row(row)).await
        };
        self.readers.look_up(Some(tenant_id), query).await
    }

    async fn list<T: FromRow>(
        &self,
        tenant_id: TenantId,
        sql: &'static str,
        values: impl Into<Vec<Value>> + Send,
    ) -> Result<Vec<T>, StoreError> {
        let values = values.into();
        let query = async move |db: Arc<Reader>| {
            fetch_list(&db, sql, &typed(&values), |row| T::from_row(row)).await
        };
        self.readers.read(&self.context, tenant_id, query).await
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
        let query = async move |db: Arc<Reader>| {
            let key = typed(&values);
            // Both are sent together. The first ignores the limit and the offset.
            let (total, rows) = try_join!(
                fetch_number(db.client()?, sql.count.postgres, &key),
                fetch_list(&db, sql.list.postgres, &key, |row| T::from_row(row)),
            )?;
            Ok(Paged { rows, total })
        };
        match tenant_id {
            Some(tenant_id) => self.readers.read(&self.context, tenant_id, query).await,
            None => self.readers.read_all(query).await,
        }
    }
}
