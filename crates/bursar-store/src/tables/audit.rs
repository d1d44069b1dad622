//! The audit log: the statements that are the same for both databases.

use crate::tables::value::{LockedSql, locked};

/// The end of a tenant's chain.
pub(crate) const SELECT_HEAD: LockedSql =
    locked!("select sequence, hash, seal from audit_heads where tenant_id = $1");
pub(crate) const INSERT_AUDIT: &str = "insert into audit (audit_id, tenant_id, at, actor_type, \
     actor_id, address, action, target_type, target_id, request_id, detail, sequence, prev_hash, \
     hash) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
