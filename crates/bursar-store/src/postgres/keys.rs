//! Keys: API keys of a tenant and keys of its integrations, in one table.
//!
//! The owner of a key is its tenant and, for a key of an integration, that integration. The planner
//! is told the values of each statement, so of the two conditions on the integration one is left.
//!
//! Uses of keys are written key by key, and keys are locked for it without waiting: whoever rotates
//! or revokes one, on whichever node, is not held up, and no two transactions can wait for each other.

use bursar_core::{IntegrationId, KeyId, TenantId, Timestamp};
use tokio::try_join;
use tokio_postgres::{Client, Row};

use super::ask::one;
use super::read::{bounds, integration_row, page};
use super::readers::Reader;
use super::tx::{params, store_error};
use super::writer_state::PostgresWriter;
use crate::error::StoreError;
use crate::read::store::{Page, Paged};
use crate::rows::columns::Columns;
use crate::rows::decode;
use crate::rows::row::KeyRow;
use crate::write::writer_connection::{RowCounts, stamped_before};

const SELECT_KEY: &str = "select tenant_id, key_id, integration_id, name, scopes, secret_hash, \
     created_at, created_by, expires_at, revoked_at, last_used_at, replaced_by from keys \
     where tenant_id = $1 and key_id = $2";
const LOCK_KEY: &str = "select tenant_id, key_id, integration_id, name, scopes, secret_hash, \
     created_at, created_by, expires_at, revoked_at, last_used_at, replaced_by from keys \
     where tenant_id = $1 and key_id = $2 for no key update";
const UPSERT_KEY: &str = "insert into keys (tenant_id, key_id, integration_id, name, scopes, \
     secret_hash, created_at, created_by, expires_at, revoked_at, last_used_at, replaced_by) \
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
     on conflict (tenant_id, key_id) do update set expires_at = excluded.expires_at, \
     revoked_at = excluded.revoked_at, last_used_at = excluded.last_used_at, \
     replaced_by = excluded.replaced_by";
const COUNT_KEYS: &str = "select count(*) from keys where tenant_id = $1 \
     and (integration_id = $2 or ($2 is null and integration_id is null))";
/// Keys of one owner have one integration or none: to order by it too is to read the index in order.
const LIST_KEYS: &str = "select tenant_id, key_id, integration_id, name, scopes, secret_hash, \
     created_at, created_by, expires_at, revoked_at, last_used_at, replaced_by from keys \
     where tenant_id = $1 and (integration_id = $2 or ($2 is null and integration_id is null)) \
     order by integration_id, key_id limit $3 offset $4";
const COUNT_LIVE: &str = "select count(*), count(*) filter (where revoked_at is null \
     and (expires_at is null or expires_at > $3)) from keys where tenant_id = $1 \
     and (integration_id = $2 or ($2 is null and integration_id is null))";
const DROP_ENDED: &str = "delete from keys where tenant_id = $1 and key_id in \
     (select key_id from keys where tenant_id = $1 \
     and (integration_id = $2 or ($2 is null and integration_id is null)) \
     and (revoked_at is not null or expires_at <= $3) \
     order by coalesce(revoked_at, expires_at) desc, key_id desc offset $4)";
const STAMP_KEYS: &str = "update keys set last_used_at = used.at \
     from (select own.key_id, fresh.at from unnest($2::bigint[], $3::bigint[], $4::bigint[]) \
     as fresh (id, at, before) cross join lateral (select key_id from keys \
     where tenant_id = $1 and key_id = fresh.id \
     and (last_used_at is null or last_used_at <= fresh.before) \
     for no key update skip locked) own) used \
     where keys.tenant_id = $1 and keys.key_id = used.key_id";

/// A key of a tenant itself, or of an integration that is not deleted.
pub(super) async fn key(
    db: &Client,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
    key_id: KeyId,
) -> Result<Option<KeyRow>, StoreError> {
    let (tenant, number) = (tenant_id.number(), key_id.number());
    let key = params![tenant, number];
    let key = one(db, SELECT_KEY, key, decode::key_row);
    let key = match integration_id {
        None => key.await?,
        Some(integration_id) => {
            let (owner, key) = try_join!(integration_row(db, tenant_id, integration_id), key)?;
            key.filter(|_| owner.is_some_and(|owner| owner.deleted_at.is_none()))
        }
    };
    Ok(key.filter(|key| key.integration_id == integration_id))
}

/// The keys of an owner, oldest first.
pub(super) async fn list(
    db: &Reader,
    tenant_id: TenantId,
    integration_id: Option<IntegrationId>,
    of: Page,
) -> Result<Paged<KeyRow>, StoreError> {
    let (tenant, integration) = (tenant_id.number(), integration_id.map(IntegrationId::number));
    let (limit, offset) = bounds(of);
    let key = params![tenant, integration, limit, offset];
    page(db, (COUNT_KEYS, LIST_KEYS), key, decode::key_row).await
}

/// A key, revoked ones and those of deleted integrations included; locked.
pub(super) fn lock(
    writer: &mut PostgresWriter,
    tenant_id: TenantId,
    key_id: KeyId,
) -> Result<Option<KeyRow>, StoreError> {
    let (tenant, number) = (tenant_id.number(), key_id.number());
    writer.one(tenant_id, LOCK_KEY, params![tenant, number], decode::key_row)
}

pub(super) fn put(writer: &mut PostgresWriter, row: &KeyRow) -> Result<(), StoreError> {
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
    writer.put(
        *tenant_id,
        UPSERT_KEY,
        params![
            tenant_id.number(),
            key_id.number(),
            integration_id.map(IntegrationId::number),
            *name,
            *scopes,
            secret_hash.as_slice(),
            created_at.micros(),
            *created_by,
            expires_at.map(Timestamp::micros),
            revoked_at.map(Timestamp::micros),
            last_used_at.map(Timestamp::micros),
            replaced_by.map(KeyId::number),
        ],
    )
}

/// How many keys of an owner are good, and how many have ended.
pub(super) fn counts(
    writer: &mut PostgresWriter,
    (tenant_id, integration_id): (TenantId, Option<IntegrationId>),
    now: Timestamp,
) -> Result<RowCounts, StoreError> {
    let (tenant, integration) = (tenant_id.number(), integration_id.map(IntegrationId::number));
    let now = now.micros();
    let counts =
        writer.one(tenant_id, COUNT_LIVE, params![tenant, integration, now], |row: &Row| {
            let (all, live): (u32, u32) = (row.int(0)?, row.int(1)?);
            Ok(RowCounts { live, ended: all.saturating_sub(live) })
        })?;
    Ok(counts.unwrap_or_default())
}

/// Drops the keys of an owner that have ended, but for those that ended last.
pub(super) fn drop_ended(
    writer: &mut PostgresWriter,
    (tenant_id, integration_id): (TenantId, Option<IntegrationId>),
    now: Timestamp,
    kept: u32,
) -> Result<(), StoreError> {
    let (tenant, integration) = (tenant_id.number(), integration_id.map(IntegrationId::number));
    let (now, kept) = (now.micros(), i64::from(kept));
    writer.put(tenant_id, DROP_ENDED, params![tenant, integration, now, kept])
}

/// Writes when keys were used last.
pub(super) fn stamp(
    writer: &mut PostgresWriter,
    tenant_id: TenantId,
    uses: &[(KeyId, Timestamp)],
) -> Result<(), StoreError> {
    let tenant = tenant_id.number();
    let ids: Vec<i64> = uses.iter().map(|(key_id, _)| key_id.number()).collect();
    let at: Vec<i64> = uses.iter().map(|(_, at)| at.micros()).collect();
    let before: Vec<i64> = uses.iter().map(|(_, at)| stamped_before(*at)).collect();
    writer.query_in_tx(Some(tenant_id), async |client| {
        let keys = params![tenant, ids, at, before];
        client.execute_typed(STAMP_KEYS, keys).await.map(|_| ()).map_err(store_error)
    })
}
