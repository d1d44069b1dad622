//! Reads of the list of days and integrations.

use async_trait::async_trait;
use bursar_core::{Day, IntegrationId, TenantId};

use crate::error::StoreError;
use crate::read::page::Page;
use crate::read::sums::Sums;

/// The sums of an integration on one day.
#[derive(Clone, Copy, Debug)]
pub struct DayUsage {
    pub day: Day,
    pub integration_id: IntegrationId,
    pub sums: Sums,
}

/// A filter of days and integrations.
#[derive(Clone, Copy, Debug)]
pub struct DayFilter {
    pub integration_id: Option<IntegrationId>,
    /// The first day, inclusive.
    pub first: Day,
    /// The last day, inclusive.
    pub last: Day,
    /// Only rows after this position.
    pub after: Option<DayPosition>,
}

/// A position in the list of days and integrations, which runs from the first day to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DayPosition {
    pub day: Day,
    /// Orders the rows of a day.
    pub integration_id: IntegrationId,
}

/// A page of the list of days and integrations.
#[derive(Clone, Debug, Default)]
pub struct DayPage {
    /// The rows, by day and then by integration.
    pub rows: Vec<DayUsage>,
    /// The position of the next page, if there is one.
    pub next: Option<DayPosition>,
    /// How many rows match, on all pages; `None` if there are more than a read counts (10,000).
    pub total: Option<i64>,
}

/// The limit on the rows that are counted for a total.
pub(crate) const DAYS_COUNTED_MAX: i64 = 10_000;

impl DayPage {
    /// The total of `counted` rows, where counting stopped at [`DAYS_COUNTED_MAX`] plus one.
    pub(crate) fn total_of(counted: i64) -> Option<i64> {
        (counted <= DAYS_COUNTED_MAX).then_some(counted)
    }
}

impl DayFilter {
    /// The stored day and integration after which the rows begin.
    pub(crate) fn start(&self) -> (i32, i64) {
        let after = self.after.map(|after| (after.day.number(), after.integration_id.number()));
        after.unwrap_or((i32::MIN, i64::MIN))
    }
}

/// The list of days and integrations.
#[async_trait]
pub trait DayReads: Send + Sync {
    /// Usage by day and then by integration, without days that have none.
    async fn usage_by_day(
        &self,
        tenant_id: TenantId,
        filter: DayFilter,
        page: Page,
    ) -> Result<DayPage, StoreError>;
}
