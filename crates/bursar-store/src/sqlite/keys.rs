//! When keys were used last.

use bursar_core::{TenantId, Timestamp};
use rusqlite::params;

use super::lane::SqliteLane;
use super::store_error;
use crate::error::StoreError;
use crate::lane::stamped_before;
use crate::row::KeyId;

const STAMP_API_KEY: &str = "update api_keys set last_used_at = ?3 \
     where tenant_id = ?1 and api_key_id = ?2 and (last_used_at is null or last_used_at <= ?4)";
const STAMP_INTEGRATION_KEY: &str = "update integration_keys set last_used_at = ?4 \
     where tenant_id = ?1 and integration_id = ?2 and integration_key_id = ?3 \
     and (last_used_at is null or last_used_at <= ?5)";

pub(super) fn stamp(
    lane: &SqliteLane,
    tenant_id: TenantId,
    uses: &[(KeyId, Timestamp)],
) -> Result<(), StoreError> {
    let tenant = tenant_id.number();
    for (key, at) in uses {
        let (at, before) = (at.micros(), stamped_before(*at));
        let stamped = match key {
            KeyId::Api(id) => lane
                .connection
                .prepare_cached(STAMP_API_KEY)
                .and_then(|mut stamp| stamp.execute(params![tenant, id.number(), at, before])),
            KeyId::Integration(integration, id) => {
                let key = params![tenant, integration.number(), id.number(), at, before];
                let stamp = lane.connection.prepare_cached(STAMP_INTEGRATION_KEY);
                stamp.and_then(|mut stamp| stamp.execute(key))
            }
        };
        stamped.map_err(store_error)?;
    }
    Ok(())
}
