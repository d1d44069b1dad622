//! Writes when keys were used last.

use bursar_core::{KeyId, TenantId, Timestamp};
use rusqlite::{Connection, params};

use super::statement::execute;
use crate::error::StoreError;
use crate::write::writer_connection::last_used_replaced_until;

const SET_LAST_USED: &str = "update keys set last_used_at = ?3 \
     where tenant_id = ?1 and key_id = ?2 and (last_used_at is null or last_used_at <= ?4)";

/// Writes when keys were used last, unless the stored instant is recent enough.
pub(super) fn set_last_used(
    db: &Connection,
    tenant_id: TenantId,
    uses: &[(KeyId, Timestamp)],
) -> Result<(), StoreError> {
    for (key_id, at) in uses {
        let (at, before) = (at.micros(), last_used_replaced_until(*at));
        execute(db, SET_LAST_USED, params![tenant_id.number(), key_id.number(), at, before])?;
    }
    Ok(())
}
