//! The history of entries, newest first, a page at a time.
//!
//! Each filter has an index to walk from the newest entry to the oldest; the other filters are
//! looked at on the way. Without a filter, or by model, a whole tenant is the merge of its
//! integrations. How many entries a page may look at is bounded, so that two filters that seldom
//! meet cost one page no more than any other: the page then ends early and says where to go on.

use bursar_core::{EntryId, IntegrationId, Nanos, PolicyResult, TenantId, TokenBuckets};
use rusqlite::{Connection, Row, named_params, params};

use super::load::get;
use super::store_error;
use crate::codec::{self, id, timestamp};
use crate::error::StoreError;
use crate::query::{HistoryFilter, HistoryPage, HistoryPlace, Page};
use crate::row::UsageRow;

/// Entries that one page passes over, shared by the walks that are merged.
const PASSED_MAX: usize = 20_000;
/// Entries that each walk may pass over, however many there are.
const PASSED_MIN: usize = 50;
/// Bytes of metadata and messages after which a page ends, so that a page fits into memory whatever
/// its entries carry.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

const INTEGRATIONS: &str = "select integration_id from integrations \
     where tenant_id = :tenant and (:integration is null or integration_id = :integration)";
const BY_TIME: &str = "select occurred_at, entry_id, (:model is null or model = :model) \
     and (:agent is null or agent_id is :agent) and (:session is null or session_id is :session) \
     and (:policy is null or policy_result = :policy) \
     and (:errors_only = 0 or error_code is not null) \
     from usage_entries indexed by usage_entries_by_time \
     where tenant_id = :tenant and integration_id = :integration \
     and occurred_at between :first_at and :last_at \
     and (occurred_at, entry_id) < (:after_at, :after_id) \
     order by occurred_at desc, entry_id desc";
const BY_MODEL: &str = "select occurred_at, entry_id, (:agent is null or agent_id is :agent) \
     and (:session is null or session_id is :session) \
     and (:policy is null or policy_result = :policy) \
     and (:errors_only = 0 or error_code is not null) \
     from usage_entries indexed by usage_entries_by_model \
     where tenant_id = :tenant and integration_id = :integration and model = :model \
     and occurred_at between :first_at and :last_at \
     and (occurred_at, entry_id) < (:after_at, :after_id) \
     order by occurred_at desc, entry_id desc";
const BY_AGENT: &str = "select occurred_at, entry_id, \
     (:integration is null or integration_id = :integration) \
     and (:model is null or model = :model) and (:session is null or session_id is :session) \
     and (:policy is null or policy_result = :policy) \
     and (:errors_only = 0 or error_code is not null) \
     from usage_entries indexed by usage_entries_by_agent \
     where tenant_id = :tenant and agent_id = :agent \
     and occurred_at between :first_at and :last_at \
     and (occurred_at, entry_id) < (:after_at, :after_id) \
     order by occurred_at desc, entry_id desc";
const BY_SESSION: &str = "select occurred_at, entry_id, \
     (:integration is null or integration_id = :integration) \
     and (:model is null or model = :model) and (:agent is null or agent_id is :agent) \
     and (:policy is null or policy_result = :policy) \
     and (:errors_only = 0 or error_code is not null) \
     from usage_entries indexed by usage_entries_by_session \
     where tenant_id = :tenant and session_id = :session \
     and occurred_at between :first_at and :last_at \
     and (occurred_at, entry_id) < (:after_at, :after_id) \
     order by occurred_at desc, entry_id desc";
const FAILED: &str = "select occurred_at, entry_id, \
     (:integration is null or integration_id = :integration) \
     and (:model is null or model = :model) and (:agent is null or agent_id is :agent) \
     and (:session is null or session_id is :session) \
     and (:policy is null or policy_result = :policy) and :errors_only <> 0 \
     from usage_entries indexed by usage_entries_failed \
     where tenant_id = :tenant and error_code is not null \
     and occurred_at between :first_at and :last_at \
     and (occurred_at, entry_id) < (:after_at, :after_id) \
     order by occurred_at desc, entry_id desc";
const NOT_ALLOWED: &str = "select occurred_at, entry_id, \
     (:integration is null or integration_id = :integration) \
     and (:model is null or model = :model) and (:agent is null or agent_id is :agent) \
     and (:session is null or session_id is :session) \
     and (:errors_only = 0 or error_code is not null) \
     from usage_entries indexed by usage_entries_not_allowed \
     where tenant_id = :tenant and policy_result = :policy and policy_result <> 1 \
     and occurred_at between :first_at and :last_at \
     and (occurred_at, entry_id) < (:after_at, :after_id) \
     order by occurred_at desc, entry_id desc";
const SELECT_ENTRY: &str = "select entry_id, integration_id, kind, call_id, session_id, agent_id, \
     provider, model, tokens_in, tokens_out, tokens_cache_read, tokens_cache_write, \
     tokens_reasoning, cost_nanos, cost_source, reported_cost_nanos, computed_cost_nanos, \
     latency_ms, policy_result, error_code, error_message, metadata, occurred_at, created_at, \
     usage_status from usage_entries where entry_id = ?1 and tenant_id = ?2";

/// One way through an index, from the newest entry to the oldest.
struct Walk {
    sql: &'static str,
    /// The integration that it is about, or that it lets through.
    integration_id: Option<IntegrationId>,
}

pub(super) fn usage_history(
    db: &Connection,
    tenant_id: TenantId,
    filter: &HistoryFilter,
    page: Page,
) -> Result<HistoryPage, StoreError> {
    let last = page.offset as usize + page.limit as usize;
    // One more than asked for tells whether there is more.
    let wanted = last + 1;
    let walks = walks(db, tenant_id, filter)?;
    let passed_max = (PASSED_MAX / walks.len().max(1)).max(PASSED_MIN);
    let mut places: Vec<HistoryPlace> = Vec::new();
    let mut horizon: Option<HistoryPlace> = None;
    for walk in &walks {
        // Once the page is full, or ends early, only what is newer than its last place matters.
        let floor = places.get(wanted - 1).copied().max(horizon);
        let mut found = Found { wanted, passed_max, places: &mut places };
        horizon = horizon.max(found.walk(db, tenant_id, filter, walk, floor)?);
        places.sort_unstable_by(|a, b| b.cmp(a));
        places.truncate(wanted);
    }
    // Beyond the first place where a walk gave up, others may have what it did not come to.
    places.retain(|place| horizon.is_none_or(|horizon| *place >= horizon));
    let next = match places.get(last) {
        Some(_) => last.checked_sub(1).and_then(|at| places.get(at)).copied(),
        None => horizon,
    };
    places.truncate(last);
    let places = places.get(page.offset as usize..).unwrap_or_default();
    let (rows, full) = rows(db, tenant_id, places)?;
    Ok(HistoryPage { rows, next: full.or(next) })
}

/// The walks that together meet every entry of a filter: the most selective index that it has.
fn walks(
    db: &Connection,
    tenant_id: TenantId,
    filter: &HistoryFilter,
) -> Result<Vec<Walk>, StoreError> {
    let one = |sql| Ok(vec![Walk { sql, integration_id: filter.integration_id }]);
    if filter.session_id.is_some() {
        return one(BY_SESSION);
    }
    if filter.errors_only {
        return one(FAILED);
    }
    if filter.policy_result.is_some_and(|policy| policy != PolicyResult::Allowed) {
        return one(NOT_ALLOWED);
    }
    if filter.agent_id.is_some() {
        return one(BY_AGENT);
    }
    let sql = if filter.model.is_some() { BY_MODEL } else { BY_TIME };
    let integrations = integrations(db, tenant_id, filter.integration_id)?;
    let walk = |integration_id| Walk { sql, integration_id: Some(integration_id) };
    Ok(integrations.into_iter().map(walk).collect())
}

/// The integrations of a tenant, deleted ones included, or only this one.
pub(super) fn integrations(
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

/// The places that were found so far, and how far to look for more.
struct Found<'a> {
    wanted: usize,
    passed_max: usize,
    places: &'a mut Vec<HistoryPlace>,
}

impl Found<'_> {
    /// Walks until there is enough; where it gave up, if it had to.
    fn walk(
        &mut self,
        db: &Connection,
        tenant_id: TenantId,
        filter: &HistoryFilter,
        walk: &Walk,
        floor: Option<HistoryPlace>,
    ) -> Result<Option<HistoryPlace>, StoreError> {
        let start = filter.start.max(floor.map(|place| place.occurred_at));
        let end = filter.end.map_or(i64::MAX, |end| end.micros().saturating_sub(1));
        let after = filter.after.map(|place| (place.occurred_at.micros(), place.entry_id.number()));
        let (after_at, after_id) = after.unwrap_or((i64::MAX, i64::MAX));
        let key = named_params! {
            ":tenant": tenant_id.number(),
            ":integration": walk.integration_id.map(IntegrationId::number),
            ":first_at": start.map_or(i64::MIN, |start| start.micros()),
            // The index begins where the last page ended; the pair only tells entries of one instant apart.
            ":last_at": end.min(after_at),
            ":after_at": after_at,
            ":after_id": after_id,
            ":model": filter.model,
            ":agent": filter.agent_id,
            ":session": filter.session_id,
            ":policy": filter.policy_result.map(codec::policy_code),
            ":errors_only": i64::from(filter.errors_only),
        };
        let mut statement = db.prepare_cached(walk.sql).map_err(store_error)?;
        let mut rows = statement.query(key).map_err(store_error)?;
        let (mut passed, mut matched) = (0, 0);
        while matched < self.wanted
            && let Some(row) = rows.next().map_err(store_error)?
        {
            let place = HistoryPlace {
                occurred_at: timestamp(get(row, 0)?)?,
                entry_id: id(EntryId::from_number, get(row, 1)?)?,
            };
            if get(row, 2)? {
                matched += 1;
                self.places.push(place);
                continue;
            }
            passed += 1;
            if passed >= self.passed_max {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }
}

/// The entries of these places; and the last one, if it was the last that a page has room for.
fn rows(
    db: &Connection,
    tenant_id: TenantId,
    places: &[HistoryPlace],
) -> Result<(Vec<UsageRow>, Option<HistoryPlace>), StoreError> {
    let mut statement = db.prepare_cached(SELECT_ENTRY).map_err(store_error)?;
    let mut rows: Vec<UsageRow> = Vec::with_capacity(places.len());
    let mut bytes = 0;
    for (at, place) in places.iter().enumerate() {
        let mut found = statement
            .query(params![place.entry_id.number(), tenant_id.number()])
            .map_err(store_error)?;
        if let Some(row) = found.next().map_err(store_error)? {
            let row = usage_row(row)?;
            let texts = [&row.metadata, &row.error_message];
            bytes += texts.into_iter().flatten().map(String::len).sum::<usize>();
            rows.push(row);
        }
        if bytes > PAGE_BYTES_MAX && at + 1 < places.len() {
            return Ok((rows, Some(*place)));
        }
    }
    Ok((rows, None))
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
