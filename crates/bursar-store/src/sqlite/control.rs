//! Rows of the control plane: read by writer and readers alike, written by the writer.

use bursar_core::{Integration, IntegrationId, KeyId, TenantId, Timestamp};
use rusqlite::{Connection, params};

use super::ask::{change, one};
use super::writer_state::SqliteWriter;
use super::{audit, decisions, keys, protection};
use crate::error::StoreError;
use crate::rows::codec;
use crate::rows::columns::Columns;
use crate::rows::decode;
use crate::rows::protection::{OverrideRow, SignalRow};
use crate::rows::row::{AuditRow, DecisionRow, IntegrationRow, KeyRow, TenantRow};
use crate::write::writer_connection::{ControlTx, RowCounts};

const SELECT_TENANT: &str = "select tenant_id, name, lifecycle, onboarding, created_at, updated_at \
     from tenants where tenant_id = ?1";
const UPSERT_TENANT: &str = "insert into tenants (tenant_id, name, lifecycle, onboarding, \
     created_at, updated_at) values (?1, ?2, ?3, ?4, ?5, ?6) \
     on conflict (tenant_id) do update set name = excluded.name, \
     lifecycle = excluded.lifecycle, onboarding = excluded.onboarding, \
     updated_at = excluded.updated_at";
const SELECT_INTEGRATION: &str = "select tenant_id, integration_id, name, provider_type, \
     credential_ref, config, origin, status, health, health_checked_at, health_message, \
     default_model, budget_limit_cents, token_limit_month, rate_limit_rpm, cost_basis, created_at, \
     updated_at, created_by, deleted_at from integrations \
     where tenant_id = ?1 and integration_id = ?2";
const SELECT_INTEGRATION_NAMED: &str = "select integration_id from integrations \
     where tenant_id = ?1 and name = ?2 and deleted_at is null";
/// Both of them by an index alone: the rows are wide.
const COUNT_INTEGRATIONS: &str = "select count(*) from integrations \
     where tenant_id = ?1 and deleted_at is null";
const COUNT_DELETED: &str = "select count(*) from integrations indexed by integrations_deleted \
     where tenant_id = ?1 and deleted_at is not null";
const UPSERT_INTEGRATION: &str = "insert into integrations (tenant_id, integration_id, name, \
     provider_type, credential_ref, config, origin, status, health, health_checked_at, \
     health_message, default_model, budget_limit_cents, token_limit_month, rate_limit_rpm, \
     cost_basis, created_at, updated_at, created_by, deleted_at) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, \
     ?19, ?20) \
     on conflict (tenant_id, integration_id) do update set name = excluded.name, \
     credential_ref = excluded.credential_ref, config = excluded.config, \
     origin = excluded.origin, status = excluded.status, health = excluded.health, \
     health_checked_at = excluded.health_checked_at, health_message = excluded.health_message, \
     default_model = excluded.default_model, budget_limit_cents = excluded.budget_limit_cents, \
     token_limit_month = excluded.token_limit_month, rate_limit_rpm = excluded.rate_limit_rpm, \
     cost_basis = excluded.cost_basis, updated_at = excluded.updated_at, \
     deleted_at = excluded.deleted_at";
pub(super) fn tenant(
    db: &Connection,
    tenant_id: TenantId,
) -> Result<Option<TenantRow>, StoreError> {
    one(db, SELECT_TENANT, params![tenant_id.number()], |row| decode::tenant_row(row))
}

/// An integration, deleted ones included.
pub(super) fn integration(
    db: &Connection,
    tenant_id: TenantId,
    integration_id: IntegrationId,
) -> Result<Option<IntegrationRow>, StoreError> {
    let key = params![tenant_id.number(), integration_id.number()];
    one(db, SELECT_INTEGRATION, key, |row| decode::integration_row(row))
}

fn micros(instant: Option<Timestamp>) -> Option<i64> {
    instant.map(Timestamp::micros)
}

impl ControlTx for SqliteWriter {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn allocate_ids(&mut self, count: usize) -> Result<i64, StoreError> {
        Ok(self.allocate_numbers(count))
    }

    fn tenant(&mut self, tenant_id: TenantId) -> Result<Option<TenantRow>, StoreError> {
        tenant(&self.connection, tenant_id)
    }

    fn put_tenant(&mut self, row: &TenantRow) -> Result<(), StoreError> {
        let TenantRow { tenant_id, name, lifecycle, onboarding, created_at, updated_at } = row;
        self.staged.changed_tenants.push((*tenant_id, *lifecycle));
        let lifecycle = codec::lifecycle_code(*lifecycle);
        let onboarding = codec::onboarding_code(*onboarding);
        let (created_at, updated_at) = (created_at.micros(), updated_at.micros());
        let row = params![tenant_id.number(), name, lifecycle, onboarding, created_at, updated_at];
        change(&self.connection, UPSERT_TENANT, row)
    }

    fn integration(
        &mut self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<Option<IntegrationRow>, StoreError> {
        integration(&self.connection, tenant_id, integration_id)
    }

    fn integration_named(
        &mut self,
        tenant_id: TenantId,
        name: &str,
    ) -> Result<Option<IntegrationId>, StoreError> {
        let key = params![tenant_id.number(), name];
        one(&self.connection, SELECT_INTEGRATION_NAMED, key, |row| {
            row.id(0, IntegrationId::from_number)
        })
    }

    fn integration_counts(&mut self, tenant_id: TenantId) -> Result<RowCounts, StoreError> {
        let count = |sql: &str| {
            let key = params![tenant_id.number()];
            one(&self.connection, sql, key, |row| row.int(0)).map(Option::unwrap_or_default)
        };
        Ok(RowCounts { live: count(COUNT_INTEGRATIONS)?, ended: count(COUNT_DELETED)? })
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

    fn put_integration(&mut self, row: &IntegrationRow) -> Result<(), StoreError> {
        self.staged.changed_integrations.push((row.integration_id, row.rules));
        let Integration { status, health, limits, cost_basis } = row.rules;
        change(
            &self.connection,
            UPSERT_INTEGRATION,
            params![
                row.tenant_id.number(),
                row.integration_id.number(),
                row.name,
                row.provider_type,
                row.credential_ref,
                row.config,
                row.origin,
                codec::status_code(status),
                codec::health_code(health),
                micros(row.health_checked_at),
                row.health_message,
                row.default_model,
                limits.budget_limit_cents,
                limits.token_limit_month,
                limits.rate_limit_rpm,
                codec::cost_basis_code(cost_basis),
                row.created_at.micros(),
                row.updated_at.micros(),
                row.created_by,
                micros(row.deleted_at),
            ],
        )
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

    fn put_decision(&mut self, row: &DecisionRow) -> Result<(), StoreError> {
        decisions::put(&self.connection, row)
    }

    fn drop_decisions(&mut self, tenant_id: TenantId, kept: u32) -> Result<(), StoreError> {
        decisions::drop_old(&self.connection, tenant_id, kept)
    }

    fn put_signal(&mut self, row: &SignalRow) -> Result<(), StoreError> {
        protection::put_signal(&self.connection, row)
    }

    fn drop_signals(&mut self, tenant_id: TenantId, kept: u32) -> Result<(), StoreError> {
        protection::drop_old(&self.connection, tenant_id, kept)
    }

    fn put_override(&mut self, row: &OverrideRow) -> Result<(), StoreError> {
        protection::put_override(&self.connection, row)
    }
}
