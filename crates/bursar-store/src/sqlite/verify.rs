//! Verifies the sums of a data file against its entries.

use bursar_core::{CallKey, TenantId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::store_error;
use crate::error::StoreError;
use crate::rows::decode::fact_columns;
use crate::rows::entry_columns::entry_columns;
use crate::rows::limit_row::limit_columns;
use crate::rows::rollup_columns::rollup_figures;
use crate::verify::recount::{CountedEntry, Recount, VerifyReport};

const LABELS: &str = "select tenant_id, kind, provider, label from rollup_labels";
/// The keys that have rollups of their own.
const KEYED_ROLLUPS: &str = "select tenant_id, integration_id, grain, start, provider, label, \
     key_id from rollups where key_id > 0";
const ENTRIES: &str = concat!(
    "select entry_id, tenant_id, integration_id, call_id, agent_id, provider, model, \
     occurred_at, created_at, ",
    entry_columns!(entry_text_bytes),
    ", key_id, tags, counted_tags, session_id, account_key_id, limits_version, ",
    fact_columns!(),
    " from usage_entries order by entry_id"
);
const OPEN: &str = "select tenant_id, integration_id, estimated_cost_nanos, estimated_tokens, \
     reserved_at from reservations where state = 1";
const COUNTERS: &str = "select tenant_id, scope_id, month, used_cost_nanos, used_tokens, \
     used_calls, held_cost_nanos, held_tokens, held_calls, last_at from counters";
const LIMITS: &str = concat!("select ", limit_columns!(), ", since_version from limits");
const LIMIT_ACCOUNTS: &str = "select tenant_id, limit_id, value, period_start, used_cost_nanos, \
     used_tokens, used_calls, held_cost_nanos, held_tokens, held_calls from limit_accounts";
const LIMIT_VALUES: &str = "select tenant_id, limit_id, period_start, accounts from limit_values";
const POSTED: &str = "select tenant_id, call_key, estimated_cost_nanos, estimated_tokens, \
     expires_at, postings from reservations where state = 1";
const POSTINGS: &str = "select tenant_id, limit_id, value, call_key, expires_at, cost_nanos, \
     tokens from postings";
const RESERVATIONS: &str = "select tenant_id, reservations from open_reservations";
const BYTES: &str = "select tenant_id, integration_id, day, bytes from stored_bytes";
const ROLLUPS: &str = concat!(
    "select tenant_id, integration_id, grain, start, provider, label, key_id, ",
    rollup_figures!(figure_names),
    " from rollups"
);
const ENTRY_OF_CALL: &str = "select entry_id from calls where tenant_id = ?1 and call_key = ?2";
const CALLS_WITH_ENTRY: &str = "select count(*) from calls where entry_id is not null";

/// Recomputes all sums, and compares them with the stored ones.
pub(super) fn verify(db: &Connection) -> Result<VerifyReport, StoreError> {
    let snapshot = db.unchecked_transaction().map_err(store_error)?;
    let mut recount = Recount::default();
    each(&snapshot, LABELS, |row| recount.add_label(row))?;
    each(&snapshot, KEYED_ROLLUPS, |row| recount.add_key(row))?;
    each(&snapshot, LIMITS, |row| recount.add_limit(row))?;
    each(&snapshot, LIMIT_ACCOUNTS, |row| recount.add_limit_account(row))?;
    each(&snapshot, LIMIT_VALUES, |row| recount.add_limit_values(row))?;
    each(&snapshot, ENTRIES, |row| {
        let entry = CountedEntry::read(row)?;
        let of_call = match entry.call_key()? {
            Some(key) => entry_of_call(&snapshot, key)?,
            None => None,
        };
        recount.add_entry(&entry, of_call)
    })?;
    let with_entry = snapshot.query_row(CALLS_WITH_ENTRY, [], |row| row.get(0));
    recount.compare_calls(with_entry.map_err(store_error)?);
    each(&snapshot, OPEN, |row| recount.add_open(row))?;
    each(&snapshot, POSTED, |row| recount.add_posted(row))?;
    each(&snapshot, POSTINGS, |row| recount.compare_posting(row))?;
    recount.compare_limits()?;
    each(&snapshot, COUNTERS, |row| recount.compare_counter(row))?;
    each(&snapshot, RESERVATIONS, |row| recount.compare_open(row))?;
    each(&snapshot, BYTES, |row| recount.compare_bytes(row))?;
    each(&snapshot, ROLLUPS, |row| recount.compare_rollup(row))?;
    Ok(recount.into_report())
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

/// The entry of a call id.
fn entry_of_call(
    db: &Connection,
    (tenant_id, key): (TenantId, CallKey),
) -> Result<Option<i64>, StoreError> {
    let mut statement = db.prepare_cached(ENTRY_OF_CALL).map_err(store_error)?;
    let key = params![tenant_id.number(), key.0.to_be_bytes()];
    let found: Option<Option<i64>> =
        statement.query_row(key, |row| row.get(0)).optional().map_err(store_error)?;
    Ok(found.flatten())
}
