//! The transactions of the control plane in SQLite.

use bursar_core::{Integration, IntegrationId, KeyId, TenantId, TenantLifecycle, Timestamp};

use super::writer_state::SqliteWriter;
use super::{audit, keys, query};
use crate::error::StoreError;
use crate::rows::columns::RawColumns;
use crate::rows::row::AuditRow;
use crate::tables::value::{Sql, Value};
use crate::write::writer_connection::ControlTx;

impl ControlTx for SqliteWriter {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn allocate_ids(&mut self, count: usize) -> Result<i64, StoreError> {
        Ok(self.allocate_numbers(count))
    }

    fn execute(&mut self, _: TenantId, sql: Sql, values: &[Value]) -> Result<(), StoreError> {
        query::execute(&self.connection, sql.sqlite, values)
    }

    fn select(
        &mut self,
        _: TenantId,
        sql: Sql,
        values: &[Value],
        take: &mut dyn FnMut(&dyn RawColumns) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        query::select(&self.connection, sql.sqlite, values, &mut |row| take(row))
    }

    fn tenant_changes(
        &mut self,
        tenant_id: TenantId,
        lifecycle: TenantLifecycle,
    ) -> Result<(), StoreError> {
        self.staged.changed_tenants.push((tenant_id, lifecycle));
        Ok(())
    }

    fn integration_changes(&mut self, integration_id: IntegrationId, rules: Integration) {
        self.staged.changed_integrations.push((integration_id, rules));
    }

    fn limits_change(&mut self, tenant_id: TenantId) {
        self.staged.limits.changed.insert(tenant_id);
    }

    fn set_last_used(
        &mut self,
        tenant_id: TenantId,
        uses: &[(KeyId, Timestamp)],
    ) -> Result<(), StoreError> {
        keys::set_last_used(&self.connection, tenant_id, uses)
    }

    fn put_audit(&mut self, row: &AuditRow) -> Result<(), StoreError> {
        audit::put(self, row)
    }
}
