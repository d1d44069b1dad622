//! The audit log: appends to the chain, lists rows, and checks them.

use std::path::Path;

use super::open::SqliteStore;
use crate::audit::reads::AuditReads;
use async_trait::async_trait;
use bursar_core::TenantId;
use rusqlite::{Connection, Row, named_params, params};

use super::connect::open_reader;
use super::error::OpenError;
use super::error::store_error;
use super::readers::Snapshot;
use super::schema;
use super::statement::fetch_optional;
use super::writer_state::SqliteWriter;
use crate::audit::chain::{
    AuditEntry, AuditFilter, AuditHead, AuditIndex, AuditKey, AuditPage, AuditPageBuilder,
    AuditRange, audit_entry, audit_head,
};
use crate::audit::check::{AuditCheck, AuditReport};
use crate::error::StoreError;
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::row::AuditRow;
use crate::tables::audit::{INSERT_AUDIT, SELECT_HEAD};

const UPSERT_HEAD: &str = "insert into audit_heads (tenant_id, sequence, hash, seal) \
     values (?1, ?2, ?3, ?4) on conflict (tenant_id) do update set sequence = excluded.sequence, \
     hash = excluded.hash, seal = excluded.seal";
const BY_TIME: &str = "select tenant_id, audit_id, at, actor_type, actor_id, address, action, \
     target_type, target_id, request_id, detail, sequence, prev_hash, hash, \
     (:actor is null or actor_id = :actor) and (:action is null or action = :action) \
     and (:type is null or target_type = :type) and (:target is null or target_id = :target) \
     from audit indexed by audit_by_time where tenant_id = :tenant \
     and at between :first_at and :last_at and (at, audit_id) < (:after_at, :after_id) \
     order by at desc, audit_id desc";
const BY_ACTOR: &str = "select tenant_id, audit_id, at, actor_type, actor_id, address, action, \
     target_type, target_id, request_id, detail, sequence, prev_hash, hash, \
     (:action is null or action = :action) \
     and (:type is null or target_type = :type) and (:target is null or target_id = :target) \
     from audit indexed by audit_by_actor where tenant_id = :tenant and actor_id = :actor \
     and at between :first_at and :last_at and (at, audit_id) < (:after_at, :after_id) \
     order by at desc, audit_id desc";
const BY_ACTION: &str = "select tenant_id, audit_id, at, actor_type, actor_id, address, action, \
     target_type, target_id, request_id, detail, sequence, prev_hash, hash, \
     (:actor is null or actor_id = :actor) \
     and (:type is null or target_type = :type) and (:target is null or target_id = :target) \
     from audit indexed by audit_by_action where tenant_id = :tenant and action = :action \
     and at between :first_at and :last_at and (at, audit_id) < (:after_at, :after_id) \
     order by at desc, audit_id desc";
const BY_TARGET: &str = "select tenant_id, audit_id, at, actor_type, actor_id, address, action, \
     target_type, target_id, request_id, detail, sequence, prev_hash, hash, \
     (:actor is null or actor_id = :actor) and (:action is null or action = :action) \
     and (:type is null or target_type = :type) \
     from audit indexed by audit_by_target where tenant_id = :tenant and target_id = :target \
     and at between :first_at and :last_at and (at, audit_id) < (:after_at, :after_id) \
     order by at desc, audit_id desc";
/// The schema forbids such rows, but an attacker can change the schema.
const COUNT_UNCHAINED: &str = "select count(*) from audit indexed by audit_chain \
     where tenant_id = ?1 and sequence is null";
const CHAIN: &str = "select tenant_id, audit_id, at, actor_type, actor_id, address, action, \
     target_type, target_id, request_id, detail, sequence, prev_hash, hash \
     from audit indexed by audit_chain where tenant_id = ?1 and sequence > ?2 \
     order by sequence limit ?3";
/// All tenants with rows, including those that no longer exist.
const AUDITED_TENANTS: &str = "select tenant_id from tenants union select tenant_id from audit \
     union select tenant_id from audit_heads order by tenant_id";

impl SqliteStore {
    /// Checks the audit log of every tenant, or of one. A server may be running on the file.
    ///
    /// # Errors
    /// [`OpenError`] if the file cannot be opened, has no schema yet or belongs to another secret
    /// key; [`StoreError`] if it cannot be read.
    pub fn verify_audit(
        path: &Path,
        secret_fingerprint: &str,
        audit_key: &AuditKey,
        only: Option<TenantId>,
    ) -> Result<Result<AuditReport, StoreError>, OpenError> {
        let database = |cause| OpenError::Database { path: path.to_owned(), cause };
        let reader = open_reader(path).map_err(database)?;
        schema::check_audited(&reader, path, secret_fingerprint)?;
        Ok(verify(&reader, audit_key, only))
    }
}

#[async_trait]
impl AuditReads for SqliteStore {
    async fn audit(
        &self,
        tenant_id: TenantId,
        filter: AuditFilter,
        limit: u32,
    ) -> Result<AuditPage, StoreError> {
        self.read(tenant_id, move |db| list(db, tenant_id, &filter, limit)).await
    }

    async fn audit_chain(
        &self,
        tenant_id: TenantId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(tenant_id, move |db| chain(db, tenant_id, after, limit)).await
    }
}

/// Appends a row to its tenant's chain.
pub(super) fn put(writer: &SqliteWriter, row: &AuditRow) -> Result<(), StoreError> {
    let (db, key) = (&writer.connection, &writer.audit_key);
    let tenant_id = row.tenant_id;
    let head = head(db, tenant_id)?.unwrap_or_else(|| AuditHead::empty(tenant_id, key));
    let (entry, AuditHead { sequence, hash, seal, .. }) = head.append(row, key)?;
    insert(db, &entry).map_err(|error| error.into_chain_error(tenant_id))?;
    let mut upsert = db.prepare_cached(UPSERT_HEAD).map_err(store_error)?;
    upsert.execute(params![tenant_id.number(), sequence, hash, seal]).map_err(store_error)?;
    Ok(())
}

fn insert(db: &Connection, entry: &AuditEntry) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(INSERT_AUDIT).map_err(store_error)?;
    statement
        .execute(params![
            entry.audit_id.number(),
            entry.tenant_id.number(),
            entry.at.micros(),
            entry.actor_type,
            entry.actor_id,
            entry.address,
            entry.action,
            entry.target_type,
            entry.target_id,
            entry.request_id,
            entry.detail,
            entry.link.sequence,
            entry.link.prev_hash,
            entry.link.hash,
        ])
        .map(|_| ())
        .map_err(store_error)
}

fn head(db: &Connection, tenant_id: TenantId) -> Result<Option<AuditHead>, StoreError> {
    let mut statement = db.prepare_cached(SELECT_HEAD.plain).map_err(store_error)?;
    let mut rows = statement.query(params![tenant_id.number()]).map_err(store_error)?;
    let row = rows.next().map_err(store_error)?;
    row.map(|row| audit_head(tenant_id, row)).transpose()
}

/// The statement for an index.
const fn list_sql(index: AuditIndex) -> &'static str {
    match index {
        AuditIndex::Target => BY_TARGET,
        AuditIndex::Actor => BY_ACTOR,
        AuditIndex::Action => BY_ACTION,
        AuditIndex::Time => BY_TIME,
    }
}

/// Rows, newest first.
pub(super) fn list(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    filter: &AuditFilter,
    limit: u32,
) -> Result<AuditPage, StoreError> {
    let AuditRange { first_at, last_at, after_at, after_id } = AuditRange::of(filter);
    let key = named_params! {
        ":tenant": tenant_id.number(),
        ":first_at": first_at,
        ":last_at": last_at,
        ":after_at": after_at,
        ":after_id": after_id,
        ":actor": filter.actor_id,
        ":action": filter.action,
        ":type": filter.target_type,
        ":target": filter.target_id,
    };
    let mut page = AuditPageBuilder::new(limit);
    let mut statement = db.prepare_cached(list_sql(AuditIndex::of(filter))).map_err(store_error)?;
    let mut rows = statement.query(key).map_err(store_error)?;
    while !page.is_complete()
        && let Some(row) = rows.next().map_err(store_error)?
    {
        let matches = row.flag(14)?;
        if matches {
            db.take_row(row)?;
        }
        page.add(row, matches)?;
    }
    Ok(page.page())
}

/// Rows in the order of the chain.
pub(super) fn chain(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    after: Option<i64>,
    limit: u32,
) -> Result<Vec<AuditEntry>, StoreError> {
    let mut entries = Vec::new();
    let after = after.unwrap_or(i64::MIN);
    each(db, CHAIN, params![tenant_id.number(), after, limit], |row| {
        db.take_row(row)?;
        entries.push(audit_entry(row)?);
        Ok(())
    })?;
    Ok(entries)
}

/// Checks the log of all tenants or of one, on one snapshot.
pub(super) fn verify(
    db: &Connection,
    key: &AuditKey,
    only: Option<TenantId>,
) -> Result<AuditReport, StoreError> {
    let snapshot = db.unchecked_transaction().map_err(store_error)?;
    let mut tenants = Vec::from_iter(only);
    if only.is_none() {
        each(&snapshot, AUDITED_TENANTS, params![], |row| {
            tenants.push(row.id(0, TenantId::from_number)?);
            Ok(())
        })?;
    }
    let mut report = AuditReport::default();
    for tenant_id in tenants {
        report.merge(verify_tenant(&snapshot, key, tenant_id)?);
    }
    Ok(report)
}

fn verify_tenant(
    db: &Connection,
    key: &AuditKey,
    tenant_id: TenantId,
) -> Result<AuditReport, StoreError> {
    let mut check = AuditCheck::new(tenant_id);
    // Rows that were written around the server can have any content, and are reported too.
    each(db, CHAIN, params![tenant_id.number(), i64::MIN, -1], |row| {
        match audit_entry(row) {
            Ok(entry) => check.check(&entry),
            Err(error) => check.report_unreadable(&error),
        }
        Ok(())
    })?;
    let unchained =
        fetch_optional(db, COUNT_UNCHAINED, params![tenant_id.number()], |row| row.int(0))?;
    check.report_unchained(unchained.unwrap_or_default());
    let head = head(db, tenant_id).unwrap_or_else(|error| {
        check.report_unreadable(&error);
        None
    });
    Ok(check.finish_with_head(head.as_ref(), key))
}

fn each(
    db: &Connection,
    sql: &str,
    key: impl rusqlite::Params,
    mut take: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = db.prepare_cached(sql).map_err(store_error)?;
    let mut rows = statement.query(key).map_err(store_error)?;
    while let Some(row) = rows.next().map_err(store_error)? {
        take(row)?;
    }
    Ok(())
}
