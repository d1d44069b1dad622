//! Thresholds of protection that a tenant has instead of the configured ones.

use async_trait::async_trait;
use bursar_core::{Dimension, TenantId, Timestamp};

use super::query::Query;
use super::value::{FromRow, values};
use crate::error::StoreError;
use crate::rows::codec;
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::protection::OverrideRow;
use crate::write::writer_connection::ControlTx;

const UPSERT_OVERRIDE: &str = "insert into protection_overrides (tenant_id, dimension, \
     allowed_value, expires_at, reason, created_at, created_by) \
     values ($1, $2, $3, $4, $5, $6, $7) \
     on conflict (tenant_id, dimension) do update set allowed_value = excluded.allowed_value, \
     expires_at = excluded.expires_at, reason = excluded.reason, \
     created_at = excluded.created_at, created_by = excluded.created_by";
const LIST_OVERRIDES: &str = "select tenant_id, dimension, allowed_value, expires_at, reason, \
     created_at, created_by from protection_overrides where tenant_id = $1 and expires_at > $2 \
     order by dimension";

/// Reads of overrides of thresholds.
#[async_trait]
pub trait OverrideReads: Send + Sync {
    /// The overrides of a tenant that are in force at an instant, by dimension.
    async fn protection_overrides(
        &self,
        tenant_id: TenantId,
        now: Timestamp,
    ) -> Result<Vec<OverrideRow>, StoreError>;
}

#[async_trait]
impl<S: Query> OverrideReads for S {
    async fn protection_overrides(
        &self,
        tenant_id: TenantId,
        now: Timestamp,
    ) -> Result<Vec<OverrideRow>, StoreError> {
        self.rows(tenant_id, LIST_OVERRIDES, values![tenant_id, now]).await
    }
}

impl dyn ControlTx + '_ {
    /// Writes a threshold of a tenant in the place of the one before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_override(&mut self, row: &OverrideRow) -> Result<(), StoreError> {
        if row.dimension == Dimension::Cost {
            // It is the amount of a limit.
            self.lock_limits(row.tenant_id)?;
        }
        let values = values![
            row.tenant_id,
            codec::dimension_code(row.dimension),
            row.allowed_value,
            row.expires_at,
            row.reason,
            row.created_at,
            row.created_by,
        ];
        self.execute(row.tenant_id, UPSERT_OVERRIDE.into(), &values)
    }
}

impl FromRow for OverrideRow {
    fn from_row(row: &dyn RawColumns) -> Result<Self, StoreError> {
        Ok(Self {
            tenant_id: row.id(0, TenantId::from_number)?,
            dimension: codec::dimension(row.int(1)?)?,
            allowed_value: row.int(2)?,
            expires_at: row.instant(3)?,
            reason: row.text(4)?,
            created_at: row.instant(5)?,
            created_by: row.text(6)?,
        })
    }
}
