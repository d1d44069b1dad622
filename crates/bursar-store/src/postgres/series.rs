//! Reads breakdowns and series of usage: from rollups, and for sessions from entries.

use super::open::PostgresStore;
use crate::read::breakdown::{GroupBy, SeriesReads};
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::Arc;

use bursar_core::{Day, IntegrationId, TenantId};
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio_postgres::{Client, Row};

use super::fetch::{fetch_all, fetch_number, fetch_optional, for_each_row};
use super::history::integrations;
use super::readers::Reader;
use super::tx::params;
use crate::error::StoreError;
use crate::read::aggregate::{
    BreakdownAggregate, FoundRollup, LargestSessions, Part, ROLLUPS_COUNTED_MAX, SESSIONS_MAX,
    SeriesAggregate, SessionCost, Span,
};
use crate::read::breakdown::CallFilter;
use crate::read::breakdown::{Breakdown, BreakdownFilter, Series, SeriesFilter};
use crate::read::sums::Sums;
use crate::rows::columns::Columns;
use crate::rows::decode::{self, fact_columns};
use crate::rows::rollup_columns::{Rollup, rollup_figures};
use crate::rows::rollup_labels::OTHER;

// The integrations are an array, so that PostgreSQL finds the days of each by the primary key.
// Otherwise, with some statistics, it scans all rollups of the tenant.
const LIST_ROLLUPS: &str = concat!(
    "select i.integration_id, i.name, i.provider_type, r.start, r.provider, r.label, ",
    rollup_figures!(report_names, "r."),
    " from rollups r join integrations i on i.tenant_id = r.tenant_id \
     and i.integration_id = r.integration_id where r.tenant_id = $1 \
     and r.integration_id = any (array (select integration_id from integrations \
     where tenant_id = $1 and ($2 is null or integration_id = $2))) and r.grain = $3 \
     and r.start between $4 and $5"
);
/// Also the number of rollups that were read, and whether one of them is for other labels.
const COUNT_CALLS: &str = "select \
     coalesce(sum(calls) filter (where $6 is null or label = $6), 0)::bigint, \
     coalesce(sum(errors) filter (where $6 is null or label = $6), 0)::bigint, \
     coalesce(sum(blocked) filter (where $6 is null or label = $6), 0)::bigint, \
     count(*), coalesce(bool_or(provider = $7 and label = $7), false) \
     from (select provider, label, calls, errors, blocked from rollups \
     where tenant_id = $1 and integration_id = any (array (select integration_id \
     from integrations where tenant_id = $1 and ($2 is null or integration_id = $2))) \
     and grain = $3 and start between $4 and $5 limit $8) counted";
const HAS_LABEL: &str = "select count(*) from (select from rollup_labels \
     where tenant_id = $1 and kind = $2 and label = $3 limit 1) found";
/// For each session one of its entries, which leads to its id, and its sums. The limit is one row
/// above the largest number of sessions.
///
/// With `offset 0`, the planner reads each integration by time. The index on sessions is sorted, but
/// has the sessions of all times.
const SUM_SESSIONS: &str = "select max(found.entry_id), count(*), \
     div(sum(found.cost_nanos), 1000000000)::bigint, \
     mod(sum(found.cost_nanos), 1000000000)::bigint \
     from unnest($2::bigint[]) as scanned (integration_id) cross join lateral \
     (select entry_id, session_id, cost_nanos from usage_entries \
     where tenant_id = $1 and integration_id = scanned.integration_id \
     and occurred_at >= $3 and occurred_at < $4 and session_id is not null offset 0) found \
     group by found.session_id limit $5 + 1";
const SESSIONS_OF: &str = "select e.session_id from unnest($2::bigint[]) as wanted (entry_id) \
     cross join lateral (select session_id from usage_entries \
     where tenant_id = $1 and entry_id = wanted.entry_id limit 1) e where e.session_id is not null";
const LIST_SESSIONS: &str = concat!(
    "select wanted.session_id, ",
    fact_columns!("e."),
    " from unnest($2::text[]) as wanted (session_id) cross join lateral (select ",
    fact_columns!(),
    " from usage_entries where tenant_id = $1 and session_id = wanted.session_id \
     and occurred_at >= $3 and occurred_at < $4 and ($5 is null or integration_id = $5) \
     offset 0) e"
);

#[async_trait]
impl SeriesReads for PostgresStore {
    async fn usage_breakdown(
        &self,
        tenant_id: TenantId,
        filter: BreakdownFilter,
    ) -> Result<Option<Breakdown>, StoreError> {
        let query = async move |db: Arc<Reader>| usage_breakdown(&db, tenant_id, &filter).await;
        if filter.by == GroupBy::Session {
            self.readers.read_large(&self.context, tenant_id, query).await
        } else {
            self.readers.read(&self.context, tenant_id, query).await
        }
    }

    async fn usage_series(
        &self,
        tenant_id: TenantId,
        filter: SeriesFilter,
    ) -> Result<Series, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                usage_series(&db, tenant_id, &filter).await
            })
            .await
    }

    async fn counted_calls(
        &self,
        tenant_id: TenantId,
        filter: CallFilter,
    ) -> Result<Option<i64>, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                counted_calls(db.client()?, tenant_id, &filter).await
            })
            .await
    }
}

type RollupOwner = (TenantId, Option<IntegrationId>);

/// Reads the rollups of some spans, with concurrent statements.
async fn for_each_rollup(
    db: &Client,
    (tenant_id, integration_id): RollupOwner,
    reads: Vec<(Part, Span)>,
    take: impl Fn(Part, FoundRollup) -> Result<(), StoreError> + Sync,
) -> Result<(), StoreError> {
    let (tenant, integration) = (tenant_id.number(), integration_id.map(IntegrationId::number));
    let take = &take;
    let read = |(part, span): (Part, Span)| async move {
        let (grain, first, last) = stored(span);
        let key = params![tenant, integration, grain, first, last];
        for_each_row(db, LIST_ROLLUPS, key, |row| take(part, FoundRollup::read(row)?)).await
    };
    try_join_all(reads.into_iter().map(read)).await.map(|_| ())
}

/// The stored grain, first step and last step of a span.
fn stored(span: Span) -> (i64, i64, i64) {
    (span.grain.code(), span.first.into(), span.last.into())
}

pub(super) async fn usage_breakdown(
    reader: &Reader,
    tenant_id: TenantId,
    filter: &BreakdownFilter,
) -> Result<Option<Breakdown>, StoreError> {
    let db = reader.client()?;
    let aggregate = Mutex::new(BreakdownAggregate::new(filter, reader.memory()));
    if filter.by.day_grain().is_none() {
        let Some(largest) = largest_sessions(db, tenant_id, filter).await? else {
            return Ok(None);
        };
        for (session_id, sums) in sessions(db, tenant_id, filter, &largest).await? {
            aggregate.lock().add_session(session_id, &sums)?;
        }
    }
    let owner = (tenant_id, filter.integration_id);
    for_each_rollup(db, owner, filter.reads(), |part, found| aggregate.lock().add(part, found))
        .await?;
    Ok(Some(aggregate.into_inner().into_breakdown()))
}

/// The first instant of the days, and the first instant after them.
fn instants(filter: &BreakdownFilter) -> (i64, i64) {
    let end = Day::from_number(filter.last.number() + 1);
    (filter.first.start().micros(), end.start().micros())
}

/// The largest sessions; `None` if there are too many to distinguish.
///
/// The database adds up their entries, on disk if there are many. Only as many sessions as requested
/// stay in memory here.
async fn largest_sessions(
    db: &Client,
    tenant_id: TenantId,
    filter: &BreakdownFilter,
) -> Result<Option<Vec<SessionCost>>, StoreError> {
    let (tenant, (start, end)) = (tenant_id.number(), instants(filter));
    let integrations = integrations(db, tenant_id, filter.integration_id).await?;
    let sessions_max = i64::try_from(SESSIONS_MAX).unwrap_or(i64::MAX);
    let (mut largest, mut count) = (LargestSessions::new(filter), 0);
    let key = params![tenant, integrations, start, end, sessions_max];
    for_each_row(db, SUM_SESSIONS, key, |row| {
        count += 1;
        largest.offer(SessionCost {
            entry_number: row.int(0)?,
            calls: row.int(1)?,
            cost_nanos: cost_nanos(row, 2)?,
        });
        Ok(())
    })
    .await?;
    Ok((count <= sessions_max).then(|| largest.into_sessions()))
}

/// A cost from two columns, whole dollars and additional nano-dollars, so that neither sum overflows.
fn cost_nanos(row: &Row, at: usize) -> Result<i128, StoreError> {
    const NANOS_PER_DOLLAR: i128 = 1_000_000_000;
    let (dollars, nanos): (i64, i64) = (row.int(at)?, row.int(at + 1)?);
    Ok(i128::from(dollars) * NANOS_PER_DOLLAR + i128::from(nanos))
}

/// The sums of these sessions.
async fn sessions(
    db: &Client,
    tenant_id: TenantId,
    filter: &BreakdownFilter,
    largest: &[SessionCost],
) -> Result<HashMap<String, Sums>, StoreError> {
    let (tenant, (start, end)) = (tenant_id.number(), instants(filter));
    let entries: Vec<i64> = largest.iter().map(|session| session.entry_number).collect();
    let session_id = |row: &Row| row.text::<String>(0);
    let names = fetch_all(db, SESSIONS_OF, params![tenant, entries], session_id).await?;
    let integration = filter.integration_id.map(IntegrationId::number);
    let mut sums: HashMap<String, Sums> =
        names.iter().map(|name| (name.clone(), Sums::default())).collect();
    let key = params![tenant, names, start, end, integration];
    for_each_row(db, LIST_SESSIONS, key, |row| {
        if let Some(sum) = sums.get_mut(row.str(0)?) {
            sum.add(&Rollup::of(&decode::rollup_facts(row, 1)?))?;
        }
        Ok(())
    })
    .await?;
    Ok(sums)
}

pub(super) async fn usage_series(
    db: &Reader,
    tenant_id: TenantId,
    filter: &SeriesFilter,
) -> Result<Series, StoreError> {
    let breakdown = match filter.breakdown() {
        Some(breakdown) => usage_breakdown(db, tenant_id, &breakdown).await?,
        None => None,
    };
    let aggregate = Mutex::new(SeriesAggregate::new(filter, breakdown, db.memory()));
    let owner = (tenant_id, filter.integration_id);
    for_each_rollup(db.client()?, owner, filter.reads(), |part, found| {
        aggregate.lock().add(part, found)
    })
    .await?;
    Ok(aggregate.into_inner().into_series())
}

pub(super) async fn counted_calls(
    db: &Client,
    tenant_id: TenantId,
    filter: &CallFilter,
) -> Result<Option<i64>, StoreError> {
    let tenant = tenant_id.number();
    let integration = filter.integration_id.map(IntegrationId::number);
    let (grain, first, last) = stored(filter.span());
    let label = filter.labelled();
    let (kind, name) = (label.map(|(kind, _)| kind.code()), label.map(|(_, name)| name));
    let labelled = params![tenant, kind, name];
    let limit = ROLLUPS_COUNTED_MAX + 1;
    let counted = params![tenant, integration, grain, first, last, name, OTHER, limit];
    let has_label = fetch_number(db, HAS_LABEL, labelled).await? > 0;
    let calls =
        fetch_optional(db, COUNT_CALLS, counted, |row| filter.counted(row, has_label)).await?;
    Ok(calls.flatten())
}
