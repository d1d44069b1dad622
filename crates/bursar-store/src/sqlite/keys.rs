//! Keys: API keys of a tenant and keys of its integrations, in one table.
//!
//! The owner of a key is its tenant and, for a key of an integration, that integration.

use bursar_core::{IntegrationId, KeyId, TenantId, Timestamp};
use rusqlite::{Connection, named_params, params};

use super::ask::{change, one};
use super::read::page;
use super::readers::Snapshot;
use crate::error::StoreError;
use crate::read::store::{Page, Paged};
use crate::rows::columns::Columns;
use crate::rows::decode;
use crate::rows::row::KeyRow;
use crate::write::writer_connection::{RowCounts, stamped_before};

const SELECT_KEY: &str = "select tenant_id, key_id, integration_id, name, scopes, secret_hash, \
     created_at, created_by, expires_at, revoked_at, last_used_at, replaced_by from keys \
     where tenant_id = ?1 and key_id = ?2";
const UPSERT_KEY: &str = "insert into keys (tenant_id, key_id, integration_id, name, scopes, \
     secret_hash, created_at, created_by, expires_at, revoked_at, last_used_at, replaced_by) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
     on conflict (tenant_id, key_id) do update set expires_at = excluded.expires_at, \
     revoked_at = excluded.revoked_at, last_used_at = excluded.last_used_at, \
     replaced_by = excluded.replaced_by";
const COUNT_KEYS: &str = "select count(*) from keys indexed by keys_by_owner \
     where tenant_id = :tenant and integration_id is :integration";
const LIST_KEYS: &str = "select tenant_id, key_id, integration_id, name, scopes, secret_hash, \
     created_at, created_by, expires_at, revoked_at, last_used_at, replaced_by \
     from keys indexed by keys_by_owner \
     where tenant_id = :tenant and integration_id is :integration \
     order by key_id limit :limit offset :offset";
const COUNT_LIVE: &str = "select count(*), count(*) filter (where revoked_at is null \
     and (expires_at is null or expires_at > ?3)) from keys indexed by keys_by_owner \
     where tenant_id = ?1 and integration_id is ?2";
const DROP_ENDED: &str = "delete from keys where tenant_id = ?1 and key_id in \
     (select key_id from keys indexed by keys_by_owner \
     where tenant_id = ?1 and integration_id is ?2 \
     and (revoked_at is not null or expires_at <= ?3) \
     order by coalesce(revoked_at, expires_at) desc, key_id desc limit -1 offset ?4)";
const STAMP_KEY: &str = "update keys set last_used_at = ?3 \
     where tenant_id = ?1 and key_id = ?2 and (last_used_at is null or last_used_at <= ?4)";

/// A key, revoked ones and those of deleted integrations included.
pub(super) fn key(
    db: &Connection,
    tenant_id: TenantId,
    key_id: KeyId,
) -> Result<Option<KeyRow>, StoreError> {
    let key = params![tenant_id.number(), key_id.number()];
    one(db, SELECT_KEY, key, |row| decode::key_row(row))
}

pub(super) fn put(db: &Connection, row: &KeyRow) -> Result<(), StoreError> {
    let KeyRow {
        tenant_id,
        key_id,
        integration_id,
        name,
        scopes,
        secret_hash,
        created_at,
        created_by,
        expires_at,
        revoked_at,
        last_used_at,
        replaced_by,
    } = row;
    change(
        db,
        UPSERT_KEY,
        params![
            tenant_id.number(),
            key_id.number(),
            integration_id.map(IntegrationId::number),
            name,
            scopes,
            secret_hash,
            created_at.micros(),
            created_by,
            expires_at.map(Timestamp::micros),
            revoked_at.map(Timestamp::micros),
            last_used_at.map(Timestamp::micros),
            replaced_by.map(KeyId::number),
        ],
    )
}

/// The keys of an owner, oldest first.
pub(super) fn list(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
    of: Page,
) -> Result<Paged<KeyRow>, StoreError> {
    let key = named_params! {
        ":tenant": tenant_id.number(),
        ":integration": integration_id.map(IntegrationId::number),
    };
    page(db, (COUNT_KEYS, LIST_KEYS), key, of, |row| decode::key_row(row))
}

/// How many keys of an owner are good, and how many have ended.
pub(super) fn counts(
    db: &Connection,
    (tenant_id, integration_id): (TenantId, Option<IntegrationId>),
    now: Timestamp,
) -> Result<RowCounts, StoreError> {
    let integration = integration_id.map(IntegrationId::number);
    let key = params![tenant_id.number(), integration, now.micros()];
    let counts = one(db, COUNT_LIVE, key, |row| {
        let (all, live): (u32, u32) = (row.int(0)?, row.int(1)?);
        Ok(RowCounts { live, ended: all.saturating_sub(live) })
    })?;
    Ok(counts.unwrap_or_default())
}

/// Drops the keys of an owner that have ended, but for those that ended last.
pub(super) fn drop_ended(
    db: &Connection,
    (tenant_id, integration_id): (TenantId, Option<IntegrationId>),
    now: Timestamp,
    kept: u32,
) -> Result<(), StoreError> {
    let integration = integration_id.map(IntegrationId::number);
    change(db, DROP_ENDED, params![tenant_id.number(), integration, now.micros(), kept])
}

/// Writes when keys were used last.
pub(super) fn stamp(
    db: &Connection,
    tenant_id: TenantId,
    uses: &[(KeyId, Timestamp)],
) -> Result<(), StoreError> {
    for (key_id, at) in uses {
        let (at, before) = (at.micros(), stamped_before(*at));
        change(db, STAMP_KEY, params![tenant_id.number(), key_id.number(), at, before])?;
    }
    Ok(())
}
