//! Counting the file a second time.

use bursar_core::{
    CallId, Counter, CounterKey, EntryId, IntegrationId, Month, Nanos, TenantId, TokenBuckets,
    Totals,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::load::{get, integration_ref};
use super::series::rollup;
use super::store_error;
use crate::codec::{self, call_key, id, timestamp};
use crate::error::StoreError;
use crate::rollup::{RollupEntry, RollupFacts};
use crate::verify::{CountedRollup, Recount, Verified};

const LABELS: &str = "select tenant_id, kind, provider, label from rollup_labels";
const ENTRIES: &str = "select entry_id, tenant_id, integration_id, kind, call_id, agent_id, \
     provider, model, tokens_in, tokens_out, tokens_cache_read, tokens_cache_write, \
     tokens_reasoning, cost_nanos, cost_source, latency_ms, policy_result, error_code, occurred_at \
     from usage_entries order by entry_id";
const OPEN: &str = "select tenant_id, integration_id, estimated_cost_nanos, estimated_tokens, \
     reserved_at from calls where reservation_state = 1";
const COUNTERS: &str = "select tenant_id, scope_id, month, used_cost_nanos, used_tokens, \
     used_calls, held_cost_nanos, held_tokens, held_calls, last_at from counters";
const ROLLUPS: &str = "select tenant_id, integration_id, grain, start, provider, label, calls, \
     succeeded, errors, blocked, unpriced, tokens_in, tokens_out, tokens_cache_read, \
     tokens_cache_write, tokens_reasoning, cost_nanos, latency_calls, latency_sum_ms, latency_00, \
     latency_01, latency_02, latency_03, latency_04, latency_05, latency_06, latency_07, \
     latency_08, latency_09, latency_10, latency_11, latency_12, latency_13, latency_14, \
     latency_15 from rollups";
const ENTRY_OF_CALL: &str = "select entry_id from calls where tenant_id = ?1 and call_key = ?2";
const CALLS_WITH_ENTRY: &str = "select count(*) from calls where entry_id is not null";

/// Counts everything again and compares it with what is stored.
pub(super) fn verify(db: &Connection) -> Result<Verified, StoreError> {
    let snapshot = db.unchecked_transaction().map_err(store_error)?;
    let mut verified = Verified::default();
    let mut recount = Recount::default();
    each(&snapshot, LABELS, |row| {
        let tenant_id = id(TenantId::from_number, get(row, 0)?)?;
        recount.labels.insert((tenant_id, get(row, 1)?, get(row, 2)?, get(row, 3)?));
        Ok(())
    })?;
    let mut calls = 0;
    each(&snapshot, ENTRIES, |row| {
        verified.entries += 1;
        calls += entry(&snapshot, row, &mut recount, &mut verified)?;
        Ok(())
    })?;
    let with_entry: i64 =
        snapshot.query_row(CALLS_WITH_ENTRY, [], |row| row.get(0)).map_err(store_error)?;
    if with_entry != calls {
        verified.differ(|| format!("{with_entry} call ids name an entry, {calls} calls are there"));
    }
    each(&snapshot, OPEN, |row| {
        verified.open_reservations += 1;
        let (tenant_id, integration_id) = integration_ref(row, 0)?;
        let amount = Totals { cost: Nanos::new(get(row, 2)?), tokens: get(row, 3)?, calls: 1 };
        let month = timestamp(get(row, 4)?)?.month();
        Ok(recount.add_hold(tenant_id, integration_id, month, amount)?)
    })?;
    each(&snapshot, COUNTERS, |row| {
        let (tenant_id, integration_id) = integration_ref(row, 0)?;
        let month = Month::from_number(get(row, 2)?);
        let totals = |at: usize| {
            Ok::<Totals, StoreError>(Totals {
                cost: Nanos::new(get(row, at)?),
                tokens: get(row, at + 1)?,
                calls: get(row, at + 2)?,
            })
        };
        let last_at = timestamp(get(row, 9)?)?;
        let stored = Counter { used: totals(3)?, held: totals(6)?, last_at };
        let key = CounterKey { tenant_id, integration_id, month };
        recount.compare_counter(key, &stored, &mut verified);
        Ok(())
    })?;
    each(&snapshot, ROLLUPS, |row| {
        let (tenant_id, integration_id) = integration_ref(row, 0)?;
        let key = CountedRollup {
            tenant_id,
            integration_id,
            grain: get(row, 2)?,
            start: get(row, 3)?,
            provider: get(row, 4)?,
            label: get(row, 5)?,
        };
        recount.compare_rollup(&key, &rollup(row, 6)?, &mut verified);
        Ok(())
    })?;
    recount.finish(&mut verified);
    Ok(verified)
}

fn each(
    db: &Connection,
    sql: &str,
    mut take: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(store_error)?;
    let mut rows = statement.query([]).map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        take(row)?;
    }
    Ok(())
}

/// Counts an entry, and checks that its call id leads to it; 1 for a call, 0 for a correction.
fn entry(
    db: &Connection,
    row: &Row<'_>,
    recount: &mut Recount,
    verified: &mut Verified,
) -> Result<i64, StoreError> {
    let buckets = |at: usize| get::<i64>(row, at);
    let tokens =
        TokenBuckets::new(buckets(8)?, buckets(9)?, buckets(10)?, buckets(11)?, buckets(12)?)
            .map_err(|error| StoreError::Corrupt(error.to_string()))?;
    let (provider, model): (String, String) = (get(row, 6)?, get(row, 7)?);
    let agent_id: Option<String> = get(row, 5)?;
    let kind = codec::kind(get(row, 3)?)?;
    let entry_id = id(EntryId::from_number, get(row, 0)?)?;
    let entry = RollupEntry {
        tenant_id: id(TenantId::from_number, get(row, 1)?)?,
        integration_id: id(IntegrationId::from_number, get(row, 2)?)?,
        occurred_at: timestamp(get(row, 18)?)?,
        provider: &provider,
        model: &model,
        agent_id: agent_id.as_deref(),
        facts: RollupFacts {
            kind,
            tokens,
            cost: Nanos::new(get(row, 13)?),
            cost_source: codec::cost_source(get(row, 14)?)?,
            latency_ms: get(row, 15)?,
            policy_result: codec::policy(get(row, 16)?)?,
            failed: get::<Option<String>>(row, 17)?.is_some(),
        },
    };
    recount.add_entry(&entry)?;
    match kind {
        bursar_core::EntryKind::Correction => Ok(0),
        bursar_core::EntryKind::Usage => {
            let call_id = CallId::new(get::<String>(row, 4)?)
                .map_err(|error| StoreError::Corrupt(error.to_string()))?;
            let key = call_key(entry.tenant_id, &call_id).0.to_be_bytes();
            let mut statement = db.prepare_cached(ENTRY_OF_CALL).map_err(store_error)?;
            let found: Option<Option<i64>> = statement
                .query_row(params![entry.tenant_id.number(), key], |row| row.get(0))
                .optional()
                .map_err(store_error)?;
            if found.flatten() != Some(entry_id.number()) {
                verified.differ(|| format!("the call id of entry {} leads elsewhere", entry_id));
            }
            Ok(1)
        }
    }
}
