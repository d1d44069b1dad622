//! Reads of sums.

use async_trait::async_trait;
use bursar_core::{Day, IntegrationId, TenantId};

use crate::error::StoreError;
use crate::read::sums::Sums;

/// The sums of an integration over some days.
#[derive(Clone, Debug)]
pub struct IntegrationUsage {
    pub integration_id: IntegrationId,
    pub name: String,
    pub provider_type: String,
    pub sums: Sums,
}

/// Sums over days, months and integrations.
#[async_trait]
pub trait SummaryReads: Send + Sync {
    /// Usage by integration from `first` to `last`, inclusive: deleted integrations too, but none
    /// without usage.
    async fn usage_by_integration(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        first: Day,
        last: Day,
    ) -> Result<Vec<IntegrationUsage>, StoreError>;

    /// The number of recorded calls, from the counters.
    async fn recorded_calls(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
    ) -> Result<i64, StoreError>;
}
