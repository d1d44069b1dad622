//! The trait [`Store`] and the types of its reads. Reads never wait for a writer.

use std::sync::Arc;

use async_trait::async_trait;
use bursar_core::{
    Account, CallId, ClockState, Counter, Day, DecisionId, EntryId, IntegrationId, KeyId, Month,
    PolicyResult, ReasonCode, Reservation, TenantId, Timestamp, Verdict,
};

use crate::audit::chain::{AuditEntry, AuditFilter, AuditPage};
use crate::cache::Cache;
use crate::clock::decidable;
use crate::error::StoreError;
use crate::read::breakdown::{Breakdown, BreakdownFilter, Series, SeriesFilter};
use crate::read::near_limit::NearLimit;
use crate::read::read_context::ReadContext;
use crate::read::sums::Sums;
use crate::rows::row::{KeyRow, UsageRow};
use crate::tables::decisions::Decisions;
use crate::tables::integrations::Integrations;
use crate::tables::overrides::Overrides;
use crate::tables::signals::Signals;
use crate::tables::tenants::Tenants;

/// A page by offset.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// How many rows to skip.
    pub offset: u32,
    /// How many rows to return at most.
    pub limit: u32,
}

/// The rows of a page, and the total.
#[derive(Clone, Debug)]
pub struct Paged<T> {
    pub rows: Vec<T>,
    /// How many rows match, on all pages.
    pub total: i64,
}

/// A filter of integrations.
#[derive(Clone, Debug, Default)]
pub struct IntegrationFilter {
    pub status: Option<bursar_core::IntegrationStatus>,
    pub provider_type: Option<String>,
}

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

/// A filter of calls to count, limited to what rollups distinguish.
#[derive(Clone, Debug)]
pub struct CallFilter {
    pub integration_id: Option<IntegrationId>,
    pub label: Option<CallLabel>,
    pub outcome: Option<CallOutcome>,
    /// The first day, inclusive.
    pub first: Day,
    /// The last day, inclusive.
    pub last: Day,
}

/// A label that rollups distinguish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallLabel {
    /// A model, of any provider.
    Model(String),
    Agent(String),
}

/// An outcome of calls that rollups count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The call ended with an error.
    Failed,
    /// Blocked by the caller's own policy.
    Blocked,
}

/// The sums of an integration over some days.
#[derive(Clone, Debug)]
pub struct IntegrationUsage {
    pub integration_id: IntegrationId,
    /// Its name, deleted or not.
    pub name: String,
    pub provider_type: String,
    /// What it used.
    pub sums: Sums,
}

/// The sums of an integration on one day.
#[derive(Clone, Copy, Debug)]
pub struct DayUsage {
    pub day: Day,
    pub integration_id: IntegrationId,
    /// What it used.
    pub sums: Sums,
}

/// A filter of days and integrations.
#[derive(Clone, Copy, Debug)]
pub struct DayFilter {
    pub integration_id: Option<IntegrationId>,
    /// The first day, inclusive.
    pub first: Day,
    /// The last day, inclusive.
    pub last: Day,
    /// Only rows after this position.
    pub after: Option<DayPosition>,
}

/// A position in the list of days and integrations, which runs from the first day to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DayPosition {
    pub day: Day,
    /// Orders the rows of a day.
    pub integration_id: IntegrationId,
}

/// A page of the list of days and integrations.
#[derive(Clone, Debug, Default)]
pub struct DayPage {
    /// The rows, by day and then by integration.
    pub rows: Vec<DayUsage>,
    /// The position of the next page, if there is one.
    pub next: Option<DayPosition>,
    /// How many rows match, on all pages; `None` if there are more than [`Store`] counts (10,000).
    pub total: Option<i64>,
}

/// The limit on the rows that are counted for a total.
pub(crate) const DAYS_COUNTED_MAX: i64 = 10_000;

impl DayPage {
    /// The total of `counted` rows, where counting stopped at [`DAYS_COUNTED_MAX`] plus one.
    pub(crate) fn total_of(counted: i64) -> Option<i64> {
        (counted <= DAYS_COUNTED_MAX).then_some(counted)
    }
}

impl DayFilter {
    /// The stored day and integration after which the rows begin.
    pub(crate) fn start(&self) -> (i32, i64) {
        let after = self.after.map(|place| (place.day.number(), place.integration_id.number()));
        after.unwrap_or((i32::MIN, i64::MIN))
    }
}

/// A filter of stored decisions.
#[derive(Clone, Debug, Default)]
pub struct DecisionFilter {
    pub integration_id: Option<IntegrationId>,
    pub call_id: Option<String>,
    pub verdict: Option<Verdict>,
    /// The first reason of the decision.
    pub code: Option<ReasonCode>,
    /// Only decisions that last occurred at this instant or later.
    pub start: Option<Timestamp>,
    /// Only decisions that first occurred before this instant.
    pub end: Option<Timestamp>,
    /// Only decisions older than this one.
    pub before: Option<DecisionId>,
}

/// An account at one instant.
#[derive(Clone, Debug)]
pub struct AccountSnapshot {
    /// The account, without holds that are due at `now`.
    pub account: Account,
    pub now: Timestamp,
}

/// An open reservation in a list.
#[derive(Clone, Debug)]
pub struct OpenReservation {
    pub call_id: CallId,
    pub reservation: Reservation,
}

/// Statistics of a store, for monitoring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Tenants in any lifecycle state.
    pub tenants: i64,
    /// Open reservations that are not due.
    pub open_reservations: i64,
    /// The size of the data on disk; 0 if it is unknown.
    pub data_bytes: u64,
    /// The size of the write-ahead log on disk; 0 if it is unknown.
    pub log_bytes: u64,
    /// Whether the log is kept until the next start, because the data file was not synced.
    pub is_log_kept: bool,
}

/// The reads of a store, which every database implements.
///
/// A method about a tenant takes the tenant id first, and never returns rows of another tenant. A
/// list or a sum fails with [`StoreError::Overloaded`] if too many reads of the tenant wait, and
/// with [`StoreError::ReadTooLarge`] if it takes too long or finds too much.
#[async_trait]
pub trait Store:
    Tenants + Integrations + Decisions + Signals + Overrides + Send + Sync + 'static
{
    /// Bursar's time, which all decisions use; the wall clock can differ from it.
    fn now(&self) -> Timestamp {
        self.clock().now
    }

    /// Bursar's time and the wall clock, read now.
    fn clock(&self) -> ClockState;

    /// Checks that the clock permits writes and decisions.
    ///
    /// # Errors
    /// [`StoreError::ClockJumped`] while the wall clock is ahead and not trusted.
    fn check_clock(&self) -> Result<(), StoreError> {
        decidable(&self.clock()).map(|_| ())
    }

    /// Checks that the database responds and accepts writes, on a connection of its own.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Whether the next write may fail because the disk is full, as far as a cheap check can tell.
    ///
    /// If it may, a write probe decides.
    fn doubts_writes(&self) -> bool {
        false
    }

    /// The same store, whose reads use `context`.
    fn with_context(&self, context: ReadContext) -> Arc<dyn Store>;

    /// The account of an integration, deleted or not, with the current month.
    async fn account_snapshot(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<Option<AccountSnapshot>, StoreError>;

    /// The counter of a month, without due holds; an unused month has the default counter.
    async fn counter(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
        month: Month,
    ) -> Result<Counter, StoreError>;

    /// The open reservations of a tenant or an integration, in order of expiry.
    async fn open_reservations(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        page: Page,
    ) -> Result<Paged<OpenReservation>, StoreError>;

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

    /// Usage by integration from `first` to `last`, inclusive, without integrations that have none.
    async fn usage_by_integration(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        first: Day,
        last: Day,
    ) -> Result<Vec<IntegrationUsage>, StoreError>;

    /// Usage by day and then by integration, without days that have none.
    async fn usage_by_day(
        &self,
        tenant_id: TenantId,
        filter: DayFilter,
        page: Page,
    ) -> Result<DayPage, StoreError>;

    /// The number of recorded calls, from the counters.
    async fn recorded_calls(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
    ) -> Result<i64, StoreError>;

    /// The number of matching calls, from the rollups of their days.
    ///
    /// `None` if the rollups cannot tell: the label has no rollups of its own, or there are too
    /// many of them.
    async fn counted_calls(
        &self,
        tenant_id: TenantId,
        filter: CallFilter,
    ) -> Result<Option<i64>, StoreError>;

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

    /// Usage over some days by group, the largest groups first.
    ///
    /// `None` if the days have more sessions than one read can distinguish.
    async fn usage_breakdown(
        &self,
        tenant_id: TenantId,
        filter: BreakdownFilter,
    ) -> Result<Option<Breakdown>, StoreError>;

    /// Usage by hour or day, for the largest groups.
    async fn usage_series(
        &self,
        tenant_id: TenantId,
        filter: SeriesFilter,
    ) -> Result<Series, StoreError>;

    /// Rows of the audit log, newest first by `at` and then by id.
    async fn audit(
        &self,
        tenant_id: TenantId,
        filter: AuditFilter,
        limit: u32,
    ) -> Result<AuditPage, StoreError>;

    /// Rows of the audit log in the order of the chain, after a sequence number or from the
    /// beginning.
    ///
    /// A page with fewer than `limit` rows is the last.
    async fn audit_chain(
        &self,
        tenant_id: TenantId,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError>;

    /// What a tenant spent on a day over all integrations, in nano-dollars, from rollups.
    async fn cost_of_day(&self, tenant_id: TenantId, day: Day) -> Result<i128, StoreError>;

    /// The caches of the store, for the operator.
    fn caches(&self) -> Vec<&dyn Cache> {
        Vec::new()
    }

    /// The integrations of all tenants that are nearest to a monthly limit, the nearest first.
    ///
    /// A tenant gets more than a quarter of the `limit` rows only if no other tenant needs them.
    /// For the operator only: besides [`Store::tenants`], no other read crosses tenants.
    async fn near_limits(&self, limit: usize) -> Result<Vec<NearLimit>, StoreError>;

    /// Statistics over all tenants.
    async fn stats(&self) -> Result<StoreStats, StoreError>;
}
