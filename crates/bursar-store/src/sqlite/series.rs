//! Usage by what took it, and step by step: from rollups, sessions from entries.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use bursar_core::{Day, IntegrationId, Nanos, TenantId, TokenBuckets};
use rusqlite::{Connection, OptionalExtension, Row, named_params};

use super::history::integrations;
use super::load::get;
use super::store_error;
use crate::breakdown::{
    Breakdown, BreakdownFilter, Group, GroupBy, Ranking, Series, SeriesFilter, Step,
};
use crate::codec::{self, id};
use crate::error::StoreError;
use crate::query::{CallFilter, CallLabel, CallOutcome, Sums};
use crate::rollup::{Grain, LATENCY_BUCKETS, LabelKind, OTHER, Rollup, RollupFacts};

const LIST_ROLLUPS: &str = "select i.integration_id, i.name, i.provider_type, r.start, r.provider, \
     r.label, r.calls, r.succeeded, r.errors, r.blocked, r.unpriced, r.tokens_in, r.tokens_out, \
     r.tokens_cache_read, r.tokens_cache_write, r.tokens_reasoning, r.cost_nanos, \
     r.latency_calls, r.latency_sum_ms, r.latency_00, r.latency_01, r.latency_02, r.latency_03, \
     r.latency_04, r.latency_05, r.latency_06, r.latency_07, r.latency_08, r.latency_09, \
     r.latency_10, r.latency_11, r.latency_12, r.latency_13, r.latency_14, r.latency_15 \
     from integrations i cross join rollups r \
     on r.tenant_id = i.tenant_id and r.integration_id = i.integration_id \
     where i.tenant_id = :tenant and (:integration is null or i.integration_id = :integration) \
     and r.grain = :grain and r.start between :first and :last";
const COUNT_CALLS: &str = "select coalesce(sum(r.calls), 0), coalesce(sum(r.errors), 0), \
     coalesce(sum(r.blocked), 0) from integrations i cross join rollups r \
     on r.tenant_id = i.tenant_id and r.integration_id = i.integration_id \
     where i.tenant_id = :tenant and (:integration is null or i.integration_id = :integration) \
     and r.grain = :grain and r.start between :first and :last \
     and (:label is null or r.label = :label)";
const HAS_LABEL: &str = "select 1 from rollup_labels \
     where tenant_id = :tenant and kind = :kind and label = :label limit 1";
const HAS_OTHER: &str = "select 1 from integrations i cross join rollups r \
     on r.tenant_id = i.tenant_id and r.integration_id = i.integration_id \
     where i.tenant_id = :tenant and (:integration is null or i.integration_id = :integration) \
     and r.grain = :grain and r.start between :first and :last \
     and r.provider = :other and r.label = :other limit 1";
const WALK_SESSIONS: &str = "select entry_id, session_id, cost_nanos \
     from usage_entries indexed by usage_entries_by_time \
     where tenant_id = :tenant and integration_id = :integration \
     and occurred_at >= :start and occurred_at < :end and session_id is not null";
const SESSION_OF: &str =
    "select session_id from usage_entries where entry_id = :entry and tenant_id = :tenant";
const SUM_SESSION: &str = "select kind, tokens_in, tokens_out, tokens_cache_read, \
     tokens_cache_write, tokens_reasoning, cost_nanos, cost_source, latency_ms, policy_result, \
     error_code is not null from usage_entries indexed by usage_entries_by_session \
     where tenant_id = :tenant and session_id = :session \
     and occurred_at >= :start and occurred_at < :end \
     and (:integration is null or integration_id = :integration)";

/// Sessions that one question tells apart, at about 50 bytes each.
const SESSIONS_MAX: usize = 500_000;

/// Whose rollups, and which.
#[derive(Clone, Copy)]
struct Wanted {
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
    grain: Grain,
    first: i32,
    last: i32,
}

/// A rollup as it is read.
struct Found {
    start: i32,
    integration_id: IntegrationId,
    name: String,
    provider_type: String,
    provider: String,
    label: String,
    rollup: Rollup,
}

impl Found {
    fn group(self, by: GroupBy) -> Group {
        let Self { integration_id, name, provider_type, provider, label, .. } = self;
        match by {
            GroupBy::Integration => Group::Integration { integration_id, name, provider_type },
            GroupBy::Model => Group::Model { provider, model: label },
            GroupBy::Provider => Group::Provider { provider },
            GroupBy::Agent => Group::Agent { agent_id: label },
            GroupBy::Session => Group::Session { session_id: label },
        }
    }
}

/// The rollup in a row from this column on.
pub(super) fn rollup(row: &Row<'_>, at: usize) -> Result<Rollup, StoreError> {
    let mut latency_buckets = [0; LATENCY_BUCKETS];
    for (bucket, at) in latency_buckets.iter_mut().zip(at + 13..) {
        *bucket = get(row, at)?;
    }
    Ok(Rollup {
        calls: get(row, at)?,
        succeeded: get(row, at + 1)?,
        errors: get(row, at + 2)?,
        blocked: get(row, at + 3)?,
        unpriced: get(row, at + 4)?,
        tokens_in: get(row, at + 5)?,
        tokens_out: get(row, at + 6)?,
        tokens_cache_read: get(row, at + 7)?,
        tokens_cache_write: get(row, at + 8)?,
        tokens_reasoning: get(row, at + 9)?,
        cost_nanos: get(row, at + 10)?,
        latency_calls: get(row, at + 11)?,
        latency_sum_ms: get(row, at + 12)?,
        latency_buckets,
    })
}

fn each(db: &Connection, wanted: Wanted, mut take: impl FnMut(Found)) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(LIST_ROLLUPS).map_err(store_error)?;
    let key = named_params! {
        ":tenant": wanted.tenant_id.number(),
        ":integration": wanted.integration_id.map(IntegrationId::number),
        ":grain": wanted.grain.code(),
        ":first": wanted.first,
        ":last": wanted.last,
    };
    let mut rows = statement.query(key).map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        take(Found {
            integration_id: id(IntegrationId::from_number, get(row, 0)?)?,
            name: get(row, 1)?,
            provider_type: get(row, 2)?,
            start: get(row, 3)?,
            provider: get(row, 4)?,
            label: get(row, 5)?,
            rollup: rollup(row, 6)?,
        });
    }
    Ok(())
}

pub(super) fn usage_breakdown(
    db: &Connection,
    tenant_id: TenantId,
    filter: BreakdownFilter,
) -> Result<Option<Breakdown>, StoreError> {
    let BreakdownFilter { by, integration_id, first, last, groups_max } = filter;
    let (first, last) = (first.number(), last.number());
    let days = Wanted { tenant_id, integration_id, grain: Grain::Day, first, last };
    let Some(grain) = by.day_grain() else {
        let Some(ranking) = sessions(db, tenant_id, &filter)? else { return Ok(None) };
        let groups = ranking.largest(groups_max);
        return Ok(Some(Breakdown { total: total(db, days)?, groups }));
    };
    let (mut sum, mut ranking) = (Sums::default(), Ranking::default());
    each(db, Wanted { grain, ..days }, |found| {
        let of_found = found.rollup;
        sum.add(&of_found);
        ranking.of(found.group(by)).add(&of_found);
    })?;
    // Calls without an agent are in the total all the same.
    let total = if grain == Grain::Day { sum } else { total(db, days)? };
    Ok(Some(Breakdown { total, groups: ranking.largest(groups_max) }))
}

fn total(db: &Connection, wanted: Wanted) -> Result<Sums, StoreError> {
    let mut sum = Sums::default();
    each(db, wanted, |found| sum.add(&found.rollup))?;
    Ok(sum)
}

/// The largest sessions. Their costs are added up in one walk over the entries, which keeps little
/// of each session; then the few that are shown are read in full.
fn sessions(
    db: &Connection,
    tenant_id: TenantId,
    filter: &BreakdownFilter,
) -> Result<Option<Ranking>, StoreError> {
    let start = filter.first.start().micros();
    let end = Day::from_number(filter.last.number() + 1).start().micros();
    let mut costs: HashMap<u64, SessionCost> = HashMap::new();
    let hasher = RandomState::new();
    let mut statement = db.prepare_cached(WALK_SESSIONS).map_err(store_error)?;
    for integration_id in integrations(db, tenant_id, filter.integration_id)? {
        let key = named_params! {
            ":tenant": tenant_id.number(),
            ":integration": integration_id.number(),
            ":start": start,
            ":end": end,
        };
        let mut rows = statement.query(key).map_err(store_error)?;
        while let Some(row) = rows.next().map_err(store_error)? {
            let session = row.get_ref(1).map_err(store_error)?;
            let session = session.as_bytes().map_err(|_| corrupt_session())?;
            let cost = costs.entry(hasher.hash_one(session)).or_default();
            cost.entry_number = get(row, 0)?;
            cost.calls += 1;
            cost.cost_nanos = cost.cost_nanos.saturating_add(get(row, 2)?);
            if costs.len() > SESSIONS_MAX {
                return Ok(None);
            }
        }
    }
    let mut largest: Vec<SessionCost> = costs.into_values().collect();
    largest.sort_unstable_by_key(|cost| Reverse((cost.cost_nanos, cost.calls, cost.entry_number)));
    let mut ranking = Ranking::default();
    for cost in largest.into_iter().take(filter.groups_max) {
        let mut statement = db.prepare_cached(SESSION_OF).map_err(store_error)?;
        let key = named_params! { ":entry": cost.entry_number, ":tenant": tenant_id.number() };
        let session: String = statement.query_row(key, |row| row.get(0)).map_err(store_error)?;
        let mut statement = db.prepare_cached(SUM_SESSION).map_err(store_error)?;
        let key = named_params! {
            ":tenant": tenant_id.number(),
            ":session": session,
            ":start": start,
            ":end": end,
            ":integration": filter.integration_id.map(IntegrationId::number),
        };
        let mut sum = Rollup::default();
        let mut rows = statement.query(key).map_err(store_error)?;
        while let Some(row) = rows.next().map_err(store_error)? {
            sum.add(&facts(row)?);
        }
        drop(rows);
        ranking.of(Group::Session { session_id: session }).add(&sum);
    }
    Ok(Some(ranking))
}

/// What a session cost so far, and one of its entries, by which it is found again.
#[derive(Clone, Copy, Default)]
struct SessionCost {
    entry_number: i64,
    calls: i64,
    cost_nanos: i64,
}

fn corrupt_session() -> StoreError {
    StoreError::Corrupt("a session that is no text".to_owned())
}

fn facts(row: &Row<'_>) -> Result<RollupFacts, StoreError> {
    let tokens =
        TokenBuckets::new(get(row, 1)?, get(row, 2)?, get(row, 3)?, get(row, 4)?, get(row, 5)?)
            .map_err(|error| StoreError::Corrupt(error.to_string()))?;
    Ok(RollupFacts {
        kind: codec::kind(get(row, 0)?)?,
        tokens,
        cost: Nanos::new(get(row, 6)?),
        cost_source: codec::cost_source(get(row, 7)?)?,
        latency_ms: get(row, 8)?,
        policy_result: codec::policy(get(row, 9)?)?,
        failed: get(row, 10)?,
    })
}

pub(super) fn usage_series(
    db: &Connection,
    tenant_id: TenantId,
    filter: SeriesFilter,
) -> Result<Series, StoreError> {
    let SeriesFilter { by, step, integration_id, first, last, groups_max } = filter;
    let mut series = Series::default();
    let mut places = HashMap::new();
    if let Some(by) = by {
        let breakdown = BreakdownFilter { by, integration_id, first, last, groups_max };
        for (place, (group, _)) in usage_breakdown(db, tenant_id, breakdown)?
            .unwrap_or_default()
            .groups
            .into_iter()
            .enumerate()
        {
            series.groups.push(group.clone());
            places.insert(group, place);
        }
    }
    let (first, last) = step.range(first, last);
    let steps = Wanted { tenant_id, integration_id, grain: step.grain(), first, last };
    let group_grain = by.and_then(GroupBy::day_grain);
    each(db, steps, |found| {
        let at = series.steps.entry(found.start).or_default();
        at.total.add(&found.rollup);
        let of_found = found.rollup;
        if let (Some(by), Some(Grain::Day)) = (by, group_grain)
            && let Some(place) = places.get(&found.group(by))
        {
            at.groups.entry(*place).or_default().add(&of_found);
        }
    })?;
    if let (Some(by), Some(grain @ Grain::AgentDay), Step::Day) = (by, group_grain, step) {
        each(db, Wanted { grain, ..steps }, |found| {
            let (start, of_found) = (found.start, found.rollup);
            if let Some(place) = places.get(&found.group(by)) {
                let at = series.steps.entry(start).or_default();
                at.groups.entry(*place).or_default().add(&of_found);
            }
        })?;
    }
    Ok(series)
}

pub(super) fn counted_calls(
    db: &Connection,
    tenant_id: TenantId,
    filter: &CallFilter,
) -> Result<Option<i64>, StoreError> {
    let (kind, grain, label) = match &filter.label {
        None => (LabelKind::Model, Grain::Day, None),
        Some(CallLabel::Model(model)) => (LabelKind::Model, Grain::Day, Some(model)),
        Some(CallLabel::Agent(agent)) => (LabelKind::Agent, Grain::AgentDay, Some(agent)),
    };
    if let Some(label) = label {
        let mut has = db.prepare_cached(HAS_LABEL).map_err(store_error)?;
        let key = named_params! {
            ":tenant": tenant_id.number(), ":kind": kind.code(), ":label": label,
        };
        let found: Option<i64> =
            has.query_row(key, |row| row.get(0)).optional().map_err(store_error)?;
        // What is called like the rest cannot be told from it.
        if found.is_none() || label == OTHER {
            return Ok(None);
        }
    }
    if let Some(CallLabel::Model(_)) = &filter.label {
        // Of some provider, the model may be counted as other.
        let mut has = db.prepare_cached(HAS_OTHER).map_err(store_error)?;
        let key = named_params! {
            ":tenant": tenant_id.number(),
            ":integration": filter.integration_id.map(IntegrationId::number),
            ":grain": grain.code(),
            ":first": filter.first.number(),
            ":last": filter.last.number(),
            ":other": OTHER,
        };
        if has.exists(key).map_err(store_error)? {
            return Ok(None);
        }
    }
    let mut count = db.prepare_cached(COUNT_CALLS).map_err(store_error)?;
    let key = named_params! {
        ":tenant": tenant_id.number(),
        ":integration": filter.integration_id.map(IntegrationId::number),
        ":grain": grain.code(),
        ":first": filter.first.number(),
        ":last": filter.last.number(),
        ":label": label,
    };
    let column = match filter.outcome {
        None => 0,
        Some(CallOutcome::Failed) => 1,
        Some(CallOutcome::Blocked) => 2,
    };
    count.query_row(key, |row| row.get(column)).map(Some).map_err(store_error)
}
