//! The walks of the history: a statement for each index that leads.
//!
//! A walk ends in the database: it reads entries by its index until enough of them match or too
//! many did not, and sends only those that match and the one at which it gave up. A tenant's
//! integrations are walked a few at a time and then twice as many: once the newest entries of some
//! are known, the others are asked only for what is newer.

use super::open::PostgresStore;
use crate::read::entries::{HistoryPart, HistoryReads};
use async_trait::async_trait;
use std::collections::HashMap;

use bursar_core::{EntryId, IntegrationId, TenantId};
use tokio::try_join;
use tokio_postgres::{Client, Row};

use super::ask::{listed, rows};
use super::readers::Reader;
use super::tx::params;
use crate::error::StoreError;
use crate::read::entries::{HistoryFilter, HistoryPage, HistoryPosition};
use crate::read::history::{Cut, Merge, Picked, Way};
use crate::rows::codec;
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::decode;
use crate::rows::entry_columns::entry_columns;

/// Integrations that are walked first.
const WALKS_FIRST: usize = 4;

/// Whatever the statistics say, an index leads and nothing is sorted.
const PLANS: &str =
    "set local enable_sort = off; set local enable_bitmapscan = off; set local jit = off";

const INTEGRATIONS: &str = "select integration_id from integrations \
     where tenant_id = $1 and ($2 is null or integration_id = $2) order by integration_id";
const BY_TIME: &str = "select found.occurred_at, found.entry_id, found.matches \
     from unnest($2::bigint[]) as walked (integration_id) cross join lateral \
     (select occurred_at, entry_id, matches from (select occurred_at, entry_id, matches, \
     count(*) filter (where not matches) \
     over (order by occurred_at desc, entry_id desc rows unbounded preceding) as passed \
     from (select occurred_at, entry_id, ($7 is null or model = $7) \
     and ($8 is null or agent_id is not distinct from $8) \
     and ($9 is null or session_id is not distinct from $9) \
     and ($10 is null or policy_result = $10) \
     and (not $11 or error_code is not null) as matches from usage_entries \
     where tenant_id = $1 and integration_id = walked.integration_id \
     and occurred_at between $3 and $4 and (occurred_at, entry_id) < ($5, $6) \
     order by occurred_at desc, entry_id desc limit $12::bigint + $13::bigint) newest) counted \
     where matches or passed = $13 limit $12) found";
const BY_MODEL: &str = "select found.occurred_at, found.entry_id, found.matches \
     from unnest($2::bigint[]) as walked (integration_id) cross join lateral \
     (select occurred_at, entry_id, matches from (select occurred_at, entry_id, matches, \
     count(*) filter (where not matches) \
     over (order by occurred_at desc, entry_id desc rows unbounded preceding) as passed \
     from (select occurred_at, entry_id, ($8 is null or agent_id is not distinct from $8) \
     and ($9 is null or session_id is not distinct from $9) \
     and ($10 is null or policy_result = $10) \
     and (not $11 or error_code is not null) as matches from usage_entries \
     where tenant_id = $1 and integration_id = walked.integration_id and model = $7 \
     and occurred_at between $3 and $4 and (occurred_at, entry_id) < ($5, $6) \
     order by occurred_at desc, entry_id desc limit $12::bigint + $13::bigint) newest) counted \
     where matches or passed = $13 limit $12) found";
const BY_AGENT: &str = "select occurred_at, entry_id, matches \
     from (select occurred_at, entry_id, matches, count(*) filter (where not matches) \
     over (order by occurred_at desc, entry_id desc rows unbounded preceding) as passed \
     from (select occurred_at, entry_id, \
     (cardinality($2::bigint[]) = 0 or integration_id = any ($2)) and ($7 is null or model = $7) \
     and ($9 is null or session_id is not distinct from $9) \
     and ($10 is null or policy_result = $10) \
     and (not $11 or error_code is not null) as matches from usage_entries \
     where tenant_id = $1 and agent_id = $8 \
     and occurred_at between $3 and $4 and (occurred_at, entry_id) < ($5, $6) \
     order by occurred_at desc, entry_id desc limit $12::bigint + $13::bigint) newest) counted \
     where matches or passed = $13 limit $12";
const BY_SESSION: &str = "select occurred_at, entry_id, matches \
     from (select occurred_at, entry_id, matches, count(*) filter (where not matches) \
     over (order by occurred_at desc, entry_id desc rows unbounded preceding) as passed \
     from (select occurred_at, entry_id, \
     (cardinality($2::bigint[]) = 0 or integration_id = any ($2)) and ($7 is null or model = $7) \
     and ($8 is null or agent_id is not distinct from $8) \
     and ($10 is null or policy_result = $10) \
     and (not $11 or error_code is not null) as matches from usage_entries \
     where tenant_id = $1 and session_id = $9 \
     and occurred_at between $3 and $4 and (occurred_at, entry_id) < ($5, $6) \
     order by occurred_at desc, entry_id desc limit $12::bigint + $13::bigint) newest) counted \
     where matches or passed = $13 limit $12";
const FAILED: &str = "select occurred_at, entry_id, matches \
     from (select occurred_at, entry_id, matches, count(*) filter (where not matches) \
     over (order by occurred_at desc, entry_id desc rows unbounded preceding) as passed \
     from (select occurred_at, entry_id, \
     (cardinality($2::bigint[]) = 0 or integration_id = any ($2)) and ($7 is null or model = $7) \
     and ($8 is null or agent_id is not distinct from $8) \
     and ($9 is null or session_id is not distinct from $9) \
     and ($10 is null or policy_result = $10) as matches from usage_entries \
     where tenant_id = $1 and error_code is not null \
     and occurred_at between $3 and $4 and (occurred_at, entry_id) < ($5, $6) \
     order by occurred_at desc, entry_id desc limit $12::bigint + $13::bigint) newest) counted \
     where matches or passed = $13 limit $12";
const NOT_ALLOWED: &str = "select occurred_at, entry_id, matches \
     from (select occurred_at, entry_id, matches, count(*) filter (where not matches) \
     over (order by occurred_at desc, entry_id desc rows unbounded preceding) as passed \
     from (select occurred_at, entry_id, \
     (cardinality($2::bigint[]) = 0 or integration_id = any ($2)) and ($7 is null or model = $7) \
     and ($8 is null or agent_id is not distinct from $8) \
     and ($9 is null or session_id is not distinct from $9) \
     and (not $11 or error_code is not null) as matches from usage_entries \
     where tenant_id = $1 and policy_result = $10 and policy_result <> 1 \
     and occurred_at between $3 and $4 and (occurred_at, entry_id) < ($5, $6) \
     order by occurred_at desc, entry_id desc limit $12::bigint + $13::bigint) newest) counted \
     where matches or passed = $13 limit $12";
/// The entries of a page, as far as the texts of those before leave room. Each is looked up by its
/// key (`limit 1` keeps it so).
const SELECT_ENTRIES: &str = concat!(
    "with fitting as materialized (select entry_id from \
     (select asked.entry_id, sum(sized.bytes) \
     over (order by asked.place rows between unbounded preceding and 1 preceding) as bytes_before \
     from unnest($2::bigint[]) with ordinality as asked (entry_id, place) cross join lateral \
     (select coalesce(octet_length(metadata), 0) + coalesce(octet_length(error_message), 0) as bytes \
     from usage_entries where tenant_id = $1 and entry_id = asked.entry_id limit 1) sized) page \
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
                usage_history(&db, tenant_id, &filter, Cut::EXPORT).await
            })
            .await
    }
}

/// A page, whose texts have at most about so many bytes.
pub(super) async fn usage_history(
    reader: &Reader,
    tenant_id: TenantId,
    filter: &HistoryFilter,
    cut: Cut,
) -> Result<HistoryPage, StoreError> {
    let db = reader.client()?;
    let way = Way::of(filter);
    let only = filter.integration_id;
    let (integrations, ()) = try_join!(
        async {
            if way.is_of_integration() {
                integrations(db, tenant_id, only).await
            } else {
                Ok(only.map(IntegrationId::number).into_iter().collect())
            }
        },
        reader.set(PLANS),
    )?;
    let picked = if way.is_of_integration() {
        let mut merge = Merge::new(cut, integrations.len());
        let (mut left, mut at_once) = (integrations.as_slice(), WALKS_FIRST);
        while !left.is_empty() {
            let (these, others) = left.split_at(at_once.min(left.len()));
            walk(db, tenant_id, these, (way, filter), &mut merge).await?;
            (left, at_once) = (others, at_once * 2);
        }
        merge.into_picked()
    } else {
        let mut merge = Merge::new(cut, 1);
        walk(db, tenant_id, &integrations, (way, filter), &mut merge).await?;
        merge.into_picked()
    };
    entries(reader, tenant_id, picked).await
}

/// The statement that walks an index.
const fn walk_sql(way: Way) -> &'static str {
    match way {
        Way::Time => BY_TIME,
        Way::Model => BY_MODEL,
        Way::Agent => BY_AGENT,
        Way::Session => BY_SESSION,
        Way::Failed => FAILED,
        Way::NotAllowed => NOT_ALLOWED,
    }
}

/// The integrations of a tenant, deleted ones included, or only this one; as they are stored.
pub(super) async fn integrations(
    db: &Client,
    tenant_id: TenantId,
    only: Option<IntegrationId>,
) -> Result<Vec<i64>, StoreError> {
    let (tenant, only) = (tenant_id.number(), only.map(IntegrationId::number));
    rows(db, INTEGRATIONS, params![tenant, only], |row| row.int(0)).await
}

/// Walks through each of these integrations; by an index that is not theirs, through all entries
/// but lets only these through, or any when none is named.
async fn walk(
    db: &Client,
    tenant_id: TenantId,
    integrations: &[i64],
    (way, filter): (Way, &HistoryFilter),
    merge: &mut Merge,
) -> Result<(), StoreError> {
    let stretch = merge.stretch(filter);
    let found = rows(
        db,
        walk_sql(way),
        params![
            tenant_id.number(),
            integrations.to_vec(),
            stretch.first_at,
            stretch.last_at,
            stretch.after_at,
            stretch.after_id,
            filter.model.as_deref(),
            filter.agent_id.as_deref(),
            filter.session_id.as_deref(),
            filter.policy_result.map(codec::policy_code),
            filter.errors_only,
            as_stored(merge.wanted()),
            as_stored(merge.passed_max()),
        ],
        step,
    )
    .await?;
    for (place, matches) in found {
        if matches {
            merge.found(place);
        } else {
            merge.gave_up(place);
        }
    }
    merge.settle();
    Ok(())
}

fn as_stored(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn step(row: &Row) -> Result<(HistoryPosition, bool), StoreError> {
    Ok((decode::history_position(row)?, row.flag(2)?))
}

/// Reads the entries of a page.
async fn entries(
    db: &Reader,
    tenant_id: TenantId,
    picked: Picked,
) -> Result<HistoryPage, StoreError> {
    if picked.places.is_empty() {
        return picked.page(|_| Ok(None));
    }
    let ids: Vec<i64> = picked.places.iter().map(|place| place.entry_id.number()).collect();
    let (tenant, fitting) = (tenant_id.number(), as_stored(picked.bytes_max()));
    let key = params![tenant, ids, fitting];
    let rows = listed(db, SELECT_ENTRIES, key, decode::usage_row).await?;
    let mut rows: HashMap<EntryId, _> = rows.into_iter().map(|row| (row.entry_id, row)).collect();
    picked.page(|entry_id| Ok(rows.remove(&entry_id)))
}
