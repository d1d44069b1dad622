//! Verifies the sums of a database against its entries, tenant by tenant, in one snapshot.

use std::collections::HashMap;

use bursar_core::{CallKey, TenantId};
use tokio::try_join;
use tokio_postgres::{Client, Row};

use super::fetch::{fetch_all, fetch_number, for_each_row};
use super::readers::read_error;
use super::store_stats::next_tenants;
use super::tx::{self, Key, Messages, params};
use crate::error::StoreError;
use crate::rows::columns::Columns;
use crate::rows::decode::fact_columns;
use crate::rows::entry_columns::entry_columns;
use crate::rows::limit_row::limit_columns;
use crate::rows::rollup_columns::rollup_figures;
use crate::rows::rollup_labels::LabelKind;
use crate::verify::recount::{CountedEntry, Recount, VerifyReport};

/// The tenants that one statement lists.
const TENANTS_AT_ONCE: usize = 1_000;
/// The entries that one statement reads.
const ENTRIES_AT_ONCE: i64 = 5_000;

/// A verification has no time limit. Entries are read by their key and never sorted, whatever the
/// planner's statistics are.
const BEGIN: &str = "begin isolation level repeatable read read only; \
     set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0; \
     set local enable_sort = off; set local jit = off";
const LABELS: &str =
    "select tenant_id, kind, provider, label from rollup_labels where tenant_id = $1";
const LABEL_COUNTS: &str = "select kind, tag, labels from rollup_label_counts where tenant_id = $1";
/// The keys that have rollups of their own.
const KEYED_ROLLUPS: &str = "select tenant_id, integration_id, grain, start, provider, label, \
     key_id from rollups where tenant_id = $1 and key_id > 0";
const ENTRIES: &str = concat!(
    "select entry_id, tenant_id, integration_id, call_id, agent_id, provider, model, \
     occurred_at, created_at, ",
    entry_columns!(entry_text_bytes),
    ", key_id, tags, counted_tags, session_id, account_key_id, limits_version, ",
    fact_columns!(),
    " from usage_entries where tenant_id = $1 and entry_id > $2 order by entry_id limit $3"
);
/// Looks up call by call, whatever the planner's statistics are.
const ENTRIES_OF_CALLS: &str = "select c.call_key, c.entry_id from unnest($2::uuid[]) as wanted (call_key) \
     cross join lateral (select call_key, entry_id from calls \
     where tenant_id = $1 and call_key = wanted.call_key limit 1) c where c.entry_id is not null";
const CALLS_WITH_ENTRY: &str =
    "select count(*) from calls where tenant_id = $1 and entry_id is not null";
const OPEN: &str = "select tenant_id, integration_id, estimated_cost_nanos, estimated_tokens, \
     reserved_at from reservations where tenant_id = $1 and state = 1";
const COUNTERS: &str = "select tenant_id, scope_id, month, used_cost_nanos, used_tokens, \
     used_calls, held_cost_nanos, held_tokens, held_calls, last_at from counters \
     where tenant_id = $1 and scope_kind = 1";
const LIMITS: &str =
    concat!("select ", limit_columns!(), ", since_version from limits where tenant_id = $1");
const LIMIT_ACCOUNTS: &str = "select tenant_id, limit_id, value, period_start, used_cost_nanos, \
     used_tokens, used_calls, held_cost_nanos, held_tokens, held_calls from limit_accounts \
     where tenant_id = $1";
const LIMIT_VALUES: &str =
    "select tenant_id, limit_id, period_start, accounts from limit_values where tenant_id = $1";
const POSTED: &str = "select tenant_id, call_key, estimated_cost_nanos, estimated_tokens, \
     expires_at, postings from reservations where tenant_id = $1 and state = 1";
const POSTINGS: &str = "select tenant_id, limit_id, value, call_key, expires_at, cost_nanos, \
     tokens from postings where tenant_id = $1";
const RESERVATIONS: &str =
    "select tenant_id, reservations from open_reservations where tenant_id = $1";
const BYTES: &str =
    "select tenant_id, integration_id, day, bytes from stored_bytes where tenant_id = $1";
const ROLLUPS: &str = concat!(
    "select tenant_id, integration_id, grain, start, provider, label, key_id, ",
    rollup_figures!(figure_names),
    " from rollups where tenant_id = $1"
);

/// Recomputes all sums, and compares them with the stored ones.
pub(super) async fn verify(db: &Client) -> Result<VerifyReport, StoreError> {
    tx::set(db, BEGIN, Messages::Separate).await.map_err(read_error)?;
    let (mut verified, mut after) = (VerifyReport::default(), 0);
    loop {
        let tenants = next_tenants(db, after, TENANTS_AT_ONCE).await?;
        let Some(last) = tenants.last() else { break };
        after = last.number();
        for tenant_id in tenants {
            verified.merge(tenant(db, tenant_id).await?);
        }
    }
    db.batch_execute("commit").await.map_err(read_error)?;
    Ok(verified)
}

async fn tenant(db: &Client, tenant_id: TenantId) -> Result<VerifyReport, StoreError> {
    db.batch_execute(&tx::set_tenant(tenant_id)).await.map_err(read_error)?;
    let mut recount = Recount::default();
    let tenant = tenant_id.number();
    labels(db, tenant, &mut recount).await?;
    for_each_row(db, KEYED_ROLLUPS, params![tenant], |row| recount.add_key(row)).await?;
    for_each_row(db, LIMITS, params![tenant], |row| recount.add_limit(row)).await?;
    for_each_row(db, LIMIT_ACCOUNTS, params![tenant], |row| recount.add_limit_account(row)).await?;
    for_each_row(db, LIMIT_VALUES, params![tenant], |row| recount.add_limit_values(row)).await?;
    entries(db, tenant, &mut recount).await?;
    recount.compare_calls(fetch_number(db, CALLS_WITH_ENTRY, params![tenant]).await?);
    for_each_row(db, OPEN, params![tenant], |row| recount.add_open(row)).await?;
    for_each_row(db, POSTED, params![tenant], |row| recount.add_posted(row)).await?;
    for_each_row(db, POSTINGS, params![tenant], |row| recount.compare_posting(row)).await?;
    recount.compare_limits()?;
    for_each_row(db, COUNTERS, params![tenant], |row| recount.compare_counter(row)).await?;
    for_each_row(db, RESERVATIONS, params![tenant], |row| recount.compare_open(row)).await?;
    for_each_row(db, BYTES, params![tenant], |row| recount.compare_bytes(row)).await?;
    for_each_row(db, ROLLUPS, params![tenant], |row| recount.compare_rollup(row)).await?;
    Ok(recount.into_report())
}

/// Reads the labels, and compares the number of each kind or tag with the stored one.
async fn labels(db: &Client, tenant: i64, recount: &mut Recount) -> Result<(), StoreError> {
    let mut counted: HashMap<(i64, String), i64> = HashMap::new();
    for_each_row(db, LABELS, params![tenant], |row| {
        let kind = row.int(1)?;
        let tag = if kind == LabelKind::Tag.code() { row.text(2)? } else { String::new() };
        *counted.entry((kind, tag)).or_default() += 1;
        recount.add_label(row)
    })
    .await?;
    let read = |row: &Row| Ok(((row.int(0)?, row.text(1)?), row.int(2)?));
    let mut stored: HashMap<(i64, String), i64> =
        fetch_all(db, LABEL_COUNTS, params![tenant], read).await?.into_iter().collect();
    for ((kind, tag), counted) in counted {
        let stored = stored.remove(&(kind, tag)).unwrap_or_default();
        if stored != counted {
            recount.differ(|| {
                format!("tenant {tenant} has {counted} labels of kind {kind}, {stored} are counted")
            });
        }
    }
    for ((kind, _), stored) in stored.into_iter().filter(|(_, stored)| *stored != 0) {
        recount.differ(|| {
            format!("tenant {tenant} has no labels of kind {kind}, {stored} are counted")
        });
    }
    Ok(())
}

/// Recounts the entries in parts. While the calls of one part are looked up, the next part is read.
async fn entries(db: &Client, tenant: i64, recount: &mut Recount) -> Result<(), StoreError> {
    let mut some = entries_after(db, tenant, 0).await?;
    while let Some(last) = some.last() {
        let after = last.entry_id.number();
        let (known, next) =
            try_join!(entries_of_calls(db, tenant, &some), entries_after(db, tenant, after))?;
        for entry in &some {
            let key = entry.call_key()?;
            let of_call = key.and_then(|(_, key)| known.get(&key)).copied();
            recount.add_entry(entry, of_call)?;
        }
        some = next;
    }
    Ok(())
}

async fn entries_after(
    db: &Client,
    tenant: i64,
    after: i64,
) -> Result<Vec<CountedEntry>, StoreError> {
    fetch_all(db, ENTRIES, params![tenant, after, ENTRIES_AT_ONCE], CountedEntry::read).await
}

/// The entries that the calls of these entries name.
async fn entries_of_calls(
    db: &Client,
    tenant: i64,
    entries: &[CountedEntry],
) -> Result<HashMap<CallKey, i64>, StoreError> {
    let mut keys = Vec::with_capacity(entries.len());
    for entry in entries {
        keys.extend(entry.call_key()?.map(|(_, key)| Key(key)));
    }
    let read = |row: &Row| Ok((CallKey(u128::from_be_bytes(row.bytes(0)?)), row.int(1)?));
    let found = fetch_all(db, ENTRIES_OF_CALLS, params![tenant, keys], read).await?;
    Ok(found.into_iter().collect())
}
