//! Reads sums of usage by integration and day, from rollups only.
//!
//! Independent statements are sent together, so that a read takes one round trip.

use super::open::PostgresStore;
use crate::read::summaries::SummaryReads;
use async_trait::async_trait;

use bursar_core::{Day, IntegrationId, TenantId};
use tokio::try_join;
use tokio_postgres::{Client, Row};

use super::fetch::{fetch_list, fetch_number, for_each_row};
use super::readers::Reader;
use super::tx::{Param, params};
use crate::error::StoreError;
use crate::read::aggregate::IntegrationSums;
use crate::read::page::{Page, Paged};
use crate::read::summaries::IntegrationUsage;
use crate::rows::rollup_columns::rollup_figures;

const SUM_CALLS: &str = "select coalesce(sum(used_calls), 0)::bigint from counters \
     where tenant_id = $1 and scope_kind = 1 and ($2 is null or scope_id = $2)";
const LIST_DAYS: &str = concat!(
    "select i.integration_id, i.name, i.provider_type, r.start, ",
    rollup_figures!(report_names, "r."),
    " from rollups r join integrations i on i.tenant_id = r.tenant_id \
     and i.integration_id = r.integration_id where r.tenant_id = $1 \
     and r.integration_id = any (array (select integration_id from integrations \
     where tenant_id = $1 and ($2 is null or integration_id = $2))) and r.grain = 2 \
     and r.start between $3 and $4"
);

#[async_trait]
impl SummaryReads for PostgresStore {
    async fn usage_by_integration(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        first: Day,
        last: Day,
    ) -> Result<Vec<IntegrationUsage>, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                let days = (first, last);
                usage_by_integration(&db, tenant_id, integration_id, days).await
            })
            .await
    }

    async fn recorded_calls(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
    ) -> Result<i64, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                recorded_calls(db.client()?, tenant_id, integration_id).await
            })
            .await
    }
}

/// A page of a statement, and the number of all rows.
///
/// Both statements get the same values; the count ignores those of the page.
pub(super) async fn page<T>(
    db: &Reader,
    (count, list): (&str, &str),
    params: &[Param<'_>],
    read: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Paged<T>, StoreError> {
    let (total, rows) =
        try_join!(fetch_number(db.client()?, count, params), fetch_list(db, list, params, read))?;
    Ok(Paged { rows, total })
}

/// The limit and the offset of a page, as stored numbers.
pub(super) fn bounds(page: Page) -> (i64, i64) {
    (page.limit.into(), page.offset.into())
}

pub(super) async fn recorded_calls(
    db: &Client,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
) -> Result<i64, StoreError> {
    let (tenant, integration) = (tenant_id.number(), integration_id.map(IntegrationId::number));
    fetch_number(db, SUM_CALLS, params![tenant, integration]).await
}

pub(super) async fn usage_by_integration(
    db: &Reader,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
    (first, last): (Day, Day),
) -> Result<Vec<IntegrationUsage>, StoreError> {
    let (tenant, integration) = (tenant_id.number(), integration_id.map(IntegrationId::number));
    let (first, last) = (i64::from(first.number()), i64::from(last.number()));
    let mut sums = IntegrationSums::new(db.memory());
    let key = params![tenant, integration, first, last];
    for_each_row(db.client()?, LIST_DAYS, key, |row| sums.add(row)).await?;
    Ok(sums.into_usage())
}
