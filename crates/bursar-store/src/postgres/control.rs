//! The transactions of the control plane in PostgreSQL.

use bursar_core::{Integration, IntegrationId, KeyId, TenantId, TenantLifecycle, Timestamp};

use super::keys;
use super::query::typed;
use super::tx::{params, store_error};
use super::writer_state::PostgresWriter;
use crate::error::StoreError;
use crate::rows::codec;
use crate::rows::columns::RawColumns;
use crate::rows::row::AuditRow;
use crate::tables::value::{Sql, Value};
use crate::write::writer_connection::ControlTx;

/// Locks the integrations of a tenant whose lifecycle changes, so that each group of commands is
/// decided either before the change or after it.
const LOCK_INTEGRATIONS: &str = "select integration_id from integrations where tenant_id = $1 \
     and exists (select from tenants where tenant_id = $1 and lifecycle <> $2) \
     order by tenant_id, integration_id for no key update";

impl ControlTx for PostgresWriter {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn allocate_ids(&mut self, count: usize) -> Result<i64, StoreError> {
        self.allocate_numbers(count)
    }

    fn execute(
        &mut self,
        tenant_id: TenantId,
        sql: Sql,
        values: &[Value],
    ) -> Result<(), StoreError> {
        self.put(tenant_id, sql.postgres, &typed(values))
    }

    fn select(
        &mut self,
        tenant_id: TenantId,
        sql: Sql,
        values: &[Value],
        take: &mut dyn FnMut(&dyn RawColumns) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let values = typed(values);
        let rows = self.query_in_tx(Some(tenant_id), async |client| {
            client.query_typed(sql.postgres, &values).await.map_err(store_error)
        })?;
        rows.iter().try_for_each(|row| take(row))
    }

    fn tenant_changes(
        &mut self,
        tenant_id: TenantId,
        lifecycle: TenantLifecycle,
    ) -> Result<(), StoreError> {
        let lifecycle = codec::lifecycle_code(lifecycle);
        self.put(tenant_id, LOCK_INTEGRATIONS, params![tenant_id.number(), lifecycle])
    }

    fn integration_changes(&mut self, integration_id: IntegrationId, rules: Integration) {
        // Each node reads the stored rules.
        let _ = (integration_id, rules);
    }

    fn limits_change(&mut self, tenant_id: TenantId) {
        // Each node reads the stored version.
        let _ = tenant_id;
    }

    fn set_last_used(
        &mut self,
        tenant_id: TenantId,
        uses: &[(KeyId, Timestamp)],
    ) -> Result<(), StoreError> {
        keys::set_last_used(self, tenant_id, uses)
    }

    fn put_audit(&mut self, row: &AuditRow) -> Result<(), StoreError> {
        self.audits.push(row.clone());
        Ok(())
    }
}
