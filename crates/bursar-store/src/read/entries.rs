//! Reads of entries: the history and its export.

use async_trait::async_trait;
use bursar_core::{EntryId, IntegrationId, PolicyResult, TenantId, Timestamp};

use crate::error::StoreError;
use crate::read::page::Page;
use crate::rows::row::UsageRow;

/// A position in the history, which runs from the newest to the oldest entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HistoryPosition {
    pub occurred_at: Timestamp,
    /// Orders the entries of one instant.
    pub entry_id: EntryId,
}

/// A filter of entries.
#[derive(Clone, Debug, Default)]
pub struct HistoryFilter {
    pub integration_id: Option<IntegrationId>,
    pub model: Option<String>,
    pub agent_id: Option<String>,
    pub session_id: Option<String>,
    pub policy_result: Option<PolicyResult>,
    pub errors_only: bool,
    /// The first instant, inclusive.
    pub start: Option<Timestamp>,
    /// The last instant, exclusive.
    pub end: Option<Timestamp>,
    /// Only entries after this position, which are older.
    pub after: Option<HistoryPosition>,
}

/// How to page through the history.
#[derive(Clone, Copy, Debug)]
pub enum HistoryPart {
    /// At most this many entries, for a client that continues at [`HistoryPage::next`].
    ///
    /// Filters with few matches and entries with long texts make a page shorter.
    UpTo(u32),
    /// The page at an offset, for a client that adds up offsets.
    ///
    /// Only the last page has fewer entries than requested. The read fails with
    /// [`StoreError::ReadTooLarge`] if the texts of the page exceed 4 MiB.
    Whole(Page),
}

/// A page of the history.
#[derive(Clone, Debug, Default)]
pub struct HistoryPage {
    pub rows: Vec<UsageRow>,
    /// The position of the next page, if there may be one.
    pub next: Option<HistoryPosition>,
}

/// The entries of a tenant.
#[async_trait]
pub trait HistoryReads: Send + Sync {
    /// Entries, newest first by `occurred_at` and then by id.
    async fn usage_history(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
        part: HistoryPart,
    ) -> Result<HistoryPage, StoreError>;

    /// A page of the history for an export, which is small, because it stays in memory until a slow
    /// client has taken it.
    async fn export_page(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
    ) -> Result<HistoryPage, StoreError>;
}
