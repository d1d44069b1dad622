//! Usage by day and integration, in pages.
//!
//! An index has days and integrations in the order of the list, so that rows before the page, and
//! rows that are only counted, are skipped without reading their sums.

use super::open::SqliteStore;
use crate::read::days::DayReads;
use async_trait::async_trait;
use bursar_core::{IntegrationId, TenantId};
use rusqlite::{Row, ToSql};

use super::error::store_error;
use super::readers::Snapshot;
use crate::error::StoreError;
use crate::read::aggregate::DaySums;
use crate::read::days::{DAYS_COUNTED_MAX, DayFilter, DayPage, DayPosition, DayUsage};
use crate::read::page::Page;
use crate::rows::columns::Columns;
use crate::rows::decode;
use crate::rows::rollup_columns::rollup_figures;

const LIST_POSITIONS: &str = "select start, integration_id from rollups indexed by rollups_by_day \
     where tenant_id = :tenant and grain = 2 and start between :first and :last \
     and (start, integration_id) > (:after_day, :after_integration) \
     group by start, integration_id order by start, integration_id limit :limit offset :offset";
const LIST_POSITIONS_OF: &str = "select start, integration_id from rollups \
     where tenant_id = :tenant and integration_id = :integration and grain = 2 \
     and start between :first and :last \
     and (start, integration_id) > (:after_day, :after_integration) \
     group by start order by start limit :limit offset :offset";
const COUNT_POSITIONS: &str = "select count(*) from (select 1 from rollups indexed by rollups_by_day \
     where tenant_id = :tenant and grain = 2 and start between :first and :last \
     group by start, integration_id limit :limit)";
const COUNT_POSITIONS_OF: &str = "select count(*) from (select 1 from rollups \
     where tenant_id = :tenant and integration_id = :integration and grain = 2 \
     and start between :first and :last group by start limit :limit)";
const LIST_SUMS: &str = concat!(
    "select integration_id, start, ",
    rollup_figures!(report_names),
    " from rollups indexed by rollups_by_day where tenant_id = :tenant and grain = 2 \
     and start between :first and :last \
     and (start, integration_id) >= (:first, :first_integration) \
     and (start, integration_id) <= (:last, :last_integration) order by start, integration_id"
);
const LIST_SUMS_OF: &str = concat!(
    "select integration_id, start, ",
    rollup_figures!(report_names),
    " from rollups where tenant_id = :tenant and integration_id = :integration and grain = 2 \
     and start between :first and :last order by start"
);

#[async_trait]
impl DayReads for SqliteStore {
    async fn usage_by_day(
        &self,
        tenant_id: TenantId,
        filter: DayFilter,
        page: Page,
    ) -> Result<DayPage, StoreError> {
        self.read(tenant_id, move |db| usage_by_day(db, tenant_id, filter, page)).await
    }
}

pub(super) fn usage_by_day(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    filter: DayFilter,
    page: Page,
) -> Result<DayPage, StoreError> {
    let (limit, positions) = (page.limit as usize, positions(db, tenant_id, &filter, page)?);
    let total = DayPage::total_of(count(db, tenant_id, &filter)?);
    // One row more than requested tells whether there is a next page.
    let next =
        positions.get(limit).and(limit.checked_sub(1)).and_then(|at| positions.get(at)).copied();
    let shown = positions.get(..limit).unwrap_or(&positions);
    let (Some(first), Some(last)) = (shown.first(), shown.last()) else {
        return Ok(DayPage { rows: Vec::new(), next, total });
    };
    let rows = sums(db, tenant_id, filter.integration_id, (*first, *last))?;
    Ok(DayPage { rows, next, total })
}

/// Runs the statement for all integrations, or the one for a single integration.
fn select(
    db: &Snapshot<'_>,
    (of_all, of_one): (&str, &str),
    (only, values): (Option<IntegrationId>, &[(&'static str, i64)]),
    mut take: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let only = only.map(|integration_id| (":integration", integration_id.number()));
    let sql = if only.is_some() { of_one } else { of_all };
    let values: Vec<(&str, &dyn ToSql)> =
        values.iter().chain(&only).map(|(name, value)| (*name, value as &dyn ToSql)).collect();
    let mut statement = db.prepare_cached(sql).map_err(store_error)?;
    let mut rows = statement.query(values.as_slice()).map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        take(row)?;
    }
    Ok(())
}

/// The positions of a page's rows, and of the row after it.
fn positions(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    filter: &DayFilter,
    page: Page,
) -> Result<Vec<DayPosition>, StoreError> {
    let (after_day, after_integration) = filter.start();
    let values = [
        (":tenant", tenant_id.number()),
        // The index range begins where the last page ended.
        (":first", filter.first.number().max(after_day).into()),
        (":last", filter.last.number().into()),
        (":after_day", after_day.into()),
        (":after_integration", after_integration),
        (":limit", i64::from(page.limit) + 1),
        (":offset", page.offset.into()),
    ];
    let mut positions = Vec::new();
    select(db, (LIST_POSITIONS, LIST_POSITIONS_OF), (filter.integration_id, &values), |row| {
        positions.push(decode::day_position(row)?);
        Ok(())
    })?;
    Ok(positions)
}

/// The number of all rows, up to the limit of counting.
fn count(db: &Snapshot<'_>, tenant_id: TenantId, filter: &DayFilter) -> Result<i64, StoreError> {
    let values = [
        (":tenant", tenant_id.number()),
        (":first", filter.first.number().into()),
        (":last", filter.last.number().into()),
        (":limit", DAYS_COUNTED_MAX + 1),
    ];
    let mut counted = 0;
    select(db, (COUNT_POSITIONS, COUNT_POSITIONS_OF), (filter.integration_id, &values), |row| {
        counted = row.int(0)?;
        Ok(())
    })?;
    Ok(counted)
}

/// The sums of the rows from one position to another, inclusive.
fn sums(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    only: Option<IntegrationId>,
    (first, last): (DayPosition, DayPosition),
) -> Result<Vec<DayUsage>, StoreError> {
    let mut values = vec![
        (":tenant", tenant_id.number()),
        (":first", first.day.number().into()),
        (":last", last.day.number().into()),
    ];
    if only.is_none() {
        values.push((":first_integration", first.integration_id.number()));
        values.push((":last_integration", last.integration_id.number()));
    }
    let mut sums = DaySums::new(db.memory());
    select(db, (LIST_SUMS, LIST_SUMS_OF), (only, &values), |row| sums.add(row))?;
    Ok(sums.into_usage())
}
