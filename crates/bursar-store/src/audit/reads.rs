//! Reads of the audit log.

use async_trait::async_trait;
use bursar_core::TenantId;

use super::chain::{AuditEntry, AuditFilter, AuditPage};
use crate::error::StoreError;

/// The audit log of a tenant.
#[async_trait]
pub trait AuditReads: Send + Sync {
    /// Rows, newest first by `at` and then by id.
    async fn audit(
        &self,
        tenant_id: TenantId,
        filter: AuditFilter,
        limit: u32,
    ) -> Result<AuditPage, StoreError>;

    /// Rows in the order of the chain, after a sequence number or from the first row.
    ///
    /// A page with fewer than `limit` rows is the last.
    async fn audit_chain(
        &self,
        tenant_id: TenantId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError>;
}
