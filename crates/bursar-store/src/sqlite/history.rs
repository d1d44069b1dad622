//! The scans of the history: one statement for each index.

use super::open::SqliteStore;
use crate::read::entries::{HistoryPart, HistoryReads};
use async_trait::async_trait;
use bursar_core::{EntryId, IntegrationId, TenantId};
use rusqlite::{Connection, named_params, params};

use super::error::store_error;
use super::readers::Snapshot;
use crate::error::StoreError;
use crate::read::entries::{HistoryFilter, HistoryPage};
use crate::read::history::{HistoryIndex, HistoryMerge, PageLimits};
use crate::rows::codec;
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::decode;
use crate::rows::entry_columns::entry_columns;
use crate::rows::row::UsageRow;

const INTEGRATIONS: &str = "select integration_id from integrations \
     where tenant_id = :tenant and (:integration is null or integration_id = :integration)";
const BY_TIME: &str = "select occurred_at, entry_id, (:model is null or model = :model) \
     and (:agent is null or agent_id is :agent) and (:session is null or session_id is :session) \
     and (:policy is null or policy_result = :policy) \
     and (:errors_only = 0 or error_code is not null) \
     from usage_entries indexed by usage_entries_by_time \
     where tenant_id = :tenant and integration_id = :integration \
     and occurred_at between :first_at and :last_at \
     and (occurred_at, entry_id) < (:after_at, :after_id) \
     order by occurred_at desc, entry_id desc";
const BY_MODEL: &str = "select occurred_at, entry_id, (:agent is null or agent_id is :agent) \
     and (:session is null or session_id is :session) \
     and (:policy is null or policy_result = :policy) \
     and (:errors_only = 0 or error_code is not null) \
     from usage_entries indexed by usage_entries_by_model \
     where tenant_id = :tenant and integration_id = :integration and model = :model \
     and occurred_at between :first_at and :last_at \
     and (occurred_at, entry_id) < (:after_at, :after_id) \
     order by occurred_at desc, entry_id desc";
const BY_AGENT: &str = "select occurred_at, entry_id, \
     (:integration is null or integration_id = :integration) \
     and (:model is null or model = :model) and (:session is null or session_id is :session) \
     and (:policy is null or policy_result = :policy) \
     and (:errors_only = 0 or error_code is not null) \
     from usage_entries indexed by usage_entries_by_agent \
     where tenant_id = :tenant and agent_id = :agent \
     and occurred_at between :first_at and :last_at \
     and (occurred_at, entry_id) < (:after_at, :after_id) \
     order by occurred_at desc, entry_id desc";
const BY_SESSION: &str = "select occurred_at, entry_id, \
     (:integration is null or integration_id = :integration) \
     and (:model is null or model = :model) and (:agent is null or agent_id is :agent) \
     and (:policy is null or policy_result = :policy) \
     and (:errors_only = 0 or error_code is not null) \
     from usage_entries indexed by usage_entries_by_session \
     where tenant_id = :tenant and session_id = :session \
     and occurred_at between :first_at and :last_at \
     and (occurred_at, entry_id) < (:after_at, :after_id) \
     order by occurred_at desc, entry_id desc";
const FAILED: &str = "select occurred_at, entry_id, \
     (:integration is null or integration_id = :integration) \
     and (:model is null or model = :model) and (:agent is null or agent_id is :agent) \
     and (:session is null or session_id is :session) \
     and (:policy is null or policy_result = :policy) and :errors_only <> 0 \
     from usage_entries indexed by usage_entries_failed \
     where tenant_id = :tenant and error_code is not null \
     and occurred_at between :first_at and :last_at \
     and (occurred_at, entry_id) < (:after_at, :after_id) \
     order by occurred_at desc, entry_id desc";
const NOT_ALLOWED: &str = "select occurred_at, entry_id, \
     (:integration is null or integration_id = :integration) \
     and (:model is null or model = :model) and (:agent is null or agent_id is :agent) \
     and (:session is null or session_id is :session) \
     and (:errors_only = 0 or error_code is not null) \
     from usage_entries indexed by usage_entries_not_allowed \
     where tenant_id = :tenant and policy_result = :policy and policy_result <> 1 \
     and occurred_at between :first_at and :last_at \
     and (occurred_at, entry_id) < (:after_at, :after_id) \
     order by occurred_at desc, entry_id desc";
const SELECT_ENTRY: &str = concat!(
    "select ",
    entry_columns!(entry_names),
    " from usage_entries where entry_id = ?1 and tenant_id = ?2"
);

#[async_trait]
impl HistoryReads for SqliteStore {
    async fn usage_history(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
        part: HistoryPart,
    ) -> Result<HistoryPage, StoreError> {
        self.read(tenant_id, move |db| usage_history(db, tenant_id, &filter, part.into())).await
    }

    async fn export_page(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
    ) -> Result<HistoryPage, StoreError> {
        self.read(tenant_id, move |db| usage_history(db, tenant_id, &filter, PageLimits::EXPORT))
            .await
    }
}

/// A page within these limits.
pub(super) fn usage_history(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    filter: &HistoryFilter,
    limits: PageLimits,
) -> Result<HistoryPage, StoreError> {
    let index = HistoryIndex::of(filter);
    let scans = if index.is_of_integration() {
        integrations(db, tenant_id, filter.integration_id)?.into_iter().map(Some).collect()
    } else {
        vec![filter.integration_id]
    };
    let mut merge = HistoryMerge::new(limits, scans.len());
    for integration_id in scans {
        scan(db, (tenant_id, integration_id), (index, filter), &mut merge)?;
    }
    merge.finish().read(|entry_id| entry(db, tenant_id, entry_id))
}

/// The statement that scans an index.
const fn scan_sql(index: HistoryIndex) -> &'static str {
    match index {
        HistoryIndex::Time => BY_TIME,
        HistoryIndex::Model => BY_MODEL,
        HistoryIndex::Agent => BY_AGENT,
        HistoryIndex::Session => BY_SESSION,
        HistoryIndex::Failed => FAILED,
        HistoryIndex::NotAllowed => NOT_ALLOWED,
    }
}

/// The integrations of a tenant, deleted ones included, or only this one.
pub(super) fn integrations(
    db: &Connection,
    tenant_id: TenantId,
    only: Option<IntegrationId>,
) -> Result<Vec<IntegrationId>, StoreError> {
    let mut statement = db.prepare_cached(INTEGRATIONS).map_err(store_error)?;
    let key = named_params! {
        ":tenant": tenant_id.number(),
        ":integration": only.map(IntegrationId::number),
    };
    let mut rows = statement.query(key).map_err(store_error)?;
    let mut ids = Vec::new();
    while let Some(row) = rows.next().map_err(store_error)? {
        ids.push(row.id(0, IntegrationId::from_number)?);
    }
    Ok(ids)
}

/// Scans an index until enough entries match or too many are skipped.
///
/// An index by integration is scanned for `integration_id`. For any other index it is a filter; with
/// `None`, all integrations match.
fn scan(
    db: &Connection,
    (tenant_id, integration_id): (TenantId, Option<IntegrationId>),
    (index, filter): (HistoryIndex, &HistoryFilter),
    merge: &mut HistoryMerge,
) -> Result<(), StoreError> {
    let range = merge.range(filter);
    let key = named_params! {
        ":tenant": tenant_id.number(),
        ":integration": integration_id.map(IntegrationId::number),
        ":first_at": range.first_at,
        ":last_at": range.last_at,
        ":after_at": range.after_at,
        ":after_id": range.after_id,
        ":model": filter.model,
        ":agent": filter.agent_id,
        ":session": filter.session_id,
        ":policy": filter.policy_result.map(codec::policy_code),
        ":errors_only": i64::from(filter.errors_only),
    };
    let mut statement = db.prepare_cached(scan_sql(index)).map_err(store_error)?;
    let mut rows = statement.query(key).map_err(store_error)?;
    let (mut skipped, mut matched) = (0, 0);
    while matched < merge.wanted()
        && let Some(row) = rows.next().map_err(store_error)?
    {
        let position = decode::history_position(row)?;
        if row.flag(2)? {
            matched += 1;
            merge.add_match(position);
            continue;
        }
        skipped += 1;
        if skipped >= merge.skipped_max() {
            merge.stopped_at(position);
            break;
        }
    }
    merge.keep_newest();
    Ok(())
}

fn entry(
    db: &Snapshot<'_>,
    tenant_id: TenantId,
    entry_id: EntryId,
) -> Result<Option<UsageRow>, StoreError> {
    let mut statement = db.prepare_cached(SELECT_ENTRY).map_err(store_error)?;
    let mut rows =
        statement.query(params![entry_id.number(), tenant_id.number()]).map_err(store_error)?;
    let Some(row) = rows.next().map_err(store_error)? else { return Ok(None) };
    db.take_row(row)?;
    decode::usage_row(row).map(Some)
}
