//! Keys: API keys of a tenant and keys of its integrations, in one table.
//!
//! The owner of a key is its tenant or, for the key of an integration, that integration. A statement
//! about the keys of an owner has two forms, so that each follows the index of owners.
//!
//! Deliberately absent: writing when keys were used, which locks rows without waiting and is a
//! statement of each database.

use async_trait::async_trait;
use bursar_core::{IntegrationId, KeyId, TenantId, Timestamp};

use super::query::{PagedSql, Query};
use super::value::{FromRow, LockedSql, Sql, locked, values};
use crate::error::StoreError;
use crate::read::page::{Page, Paged};
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::row::KeyRow;
use crate::write::writer_connection::{ControlTx, RowCounts};

/// The owner of keys: a tenant, or one of its integrations.
type Owner = (TenantId, Option<IntegrationId>);

/// A statement about the keys of an owner.
#[derive(Clone, Copy, Debug)]
struct OwnerSql {
    tenant: Sql,
    integration: Sql,
}

/// An [`OwnerSql`] from what it selects and what follows the condition on the owner.
///
/// With a single form, SQLite would read all keys of a tenant by their ids.
macro_rules! of_owner {
    ($select:literal, $after:literal) => {
        OwnerSql {
            tenant: of_owner!($select, "integration_id is null", $after),
            integration: of_owner!($select, "integration_id = $2", $after),
        }
    };
    ($select:literal, $owner:literal, $after:literal) => {
        Sql {
            sqlite: concat!(
                $select,
                " from keys indexed by keys_by_owner where tenant_id = $1 and ",
                $owner,
                $after
            ),
            postgres: concat!($select, " from keys where tenant_id = $1 and ", $owner, $after),
        }
    };
}

impl OwnerSql {
    const fn of(self, (_, integration_id): Owner) -> Sql {
        match integration_id {
            None => self.tenant,
            Some(_) => self.integration,
        }
    }
}

/// A key, unless its integration is deleted.
const SELECT_KEY: &str = "select tenant_id, key_id, integration_id, name, scopes, secret_hash, \
     created_at, created_by, expires_at, revoked_at, last_used_at, replaced_by, account_key_id \
     from keys where tenant_id = $1 and key_id = $2 and (integration_id is null or exists \
     (select 1 from integrations i where i.tenant_id = $1 \
     and i.integration_id = keys.integration_id and i.deleted_at is null))";
const LOCK_KEY: LockedSql = locked!(
    "select tenant_id, key_id, integration_id, name, scopes, secret_hash, \
     created_at, created_by, expires_at, revoked_at, last_used_at, replaced_by, account_key_id \
     from keys where tenant_id = $1 and key_id = $2"
);
const UPSERT_KEY: &str = "insert into keys (tenant_id, key_id, integration_id, name, scopes, \
     secret_hash, created_at, created_by, expires_at, revoked_at, last_used_at, replaced_by, \
     account_key_id) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
     on conflict (tenant_id, key_id) do update set expires_at = excluded.expires_at, \
     revoked_at = excluded.revoked_at, last_used_at = excluded.last_used_at, \
     replaced_by = excluded.replaced_by";
const COUNT_KEYS: OwnerSql = of_owner!("select count(*)", "");
/// Keys of one owner have the same integration: ordering by it as well follows the index.
const LIST_KEYS: OwnerSql = of_owner!(
    "select tenant_id, key_id, integration_id, name, scopes, secret_hash, created_at, created_by, \
     expires_at, revoked_at, last_used_at, replaced_by, account_key_id",
    " order by integration_id, key_id limit $3 offset $4"
);
const COUNT_LIVE: OwnerSql = of_owner!(
    "select count(*) filter (where revoked_at is null \
     and (expires_at is null or expires_at > $3)), count(*) filter (where revoked_at is not null \
     or expires_at <= $3)",
    ""
);
/// The limit is above what any owner has; SQLite knows no offset without one.
const DROP_ENDED: OwnerSql = of_owner!(
    "delete from keys where tenant_id = $1 and key_id in (select key_id",
    " and (revoked_at is not null or expires_at <= $3) \
     order by coalesce(revoked_at, expires_at) desc, key_id desc limit 1000000000 offset $4)"
);

/// Reads of keys.
#[async_trait]
pub trait KeyReads: Send + Sync {
    /// A key of a tenant itself, or of an integration that is not deleted.
    async fn key(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        key_id: KeyId,
    ) -> Result<Option<KeyRow>, StoreError>;

    /// The keys of a tenant itself or of an integration, oldest first.
    async fn keys(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        page: Page,
    ) -> Result<Paged<KeyRow>, StoreError>;
}

#[async_trait]
impl<S: Query> KeyReads for S {
    async fn key(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        key_id: KeyId,
    ) -> Result<Option<KeyRow>, StoreError> {
        let row = self.row(Some(tenant_id), SELECT_KEY, values![tenant_id, key_id]).await?;
        Ok(row.filter(|row: &KeyRow| row.integration_id == integration_id))
    }

    async fn keys(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        page: Page,
    ) -> Result<Paged<KeyRow>, StoreError> {
        let owner = (tenant_id, integration_id);
        let sql = PagedSql { count: COUNT_KEYS.of(owner), list: LIST_KEYS.of(owner) };
        self.page(Some(tenant_id), sql, values![tenant_id, integration_id], page).await
    }
}

impl dyn ControlTx + '_ {
    /// A key, revoked or not, of an integration that is deleted or not; locked until the end of the
    /// transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn key(
        &mut self,
        tenant_id: TenantId,
        key_id: KeyId,
    ) -> Result<Option<KeyRow>, StoreError> {
        self.row(tenant_id, LOCK_KEY, &values![tenant_id, key_id])
    }

    /// Writes a key, new or changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_key(&mut self, row: &KeyRow) -> Result<(), StoreError> {
        let values = values![
            row.tenant_id,
            row.key_id,
            row.integration_id,
            row.name,
            row.scopes,
            row.secret_hash,
            row.created_at,
            row.created_by,
            row.expires_at,
            row.revoked_at,
            row.last_used_at,
            row.replaced_by,
            row.account_key_id,
        ];
        self.execute(row.tenant_id, UPSERT_KEY.into(), &values)
    }

    /// How many keys of an owner are live, and how many have ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn key_counts(&mut self, owner: Owner, now: Timestamp) -> Result<RowCounts, StoreError> {
        let sql = COUNT_LIVE.of(owner);
        Ok(self.row(owner.0, sql, &values![owner.0, owner.1, now])?.unwrap_or_default())
    }

    /// Drops the keys of an owner that have ended, except those that ended last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn drop_ended_keys(
        &mut self,
        owner: Owner,
        now: Timestamp,
        kept: u32,
    ) -> Result<(), StoreError> {
        self.execute(owner.0, DROP_ENDED.of(owner), &values![owner.0, owner.1, now, kept])
    }
}

impl FromRow for KeyRow {
    fn from_row(row: &dyn RawColumns) -> Result<Self, StoreError> {
        Ok(Self {
            tenant_id: row.id(0, TenantId::from_number)?,
            key_id: row.id(1, KeyId::from_number)?,
            integration_id: row.opt_id(2, IntegrationId::from_number)?,
            name: row.opt_text(3)?,
            scopes: row.opt_text(4)?,
            secret_hash: row.bytes(5)?,
            created_at: row.instant(6)?,
            created_by: row.text(7)?,
            expires_at: row.opt_instant(8)?,
            revoked_at: row.opt_instant(9)?,
            last_used_at: row.opt_instant(10)?,
            replaced_by: row.opt_id(11, KeyId::from_number)?,
            account_key_id: row.id(12, KeyId::from_number)?,
        })
    }
}
