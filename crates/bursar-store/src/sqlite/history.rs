//! The history of entries, newest first, a page at a time.
//!
//! One integration is a walk along one index. A whole tenant is the merge of its integrations: of
//! each only so many places are read as can still be on the page, and the rows only of those that
//! are.

use bursar_core::{EntryId, IntegrationId, Nanos, TenantId, Timestamp, TokenBuckets};
use rusqlite::{Connection, Row, named_params, params};

use super::load::get;
use super::store_error;
use crate::codec::{self, id, timestamp};
use crate::error::StoreError;
use crate::query::{HistoryFilter, HistoryPlace, Page};
use crate::row::UsageRow;

const INTEGRATIONS: &str = "select integration_id from integrations \
     where tenant_id = :tenant and (:integration is null or integration_id = :integration)";
const PLACES: &str = "select occurred_at, entry_id from usage_entries \
     where tenant_id = :tenant and integration_id = :integration \
     and occurred_at >= :start and occurred_at < :end \
     and (occurred_at, entry_id) < (:after_at, :after_id) \
     and (:model is null or model = :model) \
     and (:agent is null or agent_id = :agent) \
     and (:session is null or session_id = :session) \
     and (:policy is null or policy_result = :policy) \
     and (:errors_only = 0 or error_code is not null) \
     order by occurred_at desc, entry_id desc limit :limit";
const SELECT_ENTRY: &str = "select entry_id, integration_id, kind, call_id, session_id, agent_id, \
     provider, model, tokens_in, tokens_out, tokens_cache_read, tokens_cache_write, \
     tokens_reasoning, cost_nanos, cost_source, reported_cost_nanos, computed_cost_nanos, \
     latency_ms, policy_result, error_code, error_message, metadata, occurred_at, created_at, \
     usage_status from usage_entries where entry_id = ?1 and tenant_id = ?2";

pub(super) fn usage_history(
    db: &Connection,
    tenant_id: TenantId,
    filter: &HistoryFilter,
    page: Page,
) -> Result<Vec<UsageRow>, StoreError> {
    let wanted = page.offset as usize + page.limit as usize;
    let mut places: Vec<HistoryPlace> = Vec::new();
    for integration_id in integrations(db, tenant_id, filter.integration_id)? {
        // Once the page is full, only what is newer than its last place matters.
        let floor = places.get(wanted.wrapping_sub(1)).map(|place| place.occurred_at);
        collect_places(db, tenant_id, integration_id, filter, floor, wanted, &mut places)?;
        places.sort_unstable_by(|a, b| b.cmp(a));
        places.truncate(wanted);
    }
    let mut statement = db.prepare_cached(SELECT_ENTRY).map_err(store_error)?;
    let mut rows = Vec::with_capacity(page.limit as usize);
    for place in places.iter().skip(page.offset as usize) {
        let mut found = statement
            .query(params![place.entry_id.number(), tenant_id.number()])
            .map_err(store_error)?;
        if let Some(row) = found.next().map_err(store_error)? {
            rows.push(usage_row(row)?);
        }
    }
    Ok(rows)
}

fn integrations(
    db: &Connection,
    tenant_id: TenantId,
    only: Option<IntegrationId>,
) -> Result<Vec<IntegrationId>, StoreError> {
    let mut statement = db.prepare_cached(INTEGRATIONS).map_err(store_error)?;
    let key = named_params! {
        ":tenant": tenant_id.number(),
        ":integration": only.map(IntegrationId::number),
    };
    let mut rows = statement.query(key).map_err(store_error)?;
    let mut ids = Vec::new();
    while let Some(row) = rows.next().map_err(store_error)? {
        ids.push(id(IntegrationId::from_number, get(row, 0)?)?);
    }
    Ok(ids)
}

fn collect_places(
    db: &Connection,
    tenant_id: TenantId,
    integration_id: IntegrationId,
    filter: &HistoryFilter,
    floor: Option<Timestamp>,
    limit: usize,
    places: &mut Vec<HistoryPlace>,
) -> Result<(), StoreError> {
    let start = filter.start.max(floor).unwrap_or(Timestamp::MIN);
    let end = filter.end.map_or(i64::MAX, Timestamp::micros);
    let after_at = filter.after.map_or(i64::MAX, |place| place.occurred_at.micros());
    let after_id = filter.after.map_or(i64::MAX, |place| place.entry_id.number());
    let mut statement = db.prepare_cached(PLACES).map_err(store_error)?;
    let key = named_params! {
        ":tenant": tenant_id.number(),
        ":integration": integration_id.number(),
        ":start": start.micros(),
        ":end": end,
        ":after_at": after_at,
        ":after_id": after_id,
        ":model": filter.model,
        ":agent": filter.agent_id,
        ":session": filter.session_id,
        ":policy": filter.policy_result.map(codec::policy_code),
        ":errors_only": i64::from(filter.errors_only),
        ":limit": i64::try_from(limit).unwrap_or(i64::MAX),
    };
    let mut rows = statement.query(key).map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        places.push(HistoryPlace {
            occurred_at: timestamp(get(row, 0)?)?,
            entry_id: id(EntryId::from_number, get(row, 1)?)?,
        });
    }
    Ok(())
}

fn usage_row(row: &Row<'_>) -> Result<UsageRow, StoreError> {
    let tokens =
        TokenBuckets::new(get(row, 8)?, get(row, 9)?, get(row, 10)?, get(row, 11)?, get(row, 12)?)
            .map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok(UsageRow {
        entry_id: id(EntryId::from_number, get(row, 0)?)?,
        integration_id: id(IntegrationId::from_number, get(row, 1)?)?,
        kind: codec::kind(get(row, 2)?)?,
        call_id: get(row, 3)?,
        session_id: get(row, 4)?,
        agent_id: get(row, 5)?,
        provider: get(row, 6)?,
        model: get(row, 7)?,
        tokens,
        cost: Nanos::new(get(row, 13)?),
        cost_source: codec::cost_source(get(row, 14)?)?,
        reported_cost: get::<Option<i64>>(row, 15)?.map(Nanos::new),
        computed_cost: get::<Option<i64>>(row, 16)?.map(Nanos::new),
        usage_status: codec::usage_status(get(row, 24)?)?,
        latency_ms: get(row, 17)?,
        policy_result: codec::policy(get(row, 18)?)?,
        error_code: get(row, 19)?,
        error_message: get(row, 20)?,
        metadata: get(row, 21)?,
        occurred_at: timestamp(get(row, 22)?)?,
        created_at: timestamp(get(row, 23)?)?,
    })
}
