//! Rows of the control plane, written by a writer.

use bursar_core::{Integration, IntegrationId, KeyId, TenantId, Timestamp};

use super::keys;
use super::protection::{DROP_SIGNALS, UPSERT_OVERRIDE, UPSERT_SIGNAL};
use super::tx::params;
use super::writer_state::PostgresWriter;
use crate::error::StoreError;
use crate::rows::codec;
use crate::rows::columns::Columns;
use crate::rows::decode;
use crate::rows::protection::{OverrideRow, SignalRow, stored_decision};
use crate::rows::row::{AuditRow, DecisionRow, IntegrationRow, KeyRow, TenantRow};
use crate::write::writer_connection::{ControlTx, RowCounts};

/// Changes of a tenant follow one another, whichever node makes them.
const LOCK_TENANT: &str = "select tenant_id, name, lifecycle, onboarding, created_at, updated_at \
     from tenants where tenant_id = $1 for no key update";
const UPSERT_TENANT: &str = "insert into tenants (tenant_id, name, lifecycle, onboarding, \
     created_at, updated_at) values ($1, $2, $3, $4, $5, $6) \
     on conflict (tenant_id) do update set name = excluded.name, \
     lifecycle = excluded.lifecycle, onboarding = excluded.onboarding, \
     updated_at = excluded.updated_at";
const LOCK_INTEGRATION: &str = "select tenant_id, integration_id, name, provider_type, \
     credential_ref, config, origin, status, health, health_checked_at, health_message, \
     default_model, budget_limit_cents, token_limit_month, rate_limit_rpm, cost_basis, created_at, \
     updated_at, created_by, deleted_at from integrations \
     where tenant_id = $1 and integration_id = $2 for no key update";
const SELECT_INTEGRATION_NAMED: &str = "select integration_id from integrations \
     where tenant_id = $1 and name = $2 and deleted_at is null";
/// Both of them by an index alone: the rows are wide.
const COUNT_INTEGRATIONS: &str = "select (select count(*) from integrations \
     where tenant_id = $1 and deleted_at is null), (select count(*) from integrations \
     where tenant_id = $1 and deleted_at is not null)";
const UPSERT_INTEGRATION: &str = "insert into integrations (tenant_id, integration_id, name, \
     provider_type, credential_ref, config, origin, status, health, health_checked_at, \
     health_message, default_model, budget_limit_cents, token_limit_month, rate_limit_rpm, \
     cost_basis, created_at, updated_at, created_by, deleted_at) \
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
     $19, $20) \
     on conflict (tenant_id, integration_id) do update set name = excluded.name, \
     credential_ref = excluded.credential_ref, config = excluded.config, \
     origin = excluded.origin, status = excluded.status, health = excluded.health, \
     health_checked_at = excluded.health_checked_at, health_message = excluded.health_message, \
     default_model = excluded.default_model, budget_limit_cents = excluded.budget_limit_cents, \
     token_limit_month = excluded.token_limit_month, rate_limit_rpm = excluded.rate_limit_rpm, \
     cost_basis = excluded.cost_basis, updated_at = excluded.updated_at, \
     deleted_at = excluded.deleted_at";
const UPSERT_DECISION: &str = "insert into decisions (tenant_id, decision_id, kind, \
     integration_id, verdict, code, decision, call_id, estimated_cost_nanos, estimated_tokens, \
     times, first_at, last_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
     on conflict (tenant_id, decision_id) do update set verdict = excluded.verdict, \
     code = excluded.code, decision = excluded.decision, \
     estimated_cost_nanos = excluded.estimated_cost_nanos, \
     estimated_tokens = excluded.estimated_tokens, times = excluded.times, \
     last_at = excluded.last_at";
const DROP_DECISIONS: &str = "delete from decisions where tenant_id = $1 and decision_id <= \
     (select decision_id from decisions where tenant_id = $1 \
     order by decision_id desc limit 1 offset $2)";
/// Whoever is being admitted by an integration of the tenant is admitted before the change or after.
const LOCK_INTEGRATIONS: &str = "select integration_id from integrations where tenant_id = $1 \
     and exists (select from tenants where tenant_id = $1 and lifecycle <> $2) \
     order by tenant_id, integration_id for no key update";

fn micros(instant: Option<Timestamp>) -> Option<i64> {
    instant.map(Timestamp::micros)
}

impl ControlTx for PostgresWriter {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn allocate_ids(&mut self, count: usize) -> Result<i64, StoreError> {
        self.allocate_numbers(count)
    }

    fn tenant(&mut self, tenant_id: TenantId) -> Result<Option<TenantRow>, StoreError> {
        let tenant = tenant_id.number();
        self.one(tenant_id, LOCK_TENANT, params![tenant], decode::tenant_row)
    }

    fn put_tenant(&mut self, row: &TenantRow) -> Result<(), StoreError> {
        let TenantRow { tenant_id, name, lifecycle, onboarding, created_at, updated_at } = row;
        let tenant = tenant_id.number();
        let lifecycle = codec::lifecycle_code(*lifecycle);
        self.put(*tenant_id, LOCK_INTEGRATIONS, params![tenant, lifecycle])?;
        self.put(
            *tenant_id,
            UPSERT_TENANT,
            params![
                tenant,
                *name,
                lifecycle,
                codec::onboarding_code(*onboarding),
                created_at.micros(),
                updated_at.micros(),
            ],
        )
    }

    fn integration(
        &mut self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<Option<IntegrationRow>, StoreError> {
        self.one(
            tenant_id,
            LOCK_INTEGRATION,
            params![tenant_id.number(), integration_id.number()],
            decode::integration_row,
        )
    }

    fn integration_named(
        &mut self,
        tenant_id: TenantId,
        name: &str,
    ) -> Result<Option<IntegrationId>, StoreError> {
        let read = |row: &tokio_postgres::Row| row.id(0, IntegrationId::from_number);
        self.one(tenant_id, SELECT_INTEGRATION_NAMED, params![tenant_id.number(), name], read)
    }

    fn integration_counts(&mut self, tenant_id: TenantId) -> Result<RowCounts, StoreError> {
        let tenant = tenant_id.number();
        let counts = self.one(tenant_id, COUNT_INTEGRATIONS, params![tenant], |row| {
            Ok(RowCounts { live: row.int(0)?, ended: row.int(1)? })
        })?;
        Ok(counts.unwrap_or_default())
    }

    fn key_counts(
        &mut self,
        owner: (TenantId, Option<IntegrationId>),
        now: Timestamp,
    ) -> Result<RowCounts, StoreError> {
        keys::counts(self, owner, now)
    }

    fn drop_ended_keys(
        &mut self,
        owner: (TenantId, Option<IntegrationId>),
        now: Timestamp,
        kept: u32,
    ) -> Result<(), StoreError> {
        keys::drop_ended(self, owner, now, kept)
    }

    fn put_integration(&mut self, row: &IntegrationRow) -> Result<(), StoreError> {
        let Integration { status, health, limits, cost_basis } = row.rules;
        self.put(
            row.tenant_id,
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
        keys::lock(self, tenant_id, key_id)
    }

    fn put_key(&mut self, row: &KeyRow) -> Result<(), StoreError> {
        keys::put(self, row)
    }

    fn stamp_keys(
        &mut self,
        tenant_id: TenantId,
        uses: &[(KeyId, Timestamp)],
    ) -> Result<(), StoreError> {
        keys::stamp(self, tenant_id, uses)
    }

    fn put_audit(&mut self, row: &AuditRow) -> Result<(), StoreError> {
        self.audits.push(row.clone());
        Ok(())
    }

    fn put_decision(&mut self, row: &DecisionRow) -> Result<(), StoreError> {
        self.put(
            row.tenant_id,
            UPSERT_DECISION,
            params![
                row.tenant_id.number(),
                row.decision_id.number(),
                codec::decision_kind_code(row.kind),
                row.integration_id.map(IntegrationId::number),
                row.decision.verdict.as_str(),
                row.decision.reasons.first().map_or("", |reason| reason.code.as_str()),
                codec::decision_text(&row.decision).unwrap_or_default(),
                row.call_id,
                row.estimate.cost.get(),
                row.estimate.tokens,
                row.times,
                row.first_at.micros(),
                row.last_at.micros(),
            ],
        )
    }

    fn drop_decisions(&mut self, tenant_id: TenantId, kept: u32) -> Result<(), StoreError> {
        self.put(tenant_id, DROP_DECISIONS, params![tenant_id.number(), i64::from(kept)])
    }

    fn put_signal(&mut self, row: &SignalRow) -> Result<(), StoreError> {
        let Some(stored) = stored_decision(&row.decision) else { return Ok(()) };
        let (dimension, action, retry_after_ms, current_value, allowed_value) = stored;
        self.put(
            row.tenant_id,
            UPSERT_SIGNAL,
            params![
                row.tenant_id.number(),
                row.signal_id.number(),
                dimension,
                action,
                row.endpoint,
                row.operation,
                retry_after_ms,
                current_value,
                allowed_value,
                row.times,
                row.first_at.micros(),
                row.last_at.micros(),
            ],
        )
    }

    fn drop_signals(&mut self, tenant_id: TenantId, kept: u32) -> Result<(), StoreError> {
        self.put(tenant_id, DROP_SIGNALS, params![tenant_id.number(), i64::from(kept)])
    }

    fn put_override(&mut self, row: &OverrideRow) -> Result<(), StoreError> {
        self.put(
            row.tenant_id,
            UPSERT_OVERRIDE,
            params![
                row.tenant_id.number(),
                codec::dimension_code(row.dimension),
                i64::from(row.allowed_value),
                row.expires_at.micros(),
                row.reason,
                row.created_at.micros(),
                row.created_by,
            ],
        )
    }
}
