//! The interface between the tables and a database: for reads, and in a transaction of the control
//! plane.

use std::future::Future;

use bursar_core::TenantId;

use super::value::{FromRow, Sql, Value};
use crate::error::StoreError;
use crate::read::page::{Page, Paged};
use crate::write::writer_connection::ControlTx;

/// The statements of a list with pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PagedSql {
    /// Counts all rows. It has the values of the list, without the limit and the offset.
    pub(crate) count: Sql,
    /// Its last two values are the limit and the offset.
    pub(crate) list: Sql,
}

/// Runs the reads of tables. Each call waits for a reader of its kind.
pub(crate) trait Query: Send + Sync + 'static {
    /// A row by its key. `tenant_id` is the tenant of the row, if it belongs to one.
    fn row<T: FromRow>(
        &self,
        tenant_id: Option<TenantId>,
        sql: &'static str,
        values: impl Into<Vec<Value>> + Send,
    ) -> impl Future<Output = Result<Option<T>, StoreError>> + Send;

    /// A few rows of a tenant, which a request needs to continue.
    fn rows<T: FromRow>(
        &self,
        tenant_id: TenantId,
        sql: &'static str,
        values: impl Into<Vec<Value>> + Send,
    ) -> impl Future<Output = Result<Vec<T>, StoreError>> + Send;

    /// A list of a tenant. Its rows count against the memory budget of the requester.
    fn list<T: FromRow>(
        &self,
        tenant_id: TenantId,
        sql: &'static str,
        values: impl Into<Vec<Value>> + Send,
    ) -> impl Future<Output = Result<Vec<T>, StoreError>> + Send;

    /// A page of a list of a tenant, or of all tenants for the operator.
    fn page<T: FromRow>(
        &self,
        tenant_id: Option<TenantId>,
        sql: PagedSql,
        values: impl Into<Vec<Value>> + Send,
        page: Page,
    ) -> impl Future<Output = Result<Paged<T>, StoreError>> + Send;
}

impl dyn ControlTx + '_ {
    /// The row of a statement that a table declares.
    pub(super) fn row<T: FromRow>(
        &mut self,
        tenant_id: TenantId,
        sql: impl Into<Sql>,
        values: &[Value],
    ) -> Result<Option<T>, StoreError> {
        let mut found = None;
        self.select(tenant_id, sql.into(), values, &mut |row| {
            found = Some(T::from_row(row)?);
            Ok(())
        })?;
        Ok(found)
    }
}
