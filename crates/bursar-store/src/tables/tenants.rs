//! The tenants of a server.

use async_trait::async_trait;
use bursar_core::TenantId;

use super::query::{PagedSql, Query};
use super::value::{FromRow, LockedSql, locked, values};
use crate::error::StoreError;
use crate::read::page::{Page, Paged};
use crate::rows::codec;
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::row::TenantRow;
use crate::write::writer_connection::ControlTx;

/// Locked, so that changes of a tenant happen one after the other on all nodes.
pub(crate) const SELECT_TENANT: LockedSql = locked!(
    "select tenant_id, name, lifecycle, onboarding, created_at, updated_at \
     from tenants where tenant_id = $1"
);
pub(crate) const COUNT_TENANTS: &str = "select count(*) from tenants";
const LIST_TENANTS: &str = "select tenant_id, name, lifecycle, onboarding, created_at, updated_at \
     from tenants order by tenant_id limit $1 offset $2";
const UPSERT_TENANT: &str = "insert into tenants (tenant_id, name, lifecycle, onboarding, \
     created_at, updated_at) values ($1, $2, $3, $4, $5, $6) \
     on conflict (tenant_id) do update set name = excluded.name, \
     lifecycle = excluded.lifecycle, onboarding = excluded.onboarding, \
     updated_at = excluded.updated_at";

/// Reads of tenants.
#[async_trait]
pub trait TenantReads: Send + Sync {
    async fn tenant(&self, tenant_id: TenantId) -> Result<Option<TenantRow>, StoreError>;

    /// The tenants, oldest first; for the operator.
    async fn tenants(&self, page: Page) -> Result<Paged<TenantRow>, StoreError>;
}

#[async_trait]
impl<S: Query> TenantReads for S {
    async fn tenant(&self, tenant_id: TenantId) -> Result<Option<TenantRow>, StoreError> {
        self.row(None, SELECT_TENANT.plain, values![tenant_id]).await
    }

    async fn tenants(&self, page: Page) -> Result<Paged<TenantRow>, StoreError> {
        let sql = PagedSql { count: COUNT_TENANTS.into(), list: LIST_TENANTS.into() };
        self.page(None, sql, Vec::new(), page).await
    }
}

impl dyn ControlTx + '_ {
    /// A tenant; locked until the end of the transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tenant(&mut self, tenant_id: TenantId) -> Result<Option<TenantRow>, StoreError> {
        self.row(tenant_id, SELECT_TENANT, &values![tenant_id])
    }

    /// Writes a tenant, new or changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_tenant(&mut self, row: &TenantRow) -> Result<(), StoreError> {
        let TenantRow { tenant_id, name, lifecycle, onboarding, created_at, updated_at } = row;
        self.tenant_changes(*tenant_id, *lifecycle)?;
        let values = values![
            tenant_id,
            name,
            codec::lifecycle_code(*lifecycle),
            codec::onboarding_code(*onboarding),
            created_at,
            updated_at,
        ];
        self.execute(*tenant_id, UPSERT_TENANT.into(), &values)?;
        self.put_limit_set(*tenant_id)
    }
}

impl FromRow for TenantRow {
    fn from_row(row: &dyn RawColumns) -> Result<Self, StoreError> {
        Ok(Self {
            tenant_id: row.id(0, TenantId::from_number)?,
            name: row.text(1)?,
            lifecycle: codec::lifecycle(row.int(2)?)?,
            onboarding: codec::onboarding(row.int(3)?)?,
            created_at: row.instant(4)?,
            updated_at: row.instant(5)?,
        })
    }
}
