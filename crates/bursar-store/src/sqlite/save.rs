//! Saves a book: entries, calls, counters, rates and rollups, aggregated once for the group.

use std::collections::BTreeMap;

use bursar_core::{
    Account, Book, Call, CallKey, EntryId, IntegrationId, ReservationState, TenantId,
};
use rusqlite::{Connection, ToSql, params, params_from_iter};

use super::error::{store_error, sum_error};
use super::labels::StoredLabels;
use super::limits;
use super::writer_state::SqliteWriter;
use crate::error::StoreError;
use crate::read::tenant_sums::{bytes_of_integrations, open_changes};
use crate::rows::codec;
use crate::rows::codec::SCOPE_INTEGRATION;
use crate::rows::counted_tags::{CountedTags, counted_tags};
use crate::rows::entry_columns::{ENTRY_VALUES, EntryValue, entry_columns};
use crate::rows::reservation_columns::{RESERVATION_VALUES, ReservationValue, reservation_columns};
use crate::rows::rollup::{RollupKey, aggregate};
use crate::rows::rollup_columns::{Rollup, rollup_figures};

const INSERT_ENTRY: &str = concat!(
    "insert into usage_entries (tenant_id, ",
    entry_columns!(entry_names),
    ", counted_tags) values (?, ",
    entry_columns!(entry_marks),
    ", ?)"
);
const SAVE_RESERVATION: &str = concat!(
    "insert into reservations (tenant_id, call_key, ",
    reservation_columns!(entry_names),
    ") values (?, ?, ",
    reservation_columns!(entry_marks),
    ") on conflict (tenant_id, call_key) do update set expires_at = excluded.expires_at, \
     state = excluded.state, ended_at = excluded.ended_at"
);
const UPDATE_ENTRY: &str = "update calls set entry_id = ?3 where tenant_id = ?1 and call_key = ?2";
const DELETE_CLAIM: &str = "delete from calls where tenant_id = ?1 and call_key = ?2";
const EXPIRE: &str = "update reservations set state = ?3, ended_at = expires_at \
     where tenant_id = ?1 and call_key = ?2";
const UPSERT_COUNTER: &str = "insert into counters (tenant_id, scope_kind, scope_id, month, \
     used_cost_nanos, used_tokens, used_calls, held_cost_nanos, held_tokens, held_calls, last_at) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
     on conflict (tenant_id, scope_kind, scope_id, month) do update set \
     used_cost_nanos = excluded.used_cost_nanos, used_tokens = excluded.used_tokens, \
     used_calls = excluded.used_calls, held_cost_nanos = excluded.held_cost_nanos, \
     held_tokens = excluded.held_tokens, held_calls = excluded.held_calls, \
     last_at = excluded.last_at";
const UPSERT_RESERVATIONS: &str = "insert into open_reservations (tenant_id, reservations) \
     values (?1, ?2) on conflict (tenant_id) do update set \
     reservations = reservations + excluded.reservations";
const UPSERT_BYTES: &str = "insert into stored_bytes (tenant_id, day, integration_id, bytes) \
     values (?1, ?2, ?3, ?4) on conflict (tenant_id, day, integration_id) do update set \
     bytes = bytes + excluded.bytes";
const UPSERT_RATE: &str = "insert into rate_slots (tenant_id, scope_kind, scope_id, slot, second, \
     calls) values (?1, ?2, ?3, ?4, ?5, ?6) \
     on conflict (tenant_id, scope_kind, scope_id, slot) do update set \
     second = excluded.second, calls = excluded.calls";
const UPSERT_ROLLUP: &str = concat!(
    "insert into rollups (tenant_id, integration_id, grain, start, provider, label, key_id, ",
    rollup_figures!(figure_names),
    ") values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ",
    rollup_figures!(figure_marks),
    ") on conflict (tenant_id, integration_id, grain, start, provider, label, key_id) \
     do update set ",
    rollup_figures!(figure_merges)
);

/// Writes all changes of a book.
pub(super) fn book(writer: &SqliteWriter, book: &Book<'_>) -> Result<(), StoreError> {
    let db = &writer.connection;
    let tags = counted_tags(book.entries(), &mut StoredLabels(db))?;
    entries(db, book.entries(), &tags)?;
    for (key, call) in book.calls() {
        let claimed = writer.claims.get(key).copied();
        if claimed.is_some() || call.is_changed() {
            self::call(db, book, *key, call, claimed)?;
        }
    }
    expired(db, book)?;
    for (integration_id, account) in book.accounts() {
        counters(db, *integration_id, account)?;
    }
    rollups(db, &aggregate(book.entries(), &tags, &mut StoredLabels(db))?)?;
    limits::save(db, book.limits())?;
    limits::save_postings(db, book.holds())?;
    tenants(db, book)
}

/// Writes the sums that the caps of tenants limit.
fn tenants(db: &Connection, book: &Book<'_>) -> Result<(), StoreError> {
    let mut upsert = db.prepare_cached(UPSERT_RESERVATIONS).map_err(store_error)?;
    for (tenant_id, change) in open_changes(book.holds()) {
        let added = upsert.execute(params![tenant_id.number(), change]);
        added.map_err(|error| sum_error(error, "open reservations"))?;
    }
    let day = book.now().day().number();
    let mut upsert = db.prepare_cached(UPSERT_BYTES).map_err(store_error)?;
    for ((tenant_id, integration_id), bytes) in bytes_of_integrations(book.entries()) {
        let row = params![tenant_id.number(), day, integration_id.number(), bytes];
        upsert.execute(row).map_err(|error| sum_error(error, "stored bytes"))?;
    }
    Ok(())
}

fn entries(
    db: &Connection,
    entries: &[bursar_core::Entry<'_>],
    tags: &[CountedTags],
) -> Result<(), StoreError> {
    let mut insert = db.prepare_cached(INSERT_ENTRY).map_err(store_error)?;
    for (entry, tags) in entries.iter().zip(tags) {
        insert.raw_bind_parameter(1, entry.tenant_id.number()).map_err(store_error)?;
        for (value, at) in ENTRY_VALUES.iter().zip(2..) {
            let bound = match value {
                EntryValue::Number(of) => insert.raw_bind_parameter(at, of(entry)),
                EntryValue::OptNumber(of) => insert.raw_bind_parameter(at, of(entry)),
                EntryValue::Text(of) => insert.raw_bind_parameter(at, of(entry)),
                EntryValue::OptText(of) => insert.raw_bind_parameter(at, of(entry)),
                EntryValue::OwnText(of) => insert.raw_bind_parameter(at, of(entry)),
            };
            bound.map_err(store_error)?;
        }
        let last = ENTRY_VALUES.len() + 2;
        insert.raw_bind_parameter(last, tags.number()).map_err(store_error)?;
        insert.raw_execute().map_err(store_error)?;
    }
    Ok(())
}

/// Writes what became of a call id: its entry and its reservation, or removes the claim on it.
///
/// `claimed` is the entry under which this group claimed it; `None` if it was stored before.
fn call(
    db: &Connection,
    book: &Book<'_>,
    (tenant_id, key): (TenantId, CallKey),
    call: &Call,
    claimed: Option<Option<EntryId>>,
) -> Result<(), StoreError> {
    let (tenant, key) = (tenant_id.number(), key.0.to_be_bytes());
    let entry_id = book.entry_id(call);
    if claimed.is_some() && call.is_void() {
        let mut delete = db.prepare_cached(DELETE_CLAIM).map_err(store_error)?;
        delete.execute(params![tenant, key]).map_err(store_error)?;
    } else if entry_id != claimed.flatten() {
        let mut update = db.prepare_cached(UPDATE_ENTRY).map_err(store_error)?;
        let entry = entry_id.map(EntryId::number);
        update.execute(params![tenant, key, entry]).map_err(store_error)?;
    }
    let Some(reservation) = &call.reservation else { return Ok(()) };
    let mut save = db.prepare_cached(SAVE_RESERVATION).map_err(store_error)?;
    save.raw_bind_parameter(1, tenant).map_err(store_error)?;
    save.raw_bind_parameter(2, key).map_err(store_error)?;
    for (value, at) in RESERVATION_VALUES.iter().zip(3..) {
        let bound = match value {
            ReservationValue::Number(of) => save.raw_bind_parameter(at, of(reservation)),
            ReservationValue::OptNumber(of) => save.raw_bind_parameter(at, of(reservation)),
            ReservationValue::Text(of) => save.raw_bind_parameter(at, of(reservation)),
            ReservationValue::OptText(of) => save.raw_bind_parameter(at, of(reservation)),
            ReservationValue::OwnText(of) => save.raw_bind_parameter(at, of(reservation)),
        };
        bound.map_err(store_error)?;
    }
    save.raw_execute().map(|_| ()).map_err(store_error)
}

/// Ends the expired reservations that no command of the group names.
fn expired(db: &Connection, book: &Book<'_>) -> Result<(), StoreError> {
    let state = codec::reservation_state_code(ReservationState::Expired);
    let mut expire = db.prepare_cached(EXPIRE).map_err(store_error)?;
    for hold in book.expired() {
        if !book.calls().contains_key(&(hold.tenant_id, hold.call)) {
            let key = hold.call.0.to_be_bytes();
            expire.execute(params![hold.tenant_id.number(), key, state]).map_err(store_error)?;
        }
    }
    Ok(())
}

fn counters(
    db: &Connection,
    integration_id: IntegrationId,
    account: &Account,
) -> Result<(), StoreError> {
    let tenant = account.tenant_id.number();
    let scope = integration_id.number();
    let mut upsert = db.prepare_cached(UPSERT_COUNTER).map_err(store_error)?;
    for (month, counter) in account.changed_months() {
        upsert
            .execute(params![
                tenant,
                SCOPE_INTEGRATION,
                scope,
                month.number(),
                counter.used.cost.get(),
                counter.used.tokens,
                counter.used.calls,
                counter.held.cost.get(),
                counter.held.tokens,
                counter.held.calls,
                counter.last_at.micros(),
            ])
            .map_err(store_error)?;
    }
    let mut upsert = db.prepare_cached(UPSERT_RATE).map_err(store_error)?;
    for (slot, second, calls) in account.rate.changed() {
        upsert
            .execute(params![tenant, SCOPE_INTEGRATION, scope, slot, second, calls])
            .map_err(store_error)?;
    }
    Ok(())
}

fn rollups(db: &Connection, rollups: &BTreeMap<RollupKey<'_>, Rollup>) -> Result<(), StoreError> {
    let mut upsert = db.prepare_cached(UPSERT_ROLLUP).map_err(store_error)?;
    for (key, rollup) in rollups {
        let RollupKey { tenant_id, integration_id, grain, start, provider, label, key } = key;
        let (tenant, integration) = (tenant_id.number(), integration_id.number());
        let (grain, key, figures) = (grain.code(), key.code(), rollup.figures());
        let key: [&dyn ToSql; 7] = [&tenant, &integration, &grain, start, provider, label, &key];
        let figures = figures.iter().map(|figure| figure as &dyn ToSql);
        upsert
            .execute(params_from_iter(key.into_iter().chain(figures)))
            .map_err(|error| sum_error(error, "the figures of a day"))?;
    }
    Ok(())
}
