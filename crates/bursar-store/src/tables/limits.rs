//! Limits, and the version of a tenant's set of them.

use async_trait::async_trait;
use bursar_core::{Limit, LimitId, LimitSet, TenantId};

use super::query::Query;
use super::value::{FromRow, values};
use crate::cost_guard::CostOverride;
use crate::error::StoreError;
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::limit_row::{LimitRow, limit_columns};
use crate::write::writer_connection::ControlTx;

/// The limits of a tenant, each with the version of the set; nulls with it if there are none.
pub(crate) const SELECT_SET: &str = concat!(
    "select l.*, s.version from limit_sets s left join (select ",
    limit_columns!(),
    " from limits where tenant_id = $1) l on true where s.tenant_id = $1"
);
/// The override of the cost of a day: dimension 3.
pub(crate) const SELECT_COST_OVERRIDE: &str = "select allowed_value, expires_at \
     from protection_overrides where tenant_id = $1 and dimension = 3";
const LIST_LIMITS: &str =
    concat!("select ", limit_columns!(), " from limits where tenant_id = $1 order by limit_id");
const SELECT_LIMIT: &str =
    concat!("select ", limit_columns!(), " from limits where tenant_id = $1 and limit_id = $2");
const NEW_SET: &str = "insert into limit_sets (tenant_id, version) values ($1, 0) \
     on conflict (tenant_id) do nothing";
/// Waits for the groups of commands that count under the present version.
const ADVANCE_SET: &str = "update limit_sets set version = version + 1 where tenant_id = $1";
const UPSERT_LIMIT: &str = concat!(
    "insert into limits (",
    limit_columns!(),
    ", since_version) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, \
     $16, $17, $18, $19, $20, $21, $22, $23, \
     (select version from limit_sets where tenant_id = $1)) on conflict (tenant_id, limit_id) do update set \
     name = excluded.name, amount = excluded.amount, \
     override_amount = excluded.override_amount, override_until = excluded.override_until, \
     override_reason = excluded.override_reason, action = excluded.action, \
     warn_percents = excluded.warn_percents, required = excluded.required, \
     enabled = excluded.enabled, updated_at = excluded.updated_at"
);
const DELETE_POSTINGS: &str = "delete from postings where tenant_id = $1 and limit_id = $2";
const DELETE_SECONDS: &str = "delete from limit_seconds where tenant_id = $1 and limit_id = $2";
const DELETE_VALUES: &str = "delete from limit_values where tenant_id = $1 and limit_id = $2";
const DELETE_ACCOUNTS: &str = "delete from limit_accounts where tenant_id = $1 and limit_id = $2";
const DELETE_LIMIT: &str = "delete from limits where tenant_id = $1 and limit_id = $2";

/// Reads of limits.
#[async_trait]
pub trait LimitReads: Send + Sync {
    /// The limits of a tenant, oldest first.
    async fn limits(&self, tenant_id: TenantId) -> Result<Vec<LimitRow>, StoreError>;
}

#[async_trait]
impl<S: Query> LimitReads for S {
    async fn limits(&self, tenant_id: TenantId) -> Result<Vec<LimitRow>, StoreError> {
        self.rows(tenant_id, LIST_LIMITS, values![tenant_id]).await
    }
}

impl dyn ControlTx + '_ {
    /// Begins a change of a tenant's limits, and waits for the groups of commands that count under
    /// the present ones.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn lock_limits(&mut self, tenant_id: TenantId) -> Result<(), StoreError> {
        self.execute(tenant_id, ADVANCE_SET.into(), &values![tenant_id])?;
        self.limits_change(tenant_id);
        Ok(())
    }

    /// A limit, after `lock_limits`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn limit(
        &mut self,
        tenant_id: TenantId,
        limit_id: LimitId,
    ) -> Result<Option<LimitRow>, StoreError> {
        self.row(tenant_id, SELECT_LIMIT, &values![tenant_id, limit_id])
    }

    /// Writes a limit, new or changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_limit(&mut self, row: &LimitRow) -> Result<(), StoreError> {
        self.execute(row.tenant_id, UPSERT_LIMIT.into(), &row.values())
    }

    /// Deletes a limit with its accounts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_limit(
        &mut self,
        tenant_id: TenantId,
        limit_id: LimitId,
    ) -> Result<(), StoreError> {
        for sql in [DELETE_POSTINGS, DELETE_SECONDS, DELETE_VALUES, DELETE_ACCOUNTS, DELETE_LIMIT] {
            self.execute(tenant_id, sql.into(), &values![tenant_id, limit_id])?;
        }
        Ok(())
    }

    /// Writes the empty set of limits of a new tenant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn put_limit_set(&mut self, tenant_id: TenantId) -> Result<(), StoreError> {
        self.execute(tenant_id, NEW_SET.into(), &values![tenant_id])
    }
}

/// A row of [`SELECT_SET`].
pub(crate) struct SetRow {
    version: i64,
    limit: Option<LimitRow>,
}

impl FromRow for SetRow {
    fn from_row(row: &dyn RawColumns) -> Result<Self, StoreError> {
        let limit = match row.opt_number(0)? {
            None => None,
            Some(_) => Some(LimitRow::from_row(row)?),
        };
        Ok(Self { version: row.int(LimitRow::COLUMNS)?, limit })
    }
}

/// The set of the limits of these rows and the operator's limit.
pub(crate) fn set_of(rows: Vec<SetRow>, guard: Option<Limit>) -> LimitSet {
    let version = rows.first().map_or(0, |row| row.version);
    let limits = rows.into_iter().filter_map(|row| row.limit).map(|row| row.limit);
    LimitSet::new(version, limits.chain(guard).collect())
}

/// `allowed_value, expires_at`.
pub(crate) fn read_cost_override(row: &impl Columns) -> Result<CostOverride, StoreError> {
    Ok((row.int(0)?, row.instant(1)?))
}
