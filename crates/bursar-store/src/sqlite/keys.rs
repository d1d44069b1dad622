//! When keys were used last, and how many there are.

use bursar_core::{IntegrationId, TenantId, Timestamp};
use rusqlite::{Connection, Row, params};

use super::error::store_error;
use super::writer_state::SqliteWriter;
use crate::error::StoreError;
use crate::rows::columns::Columns;
use crate::rows::row::KeyId;
use crate::write::writer_connection::{RowCounts, stamped_before};

const COUNT_API_KEYS: &str = "select count(*), count(*) filter (where revoked_at is null \
     and (expires_at is null or expires_at > ?2)) from api_keys where tenant_id = ?1";
const COUNT_INTEGRATION_KEYS: &str = "select count(*), count(*) filter (where revoked_at is null \
     and (expires_at is null or expires_at > ?3)) from integration_keys \
     where tenant_id = ?1 and integration_id = ?2";
const DROP_API_KEYS: &str = "delete from api_keys where tenant_id = ?1 and api_key_id in \
     (select api_key_id from api_keys where tenant_id = ?1 \
     and (revoked_at is not null or expires_at <= ?2) \
     order by coalesce(revoked_at, expires_at) desc, api_key_id desc limit -1 offset ?3)";
const DROP_INTEGRATION_KEYS: &str = "delete from integration_keys where tenant_id = ?1 \
     and integration_id = ?2 and integration_key_id in \
     (select integration_key_id from integration_keys where tenant_id = ?1 \
     and integration_id = ?2 and (revoked_at is not null or expires_at <= ?3) \
     order by coalesce(revoked_at, expires_at) desc, integration_key_id desc \
     limit -1 offset ?4)";
const STAMP_API_KEY: &str = "update api_keys set last_used_at = ?3 \
     where tenant_id = ?1 and api_key_id = ?2 and (last_used_at is null or last_used_at <= ?4)";
const STAMP_INTEGRATION_KEY: &str = "update integration_keys set last_used_at = ?4 \
     where tenant_id = ?1 and integration_id = ?2 and integration_key_id = ?3 \
     and (last_used_at is null or last_used_at <= ?5)";

pub(super) fn stamp(
    writer: &SqliteWriter,
    tenant_id: TenantId,
    uses: &[(KeyId, Timestamp)],
) -> Result<(), StoreError> {
    let tenant = tenant_id.number();
    for (key, at) in uses {
        let (at, before) = (at.micros(), stamped_before(*at));
        let stamped = match key {
            KeyId::Api(id) => writer
                .connection
                .prepare_cached(STAMP_API_KEY)
                .and_then(|mut stamp| stamp.execute(params![tenant, id.number(), at, before])),
            KeyId::Integration(integration, id) => {
                let key = params![tenant, integration.number(), id.number(), at, before];
                let stamp = writer.connection.prepare_cached(STAMP_INTEGRATION_KEY);
                stamp.and_then(|mut stamp| stamp.execute(key))
            }
        };
        stamped.map_err(store_error)?;
    }
    Ok(())
}

/// How many keys are good, of how many.
fn counts(row: &Row<'_>) -> Result<RowCounts, StoreError> {
    let (all, live): (u32, u32) = (row.int(0)?, row.int(1)?);
    Ok(RowCounts { live, ended: all.saturating_sub(live) })
}

fn count(db: &Connection, sql: &str, key: impl rusqlite::Params) -> Result<RowCounts, StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(store_error)?;
    let mut rows = statement.query(key).map_err(store_error)?;
    rows.next().map_err(store_error)?.map_or(Ok(RowCounts::default()), counts)
}

fn change(db: &Connection, sql: &str, key: impl rusqlite::Params) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(store_error)?;
    statement.execute(key).map(|_| ()).map_err(store_error)
}

/// How many API keys a tenant has.
pub(super) fn api_key_counts(
    db: &Connection,
    tenant_id: TenantId,
    now: Timestamp,
) -> Result<RowCounts, StoreError> {
    count(db, COUNT_API_KEYS, params![tenant_id.number(), now.micros()])
}

/// How many keys an integration has.
pub(super) fn integration_key_counts(
    db: &Connection,
    (tenant_id, integration_id): (TenantId, IntegrationId),
    now: Timestamp,
) -> Result<RowCounts, StoreError> {
    let key = params![tenant_id.number(), integration_id.number(), now.micros()];
    count(db, COUNT_INTEGRATION_KEYS, key)
}

/// Drops API keys that have ended, but for the last.
pub(super) fn drop_api_keys(
    db: &Connection,
    tenant_id: TenantId,
    now: Timestamp,
    kept: u32,
) -> Result<(), StoreError> {
    change(db, DROP_API_KEYS, params![tenant_id.number(), now.micros(), kept])
}

/// Drops keys of an integration that have ended, but for the last.
pub(super) fn drop_integration_keys(
    db: &Connection,
    (tenant_id, integration_id): (TenantId, IntegrationId),
    now: Timestamp,
    kept: u32,
) -> Result<(), StoreError> {
    let key = params![tenant_id.number(), integration_id.number(), now.micros(), kept];
    change(db, DROP_INTEGRATION_KEYS, key)
}
