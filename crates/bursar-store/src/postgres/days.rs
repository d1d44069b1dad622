//! Usage by day and integration, in pages.
//!
//! An index has days and integrations in the order of the list, so that rows before the page, and
//! rows that are only counted, are skipped without reading their sums.

use super::open::PostgresStore;
use crate::read::days::DayReads;
use async_trait::async_trait;
use bursar_core::{IntegrationId, TenantId};
use tokio::try_join;
use tokio_postgres::Client;

use super::fetch::{fetch_all, fetch_number, for_each_row};
use super::readers::Reader;
use super::tx::params;
use crate::error::StoreError;
use crate::read::aggregate::DaySums;
use crate::read::days::{DAYS_COUNTED_MAX, DayFilter, DayPage, DayPosition, DayUsage};
use crate::read::page::Page;
use crate::rows::decode;
use crate::rows::rollup_columns::rollup_figures;

/// Index scans without sorts or hashes, whatever the planner's statistics are.
const PLANS: &str = "set local enable_seqscan = off; set local enable_sort = off; \
     set local enable_bitmapscan = off; set local enable_hashagg = off; set local jit = off";

const LIST_POSITIONS: &str = "select start, integration_id from rollups \
     where tenant_id = $1 and grain = 2 and start between $2 and $3 \
     and (start, integration_id) > ($4, $5) \
     group by start, integration_id order by start, integration_id limit $6 offset $7";
const LIST_POSITIONS_OF: &str = "select start, integration_id from rollups \
     where tenant_id = $1 and integration_id = $8 and grain = 2 and start between $2 and $3 \
     and (start, integration_id) > ($4, $5) \
     group by integration_id, start order by start limit $6 offset $7";
const COUNT_POSITIONS: &str = "select count(*) from (select start from rollups \
     where tenant_id = $1 and grain = 2 and start between $2 and $3 \
     group by start, integration_id order by start, integration_id limit $4) counted";
const COUNT_POSITIONS_OF: &str = "select count(*) from (select start from rollups \
     where tenant_id = $1 and integration_id = $5 and grain = 2 and start between $2 and $3 \
     group by start order by start limit $4) counted";
const LIST_SUMS: &str = concat!(
    "select integration_id, start, ",
    rollup_figures!(report_names),
    " from rollups where tenant_id = $1 and grain = 2 and (start, integration_id) >= ($2, $3) \
     and (start, integration_id) <= ($4, $5) order by start, integration_id"
);
const LIST_SUMS_OF: &str = concat!(
    "select integration_id, start, ",
    rollup_figures!(report_names),
    " from rollups where tenant_id = $1 and integration_id = $4 and grain = 2 \
     and start between $2 and $3 order by start"
);

#[async_trait]
impl DayReads for PostgresStore {
    async fn usage_by_day(
        &self,
        tenant_id: TenantId,
        filter: DayFilter,
        page: Page,
    ) -> Result<DayPage, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                usage_by_day(&db, tenant_id, filter, page).await
            })
            .await
    }
}

pub(super) async fn usage_by_day(
    reader: &Reader,
    tenant_id: TenantId,
    filter: DayFilter,
    page: Page,
) -> Result<DayPage, StoreError> {
    let db = reader.client()?;
    let ((), positions, counted) = try_join!(
        biased;
        reader.set(PLANS),
        positions(db, tenant_id, &filter, page),
        count(db, tenant_id, &filter),
    )?;
    let total = DayPage::total_of(counted);
    let limit = page.limit as usize;
    // One row more than requested tells whether there is a next page.
    let next =
        positions.get(limit).and(limit.checked_sub(1)).and_then(|at| positions.get(at)).copied();
    let shown = positions.get(..limit).unwrap_or(&positions);
    let (Some(first), Some(last)) = (shown.first(), shown.last()) else {
        return Ok(DayPage { rows: Vec::new(), next, total });
    };
    let rows = sums(reader, tenant_id, filter.integration_id, (*first, *last)).await?;
    Ok(DayPage { rows, next, total })
}

/// The positions of a page's rows, and of the row after it.
async fn positions(
    db: &Client,
    tenant_id: TenantId,
    filter: &DayFilter,
    page: Page,
) -> Result<Vec<DayPosition>, StoreError> {
    let (after_day, after_integration) = filter.start();
    // The index range begins where the last page ended.
    let first = i64::from(filter.first.number().max(after_day));
    let (tenant, last) = (tenant_id.number(), i64::from(filter.last.number()));
    let after_day = i64::from(after_day);
    let (limit, offset) = (i64::from(page.limit) + 1, i64::from(page.offset));
    let Some(integration) = filter.integration_id.map(IntegrationId::number) else {
        let key = params![tenant, first, last, after_day, after_integration, limit, offset];
        return fetch_all(db, LIST_POSITIONS, key, decode::day_position).await;
    };
    let key =
        params![tenant, first, last, after_day, after_integration, limit, offset, integration];
    fetch_all(db, LIST_POSITIONS_OF, key, decode::day_position).await
}

/// The number of all rows, up to the limit of counting.
async fn count(db: &Client, tenant_id: TenantId, filter: &DayFilter) -> Result<i64, StoreError> {
    let (first, last) = (i64::from(filter.first.number()), i64::from(filter.last.number()));
    let (tenant, counted_max) = (tenant_id.number(), DAYS_COUNTED_MAX + 1);
    let Some(integration) = filter.integration_id.map(IntegrationId::number) else {
        return fetch_number(db, COUNT_POSITIONS, params![tenant, first, last, counted_max]).await;
    };
    fetch_number(db, COUNT_POSITIONS_OF, params![tenant, first, last, counted_max, integration])
        .await
}

/// The sums of the rows from one position to another, inclusive.
async fn sums(
    reader: &Reader,
    tenant_id: TenantId,
    only: Option<IntegrationId>,
    (first, last): (DayPosition, DayPosition),
) -> Result<Vec<DayUsage>, StoreError> {
    let (db, mut sums) = (reader.client()?, DaySums::new(reader.memory()));
    let tenant = tenant_id.number();
    let (first_day, last_day) = (i64::from(first.day.number()), i64::from(last.day.number()));
    match only.map(IntegrationId::number) {
        None => {
            let (first, last) = (first.integration_id.number(), last.integration_id.number());
            let key = params![tenant, first_day, first, last_day, last];
            for_each_row(db, LIST_SUMS, key, |row| sums.add(row)).await?;
        }
        Some(integration) => {
            let key = params![tenant, first_day, last_day, integration];
            for_each_row(db, LIST_SUMS_OF, key, |row| sums.add(row)).await?;
        }
    }
    Ok(sums.into_usage())
}
