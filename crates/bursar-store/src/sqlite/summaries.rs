//! Reads sums of usage by integration and day, from rollups only.

use super::open::SqliteStore;
use crate::read::summaries::SummaryReads;
use async_trait::async_trait;
use bursar_core::{Day, IntegrationId, TenantId};
use rusqlite::{Connection, Row, ToSql, named_params};

use super::error::store_error;
use super::readers::Snapshot;
use crate::error::StoreError;
use crate::read::aggregate::IntegrationSums;
use crate::read::page::{Page, Paged};
use crate::read::summaries::IntegrationUsage;
use crate::rows::rollup_columns::rollup_figures;

const SUM_CALLS: &str = "select coalesce(sum(used_calls), 0) from counters \
     where tenant_id = :tenant and scope_kind = 1";
const SUM_CALLS_OF: &str = "select coalesce(sum(used_calls), 0) from counters \
     where tenant_id = :tenant and scope_kind = 1 and scope_id = :integration";
/// The days of each integration, one integration after the other.
const LIST_DAYS: &str = concat!(
    "select i.integration_id, i.name, i.provider_type, r.start, ",
    rollup_figures!(report_names, "r."),
    " from integrations i cross join rollups r on r.tenant_id = i.tenant_id \
     and r.integration_id = i.integration_id where i.tenant_id = :tenant \
     and (:integration is null or i.integration_id = :integration) and r.grain = 2 \
     and r.start between :first and :last"
);

#[async_trait]
impl SummaryReads for SqliteStore {
    async fn usage_by_integration(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        first: Day,
        last: Day,
    ) -> Result<Vec<IntegrationUsage>, StoreError> {
        self.read(tenant_id, move |db| {
            usage_by_integration(db, tenant_id, integration_id, (first, last))
        })
        .await
    }

    async fn recorded_calls(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
    ) -> Result<i64, StoreError> {
        self.read(tenant_id, move |db| recorded_calls(db, tenant_id, integration_id)).await
    }
}

/// A page of a statement, and the number of all rows.
pub(super) fn page<T>(
    db: &Snapshot<'_>,
    (count, list): (&str, &str),
    key: &[(&str, &dyn ToSql)],
    page: Page,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Paged<T>, StoreError> {
    let mut statement = db.prepare_cached(count).map_err(store_error)?;
    let total = statement.query_row(key, |row| row.get(0)).map_err(store_error)?;
    let mut key = key.to_vec();
    key.push((":limit", &page.limit));
    key.push((":offset", &page.offset));
    let mut statement = db.prepare_cached(list).map_err(store_error)?;
    let mut found = statement.query(key.as_slice()).map_err(store_error)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(store_error)? {
        db.take_row(row)?;
        rows.push(read(row)?);
    }
    Ok(Paged { rows, total })
}

pub(super) fn recorded_calls(
    db: &Connection,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
) -> Result<i64, StoreError> {
    let tenant = tenant_id.number();
    let Some(integration_id) = integration_id else {
        let mut sum = db.prepare_cached(SUM_CALLS).map_err(store_error)?;
        let key = named_params! { ":tenant": tenant };
        return sum.query_row(key, |row| row.get(0)).map_err(store_error);
    };
    let mut sum = db.prepare_cached(SUM_CALLS_OF).map_err(store_error)?;
    let key = named_params! { ":tenant": tenant, ":integration": integration_id.number() };
    sum.query_row(key, |row| row.get(0)).map_err(store_error)
}

pub(super) fn usage_by_integration(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
    (first, last): (Day, Day),
) -> Result<Vec<IntegrationUsage>, StoreError> {
    let mut sums = IntegrationSums::new(db.memory());
    let mut statement = db.prepare_cached(LIST_DAYS).map_err(store_error)?;
    let key = named_params! {
        ":tenant": tenant_id.number(),
        ":integration": integration_id.map(IntegrationId::number),
        ":first": first.number(),
        ":last": last.number(),
    };
    let mut rows = statement.query(key).map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        sums.add(row)?;
    }
    Ok(sums.into_usage())
}
