//! The integrations of a tenant.

use async_trait::async_trait;
use bursar_core::{Integration, IntegrationId, TenantId};

use super::query::{PagedSql, Query};
use super::value::{FromRow, LockedSql, locked, values};
use crate::error::StoreError;
use crate::read::page::{Page, Paged};
use crate::rows::codec;
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::decode;
use crate::rows::row::IntegrationRow;
use crate::write::writer_connection::{ControlTx, RowCounts};

pub(crate) const SELECT_INTEGRATION: LockedSql = locked!(
    "select tenant_id, integration_id, name, provider_type, \
     credential_ref, config, origin, status, health, health_checked_at, health_message, \
     default_model, budget_limit_cents, token_limit_month, rate_limit_rpm, cost_basis, created_at, \
     updated_at, created_by, deleted_at from integrations \
     where tenant_id = $1 and integration_id = $2"
);
const SELECT_INTEGRATION_NAMED: &str = "select integration_id from integrations \
     where tenant_id = $1 and name = $2 and deleted_at is null";
const COUNT_INTEGRATIONS: &str = "select count(*) from integrations \
     where tenant_id = $1 and deleted_at is null and ($2 is null or status = $2) \
     and ($3 is null or provider_type = $3)";
const LIST_INTEGRATIONS: &str = "select tenant_id, integration_id, name, provider_type, \
     credential_ref, config, origin, status, health, health_checked_at, health_message, \
     default_model, budget_limit_cents, token_limit_month, rate_limit_rpm, cost_basis, created_at, \
     updated_at, created_by, deleted_at from integrations \
     where tenant_id = $1 and deleted_at is null and ($2 is null or status = $2) \
     and ($3 is null or provider_type = $3) \
     order by integration_id limit $4 offset $5";
/// Both of them by an index alone: the rows are wide.
const COUNT_LIVE_AND_DELETED: &str = "select (select count(*) from integrations \
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

/// A filter of integrations.
#[derive(Clone, Debug, Default)]
pub struct IntegrationFilter {
    pub status: Option<bursar_core::IntegrationStatus>,
    pub provider_type: Option<String>,
}

/// Reads of integrations.
#[async_trait]
pub trait IntegrationReads: Send + Sync {
    /// A live integration.
    async fn integration(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<Option<IntegrationRow>, StoreError>;

    /// Whether the tenant has or had this integration; its usage stays when it is deleted.
    async fn knows_integration(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<bool, StoreError>;

    /// The live integrations of a tenant, oldest first.
    async fn integrations(
        &self,
        tenant_id: TenantId,
        filter: IntegrationFilter,
        page: Page,
    ) -> Result<Paged<IntegrationRow>, StoreError>;
}

#[async_trait]
impl<S: Query> IntegrationReads for S {
    async fn integration(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<Option<IntegrationRow>, StoreError> {
        let key = values![tenant_id, integration_id];
        let row = self.row(Some(tenant_id), SELECT_INTEGRATION.plain, key).await?;
        Ok(row.filter(|row: &IntegrationRow| row.deleted_at.is_none()))
    }

    async fn knows_integration(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<bool, StoreError> {
        let key = values![tenant_id, integration_id];
        let row = self.row::<IntegrationRow>(Some(tenant_id), SELECT_INTEGRATION.plain, key);
        Ok(row.await?.is_some())
    }

    async fn integrations(
        &self,
        tenant_id: TenantId,
        filter: IntegrationFilter,
        page: Page,
    ) -> Result<Paged<IntegrationRow>, StoreError> {
        let status = filter.status.map(codec::status_code);
        let values = values![tenant_id, status, filter.provider_type];
        let sql = PagedSql { count: COUNT_INTEGRATIONS.into(), list: LIST_INTEGRATIONS.into() };
        self.page(Some(tenant_id), sql, values, page).await
    }
}

impl dyn ControlTx + '_ {
    /// An integration, deleted ones included; locked until the end of the transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn integration(
        &mut self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<Option<IntegrationRow>, StoreError> {
        self.row(tenant_id, SELECT_INTEGRATION, &values![tenant_id, integration_id])
    }

    /// The live integration of this name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn integration_named(
        &mut self,
        tenant_id: TenantId,
        name: &str,
    ) -> Result<Option<IntegrationId>, StoreError> {
        let sql = SELECT_INTEGRATION_NAMED;
        let number: Option<i64> = self.row(tenant_id, sql, &values![tenant_id, name])?;
        number.map(|number| codec::id(IntegrationId::from_number, number)).transpose()
    }

    /// How many live integrations a tenant has, and how many it has deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn integration_counts(&mut self, tenant_id: TenantId) -> Result<RowCounts, StoreError> {
        let sql = COUNT_LIVE_AND_DELETED;
        Ok(self.row(tenant_id, sql, &values![tenant_id])?.unwrap_or_default())
    }

    /// Writes an integration, new or changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_integration(&mut self, row: &IntegrationRow) -> Result<(), StoreError> {
        let Integration { status, health, limits, cost_basis } = row.rules;
        self.integration_changes(row.integration_id, row.rules);
        let values = values![
            row.tenant_id,
            row.integration_id,
            row.name,
            row.provider_type,
            row.credential_ref,
            row.config,
            row.origin,
            codec::status_code(status),
            codec::health_code(health),
            row.health_checked_at,
            row.health_message,
            row.default_model,
            limits.budget_limit_cents,
            limits.token_limit_month,
            limits.rate_limit_rpm,
            codec::cost_basis_code(cost_basis),
            row.created_at,
            row.updated_at,
            row.created_by,
            row.deleted_at,
        ];
        self.execute(row.tenant_id, UPSERT_INTEGRATION.into(), &values)
    }
}

impl FromRow for IntegrationRow {
    fn from_row(row: &dyn RawColumns) -> Result<Self, StoreError> {
        Ok(Self {
            tenant_id: row.id(0, TenantId::from_number)?,
            integration_id: row.id(1, IntegrationId::from_number)?,
            name: row.text(2)?,
            provider_type: row.text(3)?,
            credential_ref: row.opt_text(4)?,
            config: row.text(5)?,
            origin: row.opt_text(6)?,
            rules: Integration {
                status: codec::status(row.int(7)?)?,
                health: codec::health(row.int(8)?)?,
                limits: decode::limits(row, 12)?,
                cost_basis: codec::cost_basis(row.int(15)?)?,
            },
            health_checked_at: row.opt_instant(9)?,
            health_message: row.opt_text(10)?,
            default_model: row.opt_text(11)?,
            created_at: row.instant(16)?,
            updated_at: row.instant(17)?,
            created_by: row.text(18)?,
            deleted_at: row.opt_instant(19)?,
        })
    }
}

/// `live rows, ended rows`.
impl FromRow for RowCounts {
    fn from_row(row: &dyn RawColumns) -> Result<Self, StoreError> {
        Ok(Self { live: row.int(0)?, ended: row.int(1)? })
    }
}
