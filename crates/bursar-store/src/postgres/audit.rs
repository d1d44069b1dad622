//! The audit log: appends to the chain at the end of a transaction, lists rows, and checks them.

use super::open::{PostgresStore, check_schema, run_blocking};
use crate::audit::reads::AuditReads;
use async_trait::async_trait;
use bursar_core::TenantId;
use tokio::try_join;
use tokio_postgres::{Client, Row};

use super::connect::Address;
use super::error::OpenPostgresError;
use super::fetch::{fetch_all, fetch_list, fetch_number, fetch_optional};
use super::pipeline::{Sent, in_order};
use super::readers::{Reader, read_error};
use super::schema;
use super::store_stats::next_tenants;
use super::tx::{self, Messages, params, store_error};
use super::writer_state::PostgresWriter;
use crate::audit::chain::{
    AuditEntry, AuditFilter, AuditHead, AuditIndex, AuditKey, AuditPage, AuditPageBuilder,
    AuditRange, SCANNED_MAX, audit_entry, audit_head, audit_position,
};
use crate::audit::check::{AuditCheck, AuditReport};
use crate::error::StoreError;
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::row::AuditRow;
use crate::tables::audit::{INSERT_AUDIT, SELECT_HEAD};

/// How many rows a check reads into memory at once.
const ROWS_AT_ONCE: i64 = 5_000;
/// How many tenants a check looks up at once.
const TENANTS_AT_ONCE: usize = 1_000;

/// Makes the planner scan an index in order, whatever the statistics say.
const PLANS: &str =
    "set local enable_sort = off; set local enable_bitmapscan = off; set local jit = off";
/// A check has no time limit.
const BEGIN: &str = "begin isolation level repeatable read read only; \
     set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0; \
     set local enable_sort = off; set local jit = off";
const INSERT_HEAD: &str = "insert into audit_heads (tenant_id, sequence, hash, seal) \
     values ($1, $2, $3, $4) on conflict (tenant_id) do nothing";
const UPDATE_HEAD: &str =
    "update audit_heads set sequence = $2, hash = $3, seal = $4 where tenant_id = $1";
const BY_TIME: &str = "select tenant_id, audit_id, at, actor_type, actor_id, address, action, \
     target_type, target_id, request_id, detail, sequence, prev_hash, hash, matches, \
     place = $10 as is_last from (select tenant_id, audit_id, at, actor_type, actor_id, address, \
     action, target_type, target_id, request_id, detail, sequence, prev_hash, hash, \
     ($6 is null or actor_id = $6) and ($7 is null or action = $7) \
     and ($8 is null or target_type = $8) and ($9 is null or target_id = $9) as matches, \
     row_number() over (order by at desc, audit_id desc) as place from audit \
     where tenant_id = $1 and at between $2 and $3 and (at, audit_id) < ($4, $5) \
     order by at desc, audit_id desc limit $10::bigint) scanned \
     where matches or place = $10 limit $11";
const BY_ACTOR: &str = "select tenant_id, audit_id, at, actor_type, actor_id, address, action, \
     target_type, target_id, request_id, detail, sequence, prev_hash, hash, matches, \
     place = $10 as is_last from (select tenant_id, audit_id, at, actor_type, actor_id, address, \
     action, target_type, target_id, request_id, detail, sequence, prev_hash, hash, \
     ($7 is null or action = $7) and ($8 is null or target_type = $8) \
     and ($9 is null or target_id = $9) as matches, \
     row_number() over (order by at desc, audit_id desc) as place from audit \
     where tenant_id = $1 and actor_id = $6 \
     and at between $2 and $3 and (at, audit_id) < ($4, $5) \
     order by at desc, audit_id desc limit $10::bigint) scanned \
     where matches or place = $10 limit $11";
const BY_ACTION: &str = "select tenant_id, audit_id, at, actor_type, actor_id, address, action, \
     target_type, target_id, request_id, detail, sequence, prev_hash, hash, matches, \
     place = $10 as is_last from (select tenant_id, audit_id, at, actor_type, actor_id, address, \
     action, target_type, target_id, request_id, detail, sequence, prev_hash, hash, \
     ($6 is null or actor_id = $6) and ($8 is null or target_type = $8) \
     and ($9 is null or target_id = $9) as matches, \
     row_number() over (order by at desc, audit_id desc) as place from audit \
     where tenant_id = $1 and action = $7 \
     and at between $2 and $3 and (at, audit_id) < ($4, $5) \
     order by at desc, audit_id desc limit $10::bigint) scanned \
     where matches or place = $10 limit $11";
const BY_TARGET: &str = "select tenant_id, audit_id, at, actor_type, actor_id, address, action, \
     target_type, target_id, request_id, detail, sequence, prev_hash, hash, matches, \
     place = $10 as is_last from (select tenant_id, audit_id, at, actor_type, actor_id, address, \
     action, target_type, target_id, request_id, detail, sequence, prev_hash, hash, \
     ($6 is null or actor_id = $6) and ($7 is null or action = $7) \
     and ($8 is null or target_type = $8) as matches, \
     row_number() over (order by at desc, audit_id desc) as place from audit \
     where tenant_id = $1 and target_id = $9 \
     and at between $2 and $3 and (at, audit_id) < ($4, $5) \
     order by at desc, audit_id desc limit $10::bigint) scanned \
     where matches or place = $10 limit $11";
/// The schema forbids such rows, but an attacker can change the schema.
const COUNT_UNCHAINED: &str =
    "select count(*) from audit where tenant_id = $1 and sequence is null";
const CHAIN: &str = "select tenant_id, audit_id, at, actor_type, actor_id, address, action, \
     target_type, target_id, request_id, detail, sequence, prev_hash, hash from audit \
     where tenant_id = $1 and sequence > $2 order by sequence limit $3";

impl PostgresStore {
    /// Checks the audit log of every tenant, or of one, and blocks until that is done.
    ///
    /// The role must be allowed to read the tables. Servers may be running on the database.
    ///
    /// # Errors
    /// [`OpenPostgresError`] if the database cannot be opened or belongs to another secret key;
    /// [`StoreError`] if it cannot be read.
    pub fn verify_audit(
        url: &str,
        secret_fingerprint: &str,
        audit_key: &AuditKey,
        only: Option<TenantId>,
    ) -> Result<Result<AuditReport, StoreError>, OpenPostgresError> {
        let address = Address::parse(url)?;
        run_blocking(async move {
            let client = address.connect().await?;
            check_schema(&client).await?;
            schema::check_for_reading(&client, secret_fingerprint).await?;
            Ok(verify(&client, audit_key, only).await)
        })
    }
}

#[async_trait]
impl AuditReads for PostgresStore {
    async fn audit(
        &self,
        tenant_id: TenantId,
        filter: AuditFilter,
        limit: u32,
    ) -> Result<AuditPage, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                list(&db, tenant_id, &filter, limit).await
            })
            .await
    }

    async fn audit_chain(
        &self,
        tenant_id: TenantId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.readers
            .read(&self.context, tenant_id, async move |db| {
                chain(&db, tenant_id, after, limit).await
            })
            .await
    }
}

/// Writes the audit rows of the writer's transaction, tenant by tenant.
pub(super) fn write(writer: &mut PostgresWriter) -> Result<(), StoreError> {
    let mut added = std::mem::take(&mut writer.audits);
    added.sort_by_key(|row| row.tenant_id);
    for of_tenant in added.chunk_by(|a, b| a.tenant_id == b.tenant_id) {
        if let Some(first) = of_tenant.first() {
            let tenant_id = first.tenant_id;
            append(writer, tenant_id, of_tenant)
                .map_err(|error| error.into_chain_error(tenant_id))?;
        }
    }
    Ok(())
}

fn append(
    writer: &mut PostgresWriter,
    tenant_id: TenantId,
    added: &[AuditRow],
) -> Result<(), StoreError> {
    let key = writer.audit_key.clone();
    let mut head = lock_head(writer, tenant_id, &key)?;
    let mut entries = Vec::with_capacity(added.len());
    for row in added {
        let (entry, next) = head.append(row, &key)?;
        entries.push(entry);
        head = next;
    }
    writer.query_in_tx(Some(tenant_id), async |client| {
        let mut statements: Vec<Sent<'_, ()>> = Vec::with_capacity(entries.len() + 1);
        for entry in &entries {
            statements.push(Box::pin(insert(client, entry)));
        }
        statements.push(Box::pin(put_head(client, UPDATE_HEAD, &head)));
        in_order(statements).await.map(|_| ())
    })
}

/// Locks the head of a tenant's chain until the end of the transaction, and creates it if needed.
fn lock_head(
    writer: &mut PostgresWriter,
    tenant_id: TenantId,
    key: &AuditKey,
) -> Result<AuditHead, StoreError> {
    if let Some(head) = lock_existing_head(writer, tenant_id)? {
        return Ok(head);
    }
    // If another transaction creates the head meanwhile, the insert waits for it and does nothing.
    let first = AuditHead::empty(tenant_id, key);
    writer
        .query_in_tx(Some(tenant_id), async |client| put_head(client, INSERT_HEAD, &first).await)?;
    let none = || StoreError::Corrupt(format!("the audit log of tenant {tenant_id} has no head"));
    lock_existing_head(writer, tenant_id)?.ok_or_else(none)
}

fn lock_existing_head(
    writer: &mut PostgresWriter,
    tenant_id: TenantId,
) -> Result<Option<AuditHead>, StoreError> {
    let tenant = tenant_id.number();
    let row = writer.query_in_tx(Some(tenant_id), async |client| {
        client.query_typed_opt(SELECT_HEAD.locked, params![tenant]).await.map_err(store_error)
    })?;
    row.map(|row| audit_head(tenant_id, &row)).transpose()
}

async fn put_head(client: &Client, sql: &str, head: &AuditHead) -> Result<(), StoreError> {
    let AuditHead { tenant_id, sequence, hash, seal } = head;
    let tenant = tenant_id.number();
    let done = client
        .execute_typed(sql, params![tenant, *sequence, hash.as_slice(), seal.as_slice()])
        .await;
    done.map(|_| ()).map_err(store_error)
}

async fn insert(client: &Client, entry: &AuditEntry) -> Result<(), StoreError> {
    let link = entry.link;
    let done = client
        .execute_typed(
            INSERT_AUDIT,
            params![
                entry.audit_id.number(),
                entry.tenant_id.number(),
                entry.at.micros(),
                entry.actor_type.as_str(),
                entry.actor_id.as_str(),
                entry.address.as_deref(),
                entry.action.as_str(),
                entry.target_type.as_str(),
                entry.target_id.as_str(),
                entry.request_id.as_str(),
                entry.detail.as_str(),
                link.sequence,
                link.prev_hash.as_slice(),
                link.hash.as_slice(),
            ],
        )
        .await;
    done.map(|_| ()).map_err(store_error)
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
pub(super) async fn list(
    reader: &Reader,
    tenant_id: TenantId,
    filter: &AuditFilter,
    limit: u32,
) -> Result<AuditPage, StoreError> {
    let db = reader.client()?;
    let AuditRange { first_at, last_at, after_at, after_id } = AuditRange::of(filter);
    let scanned_max = i64::try_from(SCANNED_MAX).unwrap_or(i64::MAX);
    let scan = async {
        let found = db
            .query_typed(
                list_sql(AuditIndex::of(filter)),
                params![
                    tenant_id.number(),
                    first_at,
                    last_at,
                    after_at,
                    after_id,
                    filter.actor_id.as_deref(),
                    filter.action.as_deref(),
                    filter.target_type.as_deref(),
                    filter.target_id.as_deref(),
                    scanned_max,
                    i64::from(limit) + 1,
                ],
            )
            .await;
        found.map_err(read_error)
    };
    let ((), found) = try_join!(biased; reader.set(PLANS), scan)?;
    let mut page = AuditPageBuilder::new(limit);
    for row in &found {
        if page.is_complete() {
            break;
        }
        reader.take_row(row)?;
        page.add(row, row.flag(14)?)?;
        if row.flag(15)? {
            page.stopped_at(audit_position(row)?);
        }
    }
    Ok(page.page())
}

/// Rows in the order of the chain.
pub(super) async fn chain(
    db: &Reader,
    tenant_id: TenantId,
    after: Option<i64>,
    limit: u32,
) -> Result<Vec<AuditEntry>, StoreError> {
    let (tenant, after) = (tenant_id.number(), after.unwrap_or(i64::MIN));
    let limit = i64::from(limit);
    fetch_list(db, CHAIN, params![tenant, after, limit], audit_entry).await
}

/// Checks the log of all tenants or of one, on one snapshot.
pub(super) async fn verify(
    db: &Client,
    key: &AuditKey,
    only: Option<TenantId>,
) -> Result<AuditReport, StoreError> {
    tx::set(db, BEGIN, Messages::Separate).await.map_err(read_error)?;
    let mut report = AuditReport::default();
    if let Some(tenant_id) = only {
        report.merge(verify_tenant(db, key, tenant_id).await?);
    }
    let mut after = 0;
    while only.is_none() {
        let tenants = next_tenants(db, after, TENANTS_AT_ONCE).await?;
        let Some(last) = tenants.last() else { break };
        after = last.number();
        for tenant_id in tenants {
            report.merge(verify_tenant(db, key, tenant_id).await?);
        }
    }
    db.batch_execute("commit").await.map_err(read_error)?;
    Ok(report)
}

async fn verify_tenant(
    db: &Client,
    key: &AuditKey,
    tenant_id: TenantId,
) -> Result<AuditReport, StoreError> {
    db.batch_execute(&tx::set_tenant(tenant_id)).await.map_err(read_error)?;
    let mut check = AuditCheck::new(tenant_id);
    let tenant = tenant_id.number();
    // Rows that were written around the server can have any content, and are reported too.
    let mut after = i64::MIN;
    loop {
        let read = |row: &Row| Ok((row.int::<i64>(11)?, audit_entry(row)));
        let some = fetch_all(db, CHAIN, params![tenant, after, ROWS_AT_ONCE], read).await?;
        let Some((last, _)) = some.last() else { break };
        after = *last;
        for (_, entry) in some {
            match entry {
                Ok(entry) => check.check(&entry),
                Err(error) => check.report_unreadable(&error),
            }
        }
    }
    let unchained = fetch_number(db, COUNT_UNCHAINED, params![tenant]).await?;
    check.report_unchained(u64::try_from(unchained).unwrap_or_default());
    let read = |row: &Row| Ok(audit_head(tenant_id, row));
    let head = fetch_optional(db, SELECT_HEAD.plain, params![tenant], read).await?;
    let head = head.transpose().unwrap_or_else(|error| {
        check.report_unreadable(&error);
        None
    });
    Ok(check.finish_with_head(head.as_ref(), key))
}
