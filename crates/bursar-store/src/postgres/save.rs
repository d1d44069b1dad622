//! Saves a book: a few bulk statements for the whole group, sent together.

use std::collections::BTreeMap;

use bursar_core::{Book, Entry, EntryId, Hold, Reservation, TenantId};
use tokio_postgres::Client;

use super::bulk::{Bulk, Column};
use super::labels::StoredLabels;
use super::limits;
use super::pipeline::{Sent, in_order};
use super::tx::{Key, params, store_error};
use super::writer_state::PostgresWriter;
use crate::error::StoreError;
use crate::read::tenant_sums::{bytes_of_integrations, open_changes};
use crate::rows::counted_tags::{CountedTags, counted_tags};
use crate::rows::entry_columns::{ENTRY_VALUES, EntryValue, entry_columns};
use crate::rows::reservation_columns::{RESERVATION_VALUES, ReservationValue, reservation_columns};
use crate::rows::rollup::{RollupKey, aggregate};
use crate::rows::rollup_columns::{FIGURES, Rollup, rollup_figures};

const INSERT_ENTRIES: &str = concat!(
    "insert into usage_entries (tenant_id, ",
    entry_columns!(entry_names),
    ", counted_tags) values ($1, ",
    entry_columns!(entry_arrays),
    ", unnest($43))"
);
const SAVE_RESERVATIONS: &str = concat!(
    "insert into reservations (tenant_id, call_key, ",
    reservation_columns!(entry_names),
    ") values ($1, unnest($2), ",
    reservation_columns!(entry_arrays),
    ") on conflict (tenant_id, call_key) do update set expires_at = excluded.expires_at, \
     state = excluded.state, ended_at = excluded.ended_at"
);
// The calls exist already, so each row is a conflict and an update by key. With an `update ... from`
// and without statistics about the tenant, the planner may choose to read all calls of the tenant.
const UPDATE_ENTRIES_OF_CALLS: &str = "insert into calls (tenant_id, call_key, entry_id) \
     values ($1, unnest($2), unnest($3)) \
     on conflict (tenant_id, call_key) do update set entry_id = excluded.entry_id";
const EXPIRE: &str = "update reservations set state = 4, ended_at = expires_at \
     where tenant_id = $1 and call_key = any($2)";
const DELETE_CLAIMS: &str = "delete from calls where tenant_id = $1 and call_key = any($2)";
const UPSERT_COUNTERS: &str = "insert into counters (tenant_id, scope_kind, scope_id, month, \
     used_cost_nanos, used_tokens, used_calls, held_cost_nanos, held_tokens, held_calls, last_at) \
     values ($1, 1, unnest($2), unnest($3::integer[]), unnest($4), unnest($5), unnest($6), \
     unnest($7), unnest($8), unnest($9), unnest($10)) \
     on conflict (tenant_id, scope_kind, scope_id, month) do update set \
     used_cost_nanos = excluded.used_cost_nanos, used_tokens = excluded.used_tokens, \
     used_calls = excluded.used_calls, held_cost_nanos = excluded.held_cost_nanos, \
     held_tokens = excluded.held_tokens, held_calls = excluded.held_calls, \
     last_at = excluded.last_at";
const UPSERT_RESERVATIONS: &str = "insert into open_reservations (tenant_id, reservations) \
     values ($1, $2) on conflict (tenant_id) do update set \
     reservations = open_reservations.reservations + excluded.reservations returning reservations";
const UPSERT_BYTES: &str = "insert into stored_bytes (tenant_id, day, integration_id, bytes) \
     values ($1, unnest($2::integer[]), unnest($3), unnest($4)) \
     on conflict (tenant_id, day, integration_id) do update set \
     bytes = stored_bytes.bytes + excluded.bytes";
const UPSERT_RATES: &str = "insert into rate_slots (tenant_id, scope_kind, scope_id, slot, second, \
     calls) \
     values ($1, 1, unnest($2), unnest($3::smallint[]), unnest($4), unnest($5)) \
     on conflict (tenant_id, scope_kind, scope_id, slot) do update set second = excluded.second, \
     calls = excluded.calls";
const UPSERT_ROLLUPS: &str = concat!(
    "insert into rollups (tenant_id, integration_id, grain, start, provider, label, key_id, ",
    rollup_figures!(figure_names),
    ") values ($1, unnest($2), unnest($3::smallint[]), unnest($4::integer[]), unnest($5), \
     unnest($6), unnest($7), ",
    rollup_figures!(figure_arrays),
    ") on conflict (tenant_id, integration_id, grain, start, provider, label, key_id) \
     do update set ",
    rollup_figures!(figure_merges)
);

/// Writes all changes of a book.
pub(super) fn book(writer: &mut PostgresWriter, book: &Book<'_>) -> Result<(), StoreError> {
    let Some(tenant_id) = tenant_of(book) else { return Ok(()) };
    let tags = counted_tags(book.entries(), &mut StoredLabels(writer))?;
    let rollups = aggregate(book.entries(), &tags, &mut StoredLabels(writer))?;
    let mut bulks = vec![entries(book.entries(), &tags)];
    bulks.extend(calls(writer, book));
    bulks.push(expired(book));
    bulks.extend(accounts(book));
    bulks.extend(limits::changes(book.limits(), book.holds()));
    bulks.push(self::rollups(&rollups));
    bulks.push(stored_bytes(book));
    bulks.retain(|bulk| bulk.rows > 0);
    let tenant = [tenant_id.number()];
    let change = open_changes(book.holds()).remove(&tenant_id);
    let reservations_max = writer.reservations_max;
    writer.query_in_tx(Some(tenant_id), async |client| {
        let mut sent: Vec<_> = bulks.iter().map(|bulk| bulk.execute(client, &tenant)).collect();
        // This comes last, because it locks a row that all groups of the tenant share.
        sent.extend(change.map(|change| count_open(client, tenant_id, change)));
        let counted = in_order(sent).await?;
        let open = change.filter(|change| *change > 0).and(counted.last().copied());
        match (open, reservations_max) {
            (Some(open), Some(max)) if i64::try_from(open).is_ok_and(|open| open > max) => {
                let cause = std::io::Error::other("other groups reserved up to the tenant's cap");
                Err(StoreError::Retry(std::sync::Arc::new(cause)))
            }
            (Some(_) | None, _) => Ok(()),
        }
    })
}

/// Changes the number of open reservations of a tenant, and returns it.
fn count_open(client: &Client, tenant_id: TenantId, change: i64) -> Sent<'_, u64> {
    Box::pin(async move {
        let tenant = tenant_id.number();
        let key = params![tenant, change];
        let row = client.query_typed_one(UPSERT_RESERVATIONS, key).await.map_err(store_error)?;
        let open: i64 = row.try_get(0).map_err(store_error)?;
        u64::try_from(open).map_err(|_| {
            StoreError::Corrupt("the number of open reservations is below zero".to_owned())
        })
    })
}

fn stored_bytes(book: &Book<'_>) -> Bulk<'static> {
    let bytes = bytes_of_integrations(book.entries());
    let day = i64::from(book.now().day().number());
    let columns = vec![
        Column::Numbers(vec![day; bytes.len()]),
        Column::Numbers(bytes.keys().map(|(_, integration_id)| integration_id.number()).collect()),
        Column::Numbers(bytes.values().copied().collect()),
    ];
    Bulk { sql: UPSERT_BYTES, rows: bytes.len(), columns }
}

fn tenant_of(book: &Book<'_>) -> Option<TenantId> {
    let of_accounts = book.accounts().values().map(|account| account.tenant_id);
    of_accounts.chain(book.calls().keys().map(|(tenant_id, _)| *tenant_id)).next()
}

fn entries<'b>(entries: &'b [Entry<'_>], tags: &[CountedTags]) -> Bulk<'b> {
    let column = |value: &EntryValue| match value {
        EntryValue::Number(of) => Column::Numbers(entries.iter().map(of).collect()),
        EntryValue::OptNumber(of) => Column::OptNumbers(entries.iter().map(of).collect()),
        EntryValue::Text(of) => Column::Texts(entries.iter().map(of).collect()),
        EntryValue::OptText(of) => Column::OptTexts(entries.iter().map(of).collect()),
        EntryValue::OwnText(of) => Column::OwnTexts(entries.iter().map(of).collect()),
    };
    let mut columns: Vec<Column<'b>> = ENTRY_VALUES.iter().map(column).collect();
    columns.push(Column::Numbers(tags.iter().map(|counted| counted.number()).collect()));
    Bulk { sql: INSERT_ENTRIES, rows: entries.len(), columns }
}

/// The changes of calls: removed claims, new entries, and reservations.
fn calls<'b>(writer: &PostgresWriter, book: &'b Book<'_>) -> [Bulk<'b>; 3] {
    let (mut void, mut entries, mut reserved) = (Vec::new(), Vec::new(), Vec::new());
    for (&(_, key), call) in book.calls() {
        let claimed = writer.claims.get(&key).copied();
        if claimed.is_none() && !call.is_changed() {
            continue;
        }
        let entry_id = book.entry_id(call);
        if claimed.is_some() && call.is_void() {
            void.push(Key(key));
        } else if entry_id != claimed.flatten() {
            entries.push((Key(key), entry_id));
        }
        reserved.extend(call.reservation.as_ref().map(|reservation| (Key(key), reservation)));
    }
    let number = |entry_id: &Option<EntryId>| entry_id.map(EntryId::number);
    [
        Bulk { sql: DELETE_CLAIMS, rows: void.len(), columns: vec![Column::Keys(void)] },
        Bulk {
            sql: UPDATE_ENTRIES_OF_CALLS,
            rows: entries.len(),
            columns: vec![
                Column::Keys(entries.iter().map(|(key, _)| *key).collect()),
                Column::OptNumbers(entries.iter().map(|(_, entry)| number(entry)).collect()),
            ],
        },
        reservations(&reserved),
    ]
}

fn reservations<'b>(reserved: &[(Key, &'b Reservation)]) -> Bulk<'b> {
    let held = || reserved.iter().map(|(_, held)| *held);
    let column = |value: &ReservationValue| match value {
        ReservationValue::Number(of) => Column::Numbers(held().map(of).collect()),
        ReservationValue::OptNumber(of) => Column::OptNumbers(held().map(of).collect()),
        ReservationValue::Text(of) => Column::Texts(held().map(of).collect()),
        ReservationValue::OptText(of) => Column::OptTexts(held().map(of).collect()),
        ReservationValue::OwnText(of) => Column::OwnTexts(held().map(of).collect()),
    };
    let mut columns = vec![Column::Keys(reserved.iter().map(|(key, _)| *key).collect())];
    columns.extend(RESERVATION_VALUES.iter().map(column));
    Bulk { sql: SAVE_RESERVATIONS, rows: reserved.len(), columns }
}

/// The expired reservations that no command of the group names.
fn expired(book: &Book<'_>) -> Bulk<'static> {
    let is_unnamed = |hold: &&Hold| !book.calls().contains_key(&(hold.tenant_id, hold.call));
    let keys: Vec<Key> =
        book.expired().iter().filter(is_unnamed).map(|hold| Key(hold.call)).collect();
    Bulk { sql: EXPIRE, rows: keys.len(), columns: vec![Column::Keys(keys)] }
}

/// The changed months and rates of the accounts.
fn accounts(book: &Book<'_>) -> [Bulk<'static>; 2] {
    let mut months: [Vec<i64>; 9] = Default::default();
    let mut rates: [Vec<i64>; 4] = Default::default();
    for (integration_id, account) in book.accounts() {
        let scope = integration_id.number();
        for (month, counter) in account.changed_months() {
            let row = [
                scope,
                month.number().into(),
                counter.used.cost.get(),
                counter.used.tokens,
                counter.used.calls,
                counter.held.cost.get(),
                counter.held.tokens,
                counter.held.calls,
                counter.last_at.micros(),
            ];
            months.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        }
        for (slot, second, calls) in account.rate.changed() {
            let row = [scope, slot.into(), second, calls.into()];
            rates.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        }
    }
    let bulk = |sql, columns: Vec<Vec<i64>>| Bulk {
        sql,
        rows: columns.first().map_or(0, Vec::len),
        columns: columns.into_iter().map(Column::Numbers).collect(),
    };
    [bulk(UPSERT_COUNTERS, months.into()), bulk(UPSERT_RATES, rates.into())]
}

fn rollups<'b>(rollups: &BTreeMap<RollupKey<'b>, Rollup>) -> Bulk<'b> {
    let key = |of: fn(&RollupKey<'b>) -> i64| Column::Numbers(rollups.keys().map(of).collect());
    let text = |of: fn(&RollupKey<'b>) -> &'b str| Column::Texts(rollups.keys().map(of).collect());
    let mut columns = vec![
        key(|key| key.integration_id.number()),
        key(|key| key.grain.code()),
        key(|key| key.start.into()),
        text(|key| key.provider),
        text(|key| key.label),
        key(|key| key.key.code()),
    ];
    let mut figures = [const { Vec::new() }; FIGURES];
    for rollup in rollups.values() {
        figures.iter_mut().zip(rollup.figures()).for_each(|(column, figure)| column.push(figure));
    }
    columns.extend(figures.map(Column::Numbers));
    Bulk { sql: UPSERT_ROLLUPS, rows: rollups.len(), columns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::codec;

    #[test]
    fn the_statement_sets_the_code_of_expired_reservations() {
        let expired = codec::reservation_state_code(bursar_core::ReservationState::Expired);
        assert!(EXPIRE.contains(&format!("state = {expired},")));
    }
}
