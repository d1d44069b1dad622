//! Writes when keys were used last.
//!
//! Keys that another transaction has locked are skipped. So a rotation or a revocation on another
//! node does not wait for this, and no deadlock is possible.

use bursar_core::{KeyId, TenantId, Timestamp};

use super::tx::{params, store_error};
use super::writer_state::PostgresWriter;
use crate::error::StoreError;
use crate::write::writer_connection::last_used_replaced_until;

const SET_LAST_USED: &str = "update keys set last_used_at = used.at \
     from (select own.key_id, fresh.at from unnest($2::bigint[], $3::bigint[], $4::bigint[]) \
     as fresh (id, at, before) cross join lateral (select key_id from keys \
     where tenant_id = $1 and key_id = fresh.id \
     and (last_used_at is null or last_used_at <= fresh.before) \
     for no key update skip locked) own) used \
     where keys.tenant_id = $1 and keys.key_id = used.key_id";

/// Writes when keys were used last, unless the stored instant is recent enough.
pub(super) fn set_last_used(
    writer: &mut PostgresWriter,
    tenant_id: TenantId,
    uses: &[(KeyId, Timestamp)],
) -> Result<(), StoreError> {
    let tenant = tenant_id.number();
    let ids: Vec<i64> = uses.iter().map(|(key_id, _)| key_id.number()).collect();
    let at: Vec<i64> = uses.iter().map(|(_, at)| at.micros()).collect();
    let before: Vec<i64> = uses.iter().map(|(_, at)| last_used_replaced_until(*at)).collect();
    writer.query_in_tx(Some(tenant_id), async |client| {
        let keys = params![tenant, ids, at, before];
        client.execute_typed(SET_LAST_USED, keys).await.map(|_| ()).map_err(store_error)
    })
}
