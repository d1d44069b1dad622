//! Rows of the control plane: read by writer and readers alike, written by the writer.

use bursar_core::{Integration, IntegrationId, KeyId, TenantId, TenantLifecycle, Timestamp};

use super::writer_state::SqliteWriter;
use super::{audit, keys, query};
use crate::error::StoreError;
use crate::rows::columns::RawColumns;
use crate::rows::row::{AuditRow, KeyRow};
use crate::tables::value::{LockedSql, Value};
use crate::write::writer_connection::{ControlTx, RowCounts};

impl ControlTx for SqliteWriter {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn allocate_ids(&mut self, count: usize) -> Result<i64, StoreError> {
        Ok(self.allocate_numbers(count))
    }

    fn execute(
        &mut self,
        _: TenantId,
        sql: &'static str,
        values: &[Value],
    ) -> Result<(), StoreError> {
        query::execute(&self.connection, sql, values)
    }

    fn select(
        &mut self,
        _: TenantId,
        sql: LockedSql,
        values: &[Value],
        take: &mut dyn FnMut(&dyn RawColumns) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        query::select(&self.connection, sql.plain, values, &mut |row| take(row))
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

    fn key_counts(
        &mut self,
        owner: (TenantId, Option<IntegrationId>),
        now: Timestamp,
    ) -> Result<RowCounts, StoreError> {
        keys::counts(&self.connection, owner, now)
    }

    fn drop_ended_keys(
        &mut self,
        owner: (TenantId, Option<IntegrationId>),
        now: Timestamp,
        kept: u32,
    ) -> Result<(), StoreError> {
        keys::drop_ended(&self.connection, owner, now, kept)
    }

    fn key(&mut self, tenant_id: TenantId, key_id: KeyId) -> Result<Option<KeyRow>, StoreError> {
        keys::key(&self.connection, tenant_id, key_id)
    }

    fn put_key(&mut self, row: &KeyRow) -> Result<(), StoreError> {
        keys::put(&self.connection, row)
    }

    fn stamp_keys(
        &mut self,
        tenant_id: TenantId,
        uses: &[(KeyId, Timestamp)],
    ) -> Result<(), StoreError> {
        keys::stamp(&self.connection, tenant_id, uses)
    }

    fn put_audit(&mut self, row: &AuditRow) -> Result<(), StoreError> {
        audit::put(self, row)
    }
}
