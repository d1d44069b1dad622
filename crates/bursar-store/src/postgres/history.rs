//! The scans of the history: one statement for each index.
//!
//! A statement reads entries by its index until enough of them match or too many do not. It returns
//! the matching entries, and the entry at which it reached its limit. The first statement scans a
//! few integrations, each further one twice as many. Once the newest entries of some integrations
//! are known, the scans of the others read only newer entries.

use super::open::PostgresStore;
use crate::read::entries::{HistoryPart, HistoryReads};
use async_trait::async_trait;
use std::collections::HashMap;

use bursar_core::{EntryId, IntegrationId, TenantId};
use tokio::try_join;
use tokio_postgres::{Client, Row};

use super::fetch::{fetch_all, fetch_list};
use super::readers::Reader;
use super::tx::params;
use crate::error::StoreError;
use crate::read::entries::{HistoryFilter, HistoryPage, HistoryPosition};
use crate::read::history::{HistoryIndex, HistoryMerge, PageLimits, PagePositions};
use crate::rows::codec;
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::decode;
use crate::rows::entry_columns::entry_columns;

/// The integrations of the first statement.
const SCANS_FIRST: usize = 4;

/// Index scans without sorts, whatever the planner's statistics are.
const PLANS: &str =
    "set local enable_sort = off; set local enable_bitmapscan = off; set local jit = off";

const INTEGRATIONS: &str = "select integration_id from integrations \
     where tenant_id = $1 and ($2 is null or integration_id = $2) order by integration_id";
const BY_TIME: &str = "select found.occurred_at, found.entry_id, found.matches \
     from unnest($2::bigint[]) as scanned (integration_id) cross join lateral \
     (select occurred_at, entry_id, matches from (select occurred_at, entry_id, matches, \
     count(*) filter (where not matches) \
     over (order by occurred_at desc, entry_id desc rows unbounded preceding) as skipped \
     from (select occurred_at, entry_id, ($7 is null or model = $7) \
     and ($8 is null or agent_id is not distinct from $8) \
     and ($9 is null or session_id is not distinct from $9) \
     and ($10 is null or policy_result = $10) \
     and (not $11 or error_code is not null) as matches from usage_entries \
     where tenant_id = $1 and integration_id = scanned.integration_id \
     and occurred_at between $3 and $4 and (occurred_at, entry_id) < ($5, $6) \
     order by occurred_at desc, entry_id desc limit $12::bigint + $13::bigint) newest) counted \
     where matches or skipped = $13 limit $12) found";
const BY_MODEL: &str = "select found.occurred_at, found.entry_id, found.matches \
     from unnest($2::bigint[]) as scanned (integration_id) cross join lateral \
     (select occurred_at, entry_id, matches from (select occurred_at, entry_id, matches, \
     count(*) filter (where not matches) \
     over (order by occurred_at desc, entry_id desc rows unbounded preceding) as skipped \
     from (select occurred_at, entry_id, ($8 is null or agent_id is not distinct from $8) \
     and ($9 is null or session_id is not distinct from $9) \
     and ($10 is null or policy_result = $10) \
     and (not $11 or error_code is not null) as matches from usage_entries \
     where tenant_id = $1 and integration_id = scanned.integration_id and model = $7 \
     and occurred_at between $3 and $4 and (occurred_at, entry_id) < ($5, $6) \
     order by occurred_at desc, entry_id desc limit $12::bigint + $13::bigint) newest) counted \
     where matches or skipped = $13 limit $12) found";
const BY_AGENT: &str = "select occurred_at, entry_id, matches \
     from (select occurred_at, entry_id, matches, count(*) filter (where not matches) \
     over (order by occurred_at desc, entry_id desc rows unbounded preceding) as skipped \
     from (select occurred_at, entry_id, \
     (cardinality($2::bigint[]) = 0 or integration_id = any ($2)) and ($7 is null or model = $7) \
     and ($9 is null or session_id is not distinct from $9) \
     and ($10 is null or policy_result = $10) \
     and (not $11 or error_code is not null) as matches from usage_entries \
     where tenant_id = $1 and agent_id = $8 \
     and occurred_at between $3 and $4 and (occurred_at, entry_id) < ($5, $6) \
     order by occurred_at desc, entry_id desc limit $12::bigint + $13::bigint) newest) counted \
     where matches or skipped = $13 limit $12";
const BY_SESSION: &str = "select occurred_at, entry_id, matches \
     from (select occurred_at, entry_id, matches, count(*) filter (where not matches) \
     over (order by occurred_at desc, entry_id desc rows unbounded preceding) as skipped \
     from (select occurred_at, entry_id, \
     (cardinality($2::bigint[]) = 0 or integration_id = any ($2)) and ($7 is null or model = $7) \
     and ($8 is null or agent_id is not distinct from $8) \
     and ($10 is null or policy_result = $10) \
     and (not $11 or error_code is not null) as matches from usage_entries \
     where tenant_id = $1 and session_id = $9 \
     and occurred_at between $3 and $4 and (occurred_at, entry_id) < ($5, $6) \
     order by occurred_at desc, entry_id desc limit $12::bigint + $13::bigint) newest) counted \
     where matches or skipped = $13 limit $12";
const FAILED: &str = "select occurred_at, entry_id, matches \
     from (select occurred_at, entry_id, matches, count(*) filter (where not matches) \
     over (order by occurred_at desc, entry_id desc rows unbounded preceding) as skipped \
     from (select occurred_at, entry_id, \
     (cardinality($2::bigint[]) = 0 or integration_id = any ($2)) and ($7 is null or model = $7) \
     and ($8 is null or agent_id is not distinct from $8) \
     and ($9 is null or session_id is not distinct from $9) \
     and ($10 is null or policy_result = $10) as matches from usage_entries \
     where tenant_id = $1 and error_code is not null \
     and occurred_at between $3 and $4 and (occurred_at, entry_id) < ($5, $6) \
     order by occurred_at desc, entry_id desc limit $12::bigint + $13::bigint) newest) counted \
     where matches or skipped = $13 limit $12";
const NOT_ALLOWED: &str = "select occurred_at, entry_id, matches \
     from (select occurred_at, entry_id, matches, count(*) filter (where not matches) \
     over (order by occurred_at desc, entry_id desc rows unbounded preceding) as skipped \
     from (select occurred_at, entry_id, \
     (cardinality($2::bigint[]) = 0 or integration_id = any ($2)) and ($7 is null or model = $7) \
     and ($8 is null or agent_id is not distinct from $8) \
     and ($9 is null or session_id is not distinct from $9) \
     and (not $11 or error_code is not null) as matches from usage_entries \
     where tenant_id = $1 and policy_result = $10 and policy_result <> 1 \
     and occurred_at between $3 and $4 and (occurred_at, entry_id) < ($5, $6) \
     order by occurred_at desc, entry_id desc limit $12::bigint + $13::bigint) newest) counted \
     where matches or skipped = $13 limit $12";
/// The entries of a page, until their texts exceed the limit. With `limit 1`, the planner looks up
/// each entry by its key.
const SELECT_ENTRIES: &str = concat!(
    "with fitting as materialized (select entry_id from \
     (select wanted.entry_id, sum(sized.bytes) over \
     (order by wanted.position rows between unbounded preceding and 1 preceding) as bytes_before \
     from unnest($2::bigint[]) with ordinality as wanted (entry_id, position) cross join lateral \
     (select ",
    entry_columns!(entry_text_bytes),
    " as bytes from usage_entries where tenant_id = $1 and entry_id = wanted.entry_id limit 1) sized) page \
     where coalesce(bytes_before, 0) <= $3) select ",
    entry_columns!(entry_names, "e."),
    " from fitting cross join lateral (select ",
    entry_columns!(entry_names),
    " from usage_entries where tenant_id = $1 and entry_id = fitting.entry_id limit 1) e"
);

#[async_trait]
impl HistoryReads for PostgresStore {
    async fn usage_history(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
        part: HistoryPart,
    ) -> Result<HistoryPage, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                usage_history(&db, tenant_id, &filter, part.into()).await
            })
            .await
    }

    async fn export_page(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
    ) -> Result<HistoryPage, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                usage_history(&db, tenant_id, &filter, PageLimits::EXPORT).await
            })
            .await
    }
}

/// A page within these limits.
pub(super) async fn usage_history(
    reader: &Reader,
    tenant_id: TenantId,
    filter: &HistoryFilter,
    limits: PageLimits,
) -> Result<HistoryPage, StoreError> {
    let db = reader.client()?;
    let index = HistoryIndex::of(filter);
    let only = filter.integration_id;
    let (integrations, ()) = try_join!(
        async {
            if index.is_of_integration() {
                integrations(db, tenant_id, only).await
            } else {
                Ok(only.map(IntegrationId::number).into_iter().collect())
            }
        },
        reader.set(PLANS),
    )?;
    let positions = if index.is_of_integration() {
        let mut merge = HistoryMerge::new(limits, integrations.len());
        let (mut left, mut at_once) = (integrations.as_slice(), SCANS_FIRST);
        while !left.is_empty() {
            let (these, others) = left.split_at(at_once.min(left.len()));
            scan(db, tenant_id, these, (index, filter), &mut merge).await?;
            (left, at_once) = (others, at_once * 2);
        }
        merge.finish()
    } else {
        let mut merge = HistoryMerge::new(limits, 1);
        scan(db, tenant_id, &integrations, (index, filter), &mut merge).await?;
        merge.finish()
    };
    entries(reader, tenant_id, positions).await
}

/// The statement that scans an index.
const fn scan_sql(index: HistoryIndex) -> &'static str {
    match index {
        HistoryIndex::Time => BY_TIME,
        HistoryIndex::Model => BY_MODEL,
        HistoryIndex::Agent => BY_AGENT,
        HistoryIndex::Session => BY_SESSION,
        HistoryIndex::Failed => FAILED,
        HistoryIndex::NotAllowed => NOT_ALLOWED,
    }
}

/// The numbers of a tenant's integrations, deleted ones included, or of only one.
pub(super) async fn integrations(
    db: &Client,
    tenant_id: TenantId,
    only: Option<IntegrationId>,
) -> Result<Vec<i64>, StoreError> {
    let (tenant, only) = (tenant_id.number(), only.map(IntegrationId::number));
    fetch_all(db, INTEGRATIONS, params![tenant, only], |row| row.int(0)).await
}

/// Scans an index, and adds the matching entries to the page.
///
/// An index by integration is scanned for each of `integrations`. Any other index is scanned once,
/// and `integrations` is a filter; if it is empty, all integrations match.
async fn scan(
    db: &Client,
    tenant_id: TenantId,
    integrations: &[i64],
    (index, filter): (HistoryIndex, &HistoryFilter),
    merge: &mut HistoryMerge,
) -> Result<(), StoreError> {
    let range = merge.range(filter);
    let found = fetch_all(
        db,
        scan_sql(index),
        params![
            tenant_id.number(),
            integrations.to_vec(),
            range.first_at,
            range.last_at,
            range.after_at,
            range.after_id,
            filter.model.as_deref(),
            filter.agent_id.as_deref(),
            filter.session_id.as_deref(),
            filter.policy_result.map(codec::policy_code),
            filter.errors_only,
            as_stored(merge.wanted()),
            as_stored(merge.skipped_max()),
        ],
        found_position,
    )
    .await?;
    for (position, matches) in found {
        if matches {
            merge.add_match(position);
        } else {
            merge.stopped_at(position);
        }
    }
    merge.keep_newest();
    Ok(())
}

fn as_stored(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn found_position(row: &Row) -> Result<(HistoryPosition, bool), StoreError> {
    Ok((decode::history_position(row)?, row.flag(2)?))
}

/// Reads the entries of a page.
async fn entries(
    db: &Reader,
    tenant_id: TenantId,
    positions: PagePositions,
) -> Result<HistoryPage, StoreError> {
    if positions.list.is_empty() {
        return positions.read(|_| Ok(None));
    }
    let ids: Vec<i64> = positions.list.iter().map(|position| position.entry_id.number()).collect();
    let (tenant, fitting) = (tenant_id.number(), as_stored(positions.bytes_max()));
    let key = params![tenant, ids, fitting];
    let rows = fetch_list(db, SELECT_ENTRIES, key, decode::usage_row).await?;
    let mut rows: HashMap<EntryId, _> = rows.into_iter().map(|row| (row.entry_id, row)).collect();
    positions.read(|entry_id| Ok(rows.remove(&entry_id)))
}
