//! What can be asked of storage beside the write path: reads, which never wait for a writer.

use std::sync::Arc;

use async_trait::async_trait;
use bursar_core::{
    Account, CallId, ClockState, Counter, Day, DecisionId, EntryId, IntegrationId, KeyId, Month,
    PolicyResult, ReasonCode, Reservation, SignalId, TenantId, Timestamp, Verdict,
};

use crate::audit::chain::{AuditEntry, AuditFilter, AuditPage, ChainPosition};
use crate::cache::Cache;
use crate::clock::decidable;
use crate::error::StoreError;
use crate::read::breakdown::{Breakdown, BreakdownFilter, Series, SeriesFilter};
use crate::read::near_limit::NearLimit;
use crate::read::read_context::ReadContext;
use crate::read::sums::Sums;
use crate::rows::protection::{OverrideRow, SignalRow};
use crate::rows::row::{DecisionRow, IntegrationRow, KeyRow, TenantRow, UsageRow};

/// A page by offset.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Rows to pass over.
    pub offset: u32,
    /// Rows to give.
    pub limit: u32,
}

/// Rows of a page, and how many there are in all.
#[derive(Clone, Debug)]
pub struct Paged<T> {
    pub rows: Vec<T>,
    /// All that match.
    pub total: i64,
}

/// Which integrations are asked for.
#[derive(Clone, Debug, Default)]
pub struct IntegrationFilter {
    /// Only in this status.
    pub status: Option<bursar_core::IntegrationStatus>,
    /// Only of this provider.
    pub provider_type: Option<String>,
}

/// A place in the history, which runs from the newest to the oldest entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HistoryPosition {
    /// The instant of the entry.
    pub occurred_at: Timestamp,
    /// The entry, which orders entries of one instant.
    pub entry_id: EntryId,
}

/// Which entries are asked for.
#[derive(Clone, Debug, Default)]
pub struct HistoryFilter {
    pub integration_id: Option<IntegrationId>,
    pub model: Option<String>,
    pub agent_id: Option<String>,
    pub session_id: Option<String>,
    pub policy_result: Option<PolicyResult>,
    pub errors_only: bool,
    /// From this instant on.
    pub start: Option<Timestamp>,
    /// Up to, not including, this instant.
    pub end: Option<Timestamp>,
    /// Only what comes after this place, that is, older entries.
    pub after: Option<HistoryPosition>,
}

/// Which entries of the history make up a page.
#[derive(Clone, Copy, Debug)]
pub enum HistoryPart {
    /// Up to so many, for a reader who goes on at [`HistoryPage::next`]. Filters that seldom meet,
    /// and entries with long texts, make a page shorter.
    UpTo(u32),
    /// The page at an offset, for a reader who adds up offsets: as many entries as it asks for,
    /// unless the history ends in it. [`StoreError::ReadTooLarge`] when its texts have more than
    /// 4 MiB.
    Whole(Page),
}

/// A page of the history.
#[derive(Clone, Debug, Default)]
pub struct HistoryPage {
    pub rows: Vec<UsageRow>,
    /// Where the next page begins, if there may be more.
    pub next: Option<HistoryPosition>,
}

/// Which calls are counted; by rollups, so only by what they tell apart.
#[derive(Clone, Debug)]
pub struct CallFilter {
    /// Only of this integration.
    pub integration_id: Option<IntegrationId>,
    /// Only of this model or agent.
    pub label: Option<CallLabel>,
    /// Only calls that came out like this.
    pub outcome: Option<CallOutcome>,
    /// From this day on.
    pub first: Day,
    /// Up to this day, inclusive.
    pub last: Day,
}

/// A label that rollups tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallLabel {
    /// A model, of whatever provider.
    Model(String),
    Agent(String),
}

/// How a call came out, as far as rollups count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// With an error.
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

/// Which days are asked for.
#[derive(Clone, Copy, Debug)]
pub struct DayFilter {
    /// Only of this integration.
    pub integration_id: Option<IntegrationId>,
    /// From this day on.
    pub first: Day,
    /// Up to this day, inclusive.
    pub last: Day,
    /// Only what comes after this place.
    pub after: Option<DayPosition>,
}

/// A place in the list of days and integrations, which runs from the first day to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DayPosition {
    pub day: Day,
    /// The integration, which orders the rows of a day.
    pub integration_id: IntegrationId,
}

/// A page of the list of days and integrations.
#[derive(Clone, Debug, Default)]
pub struct DayPage {
    /// The rows, by day and then by integration.
    pub rows: Vec<DayUsage>,
    /// Where the next page begins, if there is more.
    pub next: Option<DayPosition>,
    /// All rows that match, before and after the page; nothing when they are more than are counted.
    pub total: Option<i64>,
}

/// Rows of the list of days and integrations that are counted for a total.
pub(crate) const DAYS_COUNTED_MAX: i64 = 10_000;

impl DayPage {
    /// What is told of `counted` rows, of which no more than [`DAYS_COUNTED_MAX`] and one were
    /// looked for.
    pub(crate) fn total_of(counted: i64) -> Option<i64> {
        (counted <= DAYS_COUNTED_MAX).then_some(counted)
    }
}

impl DayFilter {
    /// The day and the integration after which the rows come, as they are stored.
    pub(crate) fn start(&self) -> (i32, i64) {
        let after = self.after.map(|place| (place.day.number(), place.integration_id.number()));
        after.unwrap_or((i32::MIN, i64::MIN))
    }
}

/// Which decisions are asked for.
#[derive(Clone, Debug, Default)]
pub struct DecisionFilter {
    /// Only about this integration.
    pub integration_id: Option<IntegrationId>,
    /// Only about this call.
    pub call_id: Option<String>,
    /// Only with this answer.
    pub verdict: Option<Verdict>,
    /// Only for this reason, the first one of the decision.
    pub code: Option<ReasonCode>,
    /// Only those that were met again at or after this instant.
    pub start: Option<Timestamp>,
    /// Only those that were met first before this instant.
    pub end: Option<Timestamp>,
    /// Only older ones than this.
    pub before: Option<DecisionId>,
}

/// An account as it stands, with the instant to decide at.
#[derive(Clone, Debug)]
pub struct AccountSnapshot {
    /// The account, in which only holds that are open at `now` count.
    pub account: Account,
    pub now: Timestamp,
}

/// An open reservation in a list.
#[derive(Clone, Debug)]
pub struct OpenReservation {
    pub call_id: CallId,
    pub reservation: Reservation,
}

/// How much is stored, for whoever watches the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Tenants, whatever their lifecycle.
    pub tenants: i64,
    /// Reservations that hold now.
    pub open_reservations: i64,
    /// What the data takes on disk, in bytes; 0 when it cannot be told.
    pub data_bytes: u64,
    /// What the write-ahead log takes on disk, in bytes; 0 when it cannot be told.
    pub log_bytes: u64,
    /// Whether the log is kept until the next start, because the data file was not synced.
    pub is_log_kept: bool,
}

/// A store of Bursar: what any of its databases answers.
///
/// Every method about a tenant takes the tenant first and answers nothing of any other. A method
/// that lists or sums is refused with [`StoreError::Overloaded`] when too many of the tenant wait,
/// and with [`StoreError::ReadTooLarge`] when it takes too long or finds too much.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Bursar's time, by which everything is decided; it is not the wall clock's.
    fn now(&self) -> Timestamp {
        self.clock().now
    }

    /// Bursar's time and the wall clock beside it, looked at now.
    fn clock(&self) -> ClockState;

    /// Whether writes and decisions go on.
    ///
    /// # Errors
    /// [`StoreError::ClockJumped`] while the wall clock is ahead and not believed.
    fn check_clock(&self) -> Result<(), StoreError> {
        decidable(&self.clock()).map(|_| ())
    }

    /// Asks whether the database answers, and takes writes, by a way that no other question takes.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Whether the next write may fail for want of room on the disk, as far as that can be told without
    /// a write. Cheap, and never wrong in the other direction for long: a probe decides.
    fn doubts_writes(&self) -> bool {
        false
    }

    /// The same store, read for someone whose answer may take only so much memory.
    fn with_context(&self, context: ReadContext) -> Arc<dyn Store>;

    /// The account of an integration with the current month, deleted integrations included.
    async fn account_snapshot(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<Option<AccountSnapshot>, StoreError>;

    /// A month of an account, in which only holds that are open now count; what nobody used is the
    /// default.
    async fn counter(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
        month: Month,
    ) -> Result<Counter, StoreError>;

    /// The open reservations of a tenant, or of one integration, by expiry.
    async fn open_reservations(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        page: Page,
    ) -> Result<Paged<OpenReservation>, StoreError>;

    async fn tenant(&self, tenant_id: TenantId) -> Result<Option<TenantRow>, StoreError>;

    /// The tenants, oldest first.
    async fn tenants(&self, page: Page) -> Result<Paged<TenantRow>, StoreError>;

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

    /// A live integration.
    async fn integration(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<Option<IntegrationRow>, StoreError>;

    /// Whether the tenant has or had this integration; its usage stays when it is deleted.
    async fn knows_integration(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<bool, StoreError>;

    /// The live integrations of a tenant, oldest first.
    async fn integrations(
        &self,
        tenant_id: TenantId,
        filter: IntegrationFilter,
        page: Page,
    ) -> Result<Paged<IntegrationRow>, StoreError>;

    /// Usage by integration over days, both inclusive; integrations without calls are absent.
    async fn usage_by_integration(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        first: Day,
        last: Day,
    ) -> Result<Vec<IntegrationUsage>, StoreError>;

    /// Usage by day and integration, in this order; days without calls are absent.
    async fn usage_by_day(
        &self,
        tenant_id: TenantId,
        filter: DayFilter,
        page: Page,
    ) -> Result<DayPage, StoreError>;

    /// How many calls were recorded, by the counters.
    async fn recorded_calls(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
    ) -> Result<i64, StoreError>;

    /// How many calls match, by the rollups of their days; nothing where these cannot tell, because
    /// the label has none of its own or they are too many to be looked at.
    async fn counted_calls(
        &self,
        tenant_id: TenantId,
        filter: CallFilter,
    ) -> Result<Option<i64>, StoreError>;

    /// Entries, newest first by (`occurred_at`, id).
    async fn usage_history(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
        part: HistoryPart,
    ) -> Result<HistoryPage, StoreError>;

    /// A page of the history for an export: as many entries as fit into memory while a slow client
    /// takes them.
    async fn export_page(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
    ) -> Result<HistoryPage, StoreError>;

    /// Usage over days by what took most of it; nothing when the days have more sessions than can
    /// be told apart.
    async fn usage_breakdown(
        &self,
        tenant_id: TenantId,
        filter: BreakdownFilter,
    ) -> Result<Option<Breakdown>, StoreError>;

    /// Usage step by step, by what took most of it.
    async fn usage_series(
        &self,
        tenant_id: TenantId,
        filter: SeriesFilter,
    ) -> Result<Series, StoreError>;

    /// Decisions other than "allowed", newest first.
    async fn decisions(
        &self,
        tenant_id: TenantId,
        filter: DecisionFilter,
        limit: u32,
    ) -> Result<Vec<DecisionRow>, StoreError>;

    /// Rows of the audit log, newest first by (`at`, id).
    async fn audit(
        &self,
        tenant_id: TenantId,
        filter: AuditFilter,
        limit: u32,
    ) -> Result<AuditPage, StoreError>;

    /// Rows of the audit log from its beginning, after a place of it: rows of no chain by their id,
    /// then the chain. Fewer than asked for are the last ones.
    async fn audit_chain(
        &self,
        tenant_id: TenantId,
        after: Option<ChainPosition>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError>;

    /// What protection did, newest first.
    async fn signals(
        &self,
        tenant_id: TenantId,
        before: Option<SignalId>,
        limit: u32,
    ) -> Result<Vec<SignalRow>, StoreError>;

    /// The thresholds that a tenant has instead of the configured ones, by dimension; those that
    /// are expired are absent.
    async fn protection_overrides(
        &self,
        tenant_id: TenantId,
    ) -> Result<Vec<OverrideRow>, StoreError>;

    /// What a tenant spent on a day, in nano-dollars, over all integrations and by rollups.
    async fn cost_of_day(&self, tenant_id: TenantId, day: Day) -> Result<i128, StoreError>;

    /// What it keeps in memory for a while, for the operator.
    fn caches(&self) -> Vec<&dyn Cache> {
        Vec::new()
    }

    /// The live integrations that have a monthly limit and were used this month, those nearest to
    /// a limit first, at most `limit`, of all tenants; while others want the room, one tenant has a
    /// quarter of it.
    ///
    /// For the operator only: it is the one read that crosses tenants, beside [`Store::tenants`].
    async fn near_limits(&self, limit: usize) -> Result<Vec<NearLimit>, StoreError>;

    /// How much is stored, of all tenants.
    async fn stats(&self) -> Result<StoreStats, StoreError>;
}
