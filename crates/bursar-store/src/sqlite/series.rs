//! Reads breakdowns and series of usage: from rollups, and for sessions from entries.

use super::open::SqliteStore;
use crate::read::breakdown::{GroupBy, SeriesReads};
use async_trait::async_trait;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use bursar_core::{Day, IntegrationId, TenantId};
use rusqlite::{Connection, named_params};

use super::error::store_error;
use super::history::integrations;
use super::readers::Snapshot;
use crate::error::StoreError;
use crate::read::aggregate::{
    BreakdownAggregate, FoundRollup, LargestSessions, ROLLUPS_COUNTED_MAX, SESSIONS_MAX,
    SeriesAggregate, SessionCost, Span,
};
use crate::read::breakdown::CallFilter;
use crate::read::breakdown::{Breakdown, BreakdownFilter, Series, SeriesFilter};
use crate::read::sums::Sums;
use crate::rows::columns::Columns;
use crate::rows::decode::{self, fact_columns};
use crate::rows::rollup_columns::{Rollup, rollup_figures};
use crate::rows::rollup_labels::OTHER;

const LIST_ROLLUPS: &str = concat!(
    "select i.integration_id, i.name, i.provider_type, r.start, r.provider, r.label, ",
    rollup_figures!(report_names, "r."),
    " from integrations i cross join rollups r on r.tenant_id = i.tenant_id \
     and r.integration_id = i.integration_id where i.tenant_id = :tenant \
     and (:integration is null or i.integration_id = :integration) and r.grain = :grain \
     and r.start between :first and :last"
);
/// Also the number of rollups that were read, and whether one of them is for other labels.
const COUNT_CALLS: &str = "select \
     coalesce(sum(calls) filter (where :label is null or label = :label), 0), \
     coalesce(sum(errors) filter (where :label is null or label = :label), 0), \
     coalesce(sum(blocked) filter (where :label is null or label = :label), 0), \
     count(*), coalesce(max(provider = :other and label = :other), 0) \
     from (select r.provider, r.label, r.calls, r.errors, r.blocked \
     from integrations i cross join rollups r \
     on r.tenant_id = i.tenant_id and r.integration_id = i.integration_id \
     where i.tenant_id = :tenant and (:integration is null or i.integration_id = :integration) \
     and r.grain = :grain and r.start between :first and :last limit :limit)";
const HAS_LABEL: &str = "select 1 from rollup_labels \
     where tenant_id = :tenant and kind = :kind and label = :label limit 1";
const SCAN_SESSIONS: &str = "select entry_id, session_id, cost_nanos \
     from usage_entries indexed by usage_entries_by_time \
     where tenant_id = :tenant and integration_id = :integration \
     and occurred_at >= :start and occurred_at < :end and session_id is not null";
const SESSION_OF: &str =
    "select session_id from usage_entries where entry_id = :entry and tenant_id = :tenant";
const SUM_SESSION: &str = concat!(
    "select ",
    fact_columns!(),
    " from usage_entries indexed by usage_entries_by_session \
     where tenant_id = :tenant and session_id = :session \
     and occurred_at >= :start and occurred_at < :end \
     and (:integration is null or integration_id = :integration)"
);

#[async_trait]
impl SeriesReads for SqliteStore {
    async fn usage_breakdown(
        &self,
        tenant_id: TenantId,
        filter: BreakdownFilter,
    ) -> Result<Option<Breakdown>, StoreError> {
        let query = move |db: &Snapshot<'_>| usage_breakdown(db, tenant_id, filter);
        if filter.by == GroupBy::Session {
            self.readers.read_large(&self.context, tenant_id, query).await
        } else {
            self.read(tenant_id, query).await
        }
    }

    async fn usage_series(
        &self,
        tenant_id: TenantId,
        filter: SeriesFilter,
    ) -> Result<Series, StoreError> {
        self.read(tenant_id, move |db| usage_series(db, tenant_id, filter)).await
    }

    async fn counted_calls(
        &self,
        tenant_id: TenantId,
        filter: CallFilter,
    ) -> Result<Option<i64>, StoreError> {
        self.read(tenant_id, move |db| counted_calls(db, tenant_id, &filter)).await
    }
}

type RollupOwner = (TenantId, Option<IntegrationId>);

fn for_each_rollup(
    db: &Snapshot<'_>,
    (tenant_id, integration_id): RollupOwner,
    span: Span,
    mut take: impl FnMut(FoundRollup) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(LIST_ROLLUPS).map_err(store_error)?;
    let key = named_params! {
        ":tenant": tenant_id.number(),
        ":integration": integration_id.map(IntegrationId::number),
        ":grain": span.grain.code(),
        ":first": span.first,
        ":last": span.last,
    };
    let mut rows = statement.query(key).map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        take(FoundRollup::read(row)?)?;
    }
    Ok(())
}

pub(super) fn usage_breakdown(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    filter: BreakdownFilter,
) -> Result<Option<Breakdown>, StoreError> {
    let mut aggregate = BreakdownAggregate::new(&filter, db.memory());
    if filter.by.day_grain().is_none() {
        let Some(sessions) = largest_sessions(db, tenant_id, &filter)? else { return Ok(None) };
        for session in sessions {
            let session_id = session_id(db, tenant_id, session)?;
            let sums = session_sums(db, tenant_id, &session_id, &filter)?;
            aggregate.add_session(session_id, &sums)?;
        }
    }
    for (part, span) in filter.reads() {
        for_each_rollup(db, (tenant_id, filter.integration_id), span, |found| {
            aggregate.add(part, found)
        })?;
    }
    Ok(Some(aggregate.into_breakdown()))
}

/// The first instant of the days, and the first instant after them.
fn instants(filter: &BreakdownFilter) -> (i64, i64) {
    let end = Day::from_number(filter.last.number() + 1);
    (filter.first.start().micros(), end.start().micros())
}

/// The largest sessions; `None` if there are too many to distinguish.
///
/// One scan of the entries adds up costs, and keeps little memory for each session. The few sessions
/// of the result are then read in full.
fn largest_sessions(
    db: &Connection,
    tenant_id: TenantId,
    filter: &BreakdownFilter,
) -> Result<Option<Vec<SessionCost>>, StoreError> {
    let (start, end) = instants(filter);
    let mut costs: HashMap<u64, SessionCost> = HashMap::new();
    let hasher = RandomState::new();
    let mut statement = db.prepare_cached(SCAN_SESSIONS).map_err(store_error)?;
    for integration_id in integrations(db, tenant_id, filter.integration_id)? {
        let key = named_params! {
            ":tenant": tenant_id.number(),
            ":integration": integration_id.number(),
            ":start": start,
            ":end": end,
        };
        let mut rows = statement.query(key).map_err(store_error)?;
        while let Some(row) = rows.next().map_err(store_error)? {
            let cost = costs.entry(hasher.hash_one(row.str(1)?)).or_default();
            cost.entry_number = row.int(0)?;
            cost.calls = cost.calls.saturating_add(1);
            cost.cost_nanos = cost.cost_nanos.saturating_add(row.int::<i64>(2)?.into());
            if costs.len() > SESSIONS_MAX {
                return Ok(None);
            }
        }
    }
    let mut largest = LargestSessions::new(filter);
    costs.into_values().for_each(|cost| largest.offer(cost));
    Ok(Some(largest.into_sessions()))
}

fn session_id(
    db: &Connection,
    tenant_id: TenantId,
    session: SessionCost,
) -> Result<String, StoreError> {
    let mut statement = db.prepare_cached(SESSION_OF).map_err(store_error)?;
    let key = named_params! { ":entry": session.entry_number, ":tenant": tenant_id.number() };
    statement.query_row(key, |row| row.get(0)).map_err(store_error)
}

fn session_sums(
    db: &Connection,
    tenant_id: TenantId,
    session_id: &str,
    filter: &BreakdownFilter,
) -> Result<Sums, StoreError> {
    let (start, end) = instants(filter);
    let mut statement = db.prepare_cached(SUM_SESSION).map_err(store_error)?;
    let key = named_params! {
        ":tenant": tenant_id.number(),
        ":session": session_id,
        ":start": start,
        ":end": end,
        ":integration": filter.integration_id.map(IntegrationId::number),
    };
    let mut sums = Sums::default();
    let mut rows = statement.query(key).map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        sums.add(&Rollup::of(&decode::rollup_facts(row, 0)?))?;
    }
    Ok(sums)
}

pub(super) fn usage_series(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    filter: SeriesFilter,
) -> Result<Series, StoreError> {
    let breakdown = match filter.breakdown() {
        Some(breakdown) => usage_breakdown(db, tenant_id, breakdown)?,
        None => None,
    };
    let mut aggregate = SeriesAggregate::new(&filter, breakdown, db.memory());
    for (part, span) in filter.reads() {
        for_each_rollup(db, (tenant_id, filter.integration_id), span, |found| {
            aggregate.add(part, found)
        })?;
    }
    Ok(aggregate.into_series())
}

pub(super) fn counted_calls(
    db: &Connection,
    tenant_id: TenantId,
    filter: &CallFilter,
) -> Result<Option<i64>, StoreError> {
    let has_label = has_label(db, tenant_id, filter)?;
    let span = filter.span();
    let mut count = db.prepare_cached(COUNT_CALLS).map_err(store_error)?;
    let key = named_params! {
        ":tenant": tenant_id.number(),
        ":integration": filter.integration_id.map(IntegrationId::number),
        ":grain": span.grain.code(),
        ":first": span.first,
        ":last": span.last,
        ":label": filter.labelled().map(|(_, label)| label),
        ":other": OTHER,
        ":limit": ROLLUPS_COUNTED_MAX + 1,
    };
    let mut rows = count.query(key).map_err(store_error)?;
    let Some(row) = rows.next().map_err(store_error)? else { return Ok(None) };
    filter.counted(row, has_label)
}

/// Whether the label of the filter has rollups of its own.
fn has_label(
    db: &Connection,
    tenant_id: TenantId,
    filter: &CallFilter,
) -> Result<bool, StoreError> {
    let Some((kind, label)) = filter.labelled() else { return Ok(false) };
    let mut has = db.prepare_cached(HAS_LABEL).map_err(store_error)?;
    let key = named_params! {
        ":tenant": tenant_id.number(), ":kind": kind.code(), ":label": label,
    };
    has.exists(key).map_err(store_error)
}
