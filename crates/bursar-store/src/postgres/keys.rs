//! When keys were used last, and how many there are.
//!
//! Keys are looked up one by one and locked without waiting: whoever rotates or revokes one, on
//! whichever node, is not held up, and no two transactions can wait for each other.

use bursar_core::{TenantId, Timestamp};

use super::tx::{params, store_error};
use super::writer_state::PostgresWriter;
use crate::error::StoreError;
use crate::rows::columns::Columns;
use crate::rows::row::KeyId;
use crate::write::writer_connection::{RowCounts, stamped_before};

pub(super) const COUNT_API_KEYS: &str = "select count(*), \
     count(*) filter (where revoked_at is null and (expires_at is null or expires_at > $2)) from api_keys where tenant_id = $1";
pub(super) const COUNT_INTEGRATION_KEYS: &str = "select count(*), \
     count(*) filter (where revoked_at is null and (expires_at is null or expires_at > $3)) from integration_keys \
     where tenant_id = $1 and integration_id = $2";
pub(super) const DROP_API_KEYS: &str = "delete from api_keys where tenant_id = $1 and api_key_id in \
     (select api_key_id from api_keys where tenant_id = $1 \
     and (revoked_at is not null or expires_at <= $2) \
     order by coalesce(revoked_at, expires_at) desc, api_key_id desc offset $3)";
pub(super) const DROP_INTEGRATION_KEYS: &str = "delete from integration_keys where tenant_id = $1 \
     and integration_id = $2 and integration_key_id in \
     (select integration_key_id from integration_keys where tenant_id = $1 \
     and integration_id = $2 and (revoked_at is not null or expires_at <= $3) \
     order by coalesce(revoked_at, expires_at) desc, integration_key_id desc \
     offset $4)";
const STAMP_API_KEYS: &str = "update api_keys set last_used_at = used.at \
     from (select own.api_key_id, fresh.at from unnest($2::bigint[], $3::bigint[], $4::bigint[]) \
     as fresh (id, at, before) cross join lateral (select api_key_id from api_keys \
     where tenant_id = $1 and api_key_id = fresh.id \
     and (last_used_at is null or last_used_at <= fresh.before) \
     for no key update skip locked) own) used \
     where api_keys.tenant_id = $1 and api_keys.api_key_id = used.api_key_id";
const STAMP_INTEGRATION_KEYS: &str = "update integration_keys set last_used_at = used.at \
     from (select own.integration_id, own.integration_key_id, fresh.at \
     from unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) \
     as fresh (integration, id, at, before) cross join lateral \
     (select integration_id, integration_key_id from integration_keys where tenant_id = $1 \
     and integration_id = fresh.integration and integration_key_id = fresh.id \
     and (last_used_at is null or last_used_at <= fresh.before) \
     for no key update skip locked) own) used where integration_keys.tenant_id = $1 \
     and integration_keys.integration_id = used.integration_id \
     and integration_keys.integration_key_id = used.integration_key_id";

/// Keys of one kind, by column.
#[derive(Default)]
struct Uses {
    integrations: Vec<i64>,
    ids: Vec<i64>,
    at: Vec<i64>,
    before: Vec<i64>,
}

impl Uses {
    fn push(&mut self, id: i64, at: Timestamp) {
        self.ids.push(id);
        self.at.push(at.micros());
        self.before.push(stamped_before(at));
    }
}

pub(super) fn stamp(
    writer: &mut PostgresWriter,
    tenant_id: TenantId,
    uses: &[(KeyId, Timestamp)],
) -> Result<(), StoreError> {
    let tenant = tenant_id.number();
    let (mut api, mut integration) = (Uses::default(), Uses::default());
    for (key, at) in uses {
        match key {
            KeyId::Api(id) => api.push(id.number(), *at),
            KeyId::Integration(integration_id, id) => {
                integration.integrations.push(integration_id.number());
                integration.push(id.number(), *at);
            }
        }
    }
    writer.query_in_tx(Some(tenant_id), async |client| {
        if !api.ids.is_empty() {
            let Uses { ids, at, before, .. } = &api;
            let keys = params![tenant, *ids, *at, *before];
            client.execute_typed(STAMP_API_KEYS, keys).await.map_err(store_error)?;
        }
        if !integration.ids.is_empty() {
            let Uses { integrations, ids, at, before } = &integration;
            let keys = params![tenant, *integrations, *ids, *at, *before];
            client.execute_typed(STAMP_INTEGRATION_KEYS, keys).await.map_err(store_error)?;
        }
        Ok(())
    })
}

/// How many keys are good, of how many.
pub(super) fn counts(row: &tokio_postgres::Row) -> Result<RowCounts, StoreError> {
    let (all, live): (u32, u32) = (row.int(0)?, row.int(1)?);
    Ok(RowCounts { live, ended: all.saturating_sub(live) })
}
