//! The store under test, with shortcuts for commands and access to its rows.

use bursar_core::{
    Counter, Day, ExtendOutcome, IntegrationId, LimitSettings, Month, Nanos, RecordMode,
    RecordOutcome, ReleaseOutcome, ReserveOutcome, ReserveRequest, TenantId, Timestamp,
    TokenBuckets, Totals, Usage,
};
use bursar_store::{
    AccountSnapshot, Changed, Control, DayFilter, DayUsage, HistoryFilter, HistoryPart, Page,
    UsageRow,
};

use crate::support::accounts::account_snapshot;
use crate::support::test_database::Cells;
use crate::support::{NewDatabase, World, call_id};

pub(crate) const ALL: Page = Page { offset: 0, limit: 100_000 };

/// Provider, label and calls of a rollup.
type Labelled = (String, String, i64);

/// A new store with a tenant and its first integration.
pub(crate) struct Subject {
    pub(crate) world: World,
}

impl Subject {
    pub(crate) fn new(database: NewDatabase) -> Self {
        Self { world: World::new(database) }
    }

    /// The same store after a restart.
    pub(crate) async fn reopened(self) -> Self {
        Self { world: self.world.reopened().await }
    }

    pub(crate) async fn tenant(&self) -> TenantId {
        self.world.tenant("tenant").await
    }

    /// A tenant with an enabled integration.
    pub(crate) async fn account(&self, limits: LimitSettings) -> (TenantId, IntegrationId) {
        let tenant_id = self.tenant().await;
        (tenant_id, self.world.integration(tenant_id, "integration", limits).await)
    }

    pub(crate) async fn change<T: Send + 'static>(
        &self,
        tenant_id: TenantId,
        change: impl FnMut(&mut Control<'_>) -> Changed<T> + Send + 'static,
    ) -> T {
        self.world.control(tenant_id, change).await.unwrap().unwrap()
    }

    pub(crate) async fn record(&self, tenant_id: TenantId, usage: Usage) -> RecordOutcome {
        self.world.ledger.record(tenant_id, vec![usage]).await.unwrap().remove(0)
    }

    /// Records a call as the server does beyond a threshold.
    pub(crate) async fn record_known(&self, tenant_id: TenantId, usage: Usage) -> RecordOutcome {
        let records = vec![usage];
        let recorded = self.world.ledger.record_as(RecordMode::KnownOnly, tenant_id, records);
        recorded.await.unwrap().remove(0).outcome
    }

    pub(crate) async fn reserve(
        &self,
        tenant_id: TenantId,
        request: ReserveRequest,
    ) -> ReserveOutcome {
        self.world.ledger.reserve(tenant_id, request).await.unwrap()
    }

    pub(crate) async fn release(&self, tenant_id: TenantId, call: &str) -> ReleaseOutcome {
        self.world.ledger.release(tenant_id, call_id(call), None).await.unwrap()
    }

    pub(crate) async fn extend(
        &self,
        tenant_id: TenantId,
        call: &str,
        ttl_seconds: Option<u32>,
    ) -> ExtendOutcome {
        self.world.ledger.extend(tenant_id, call_id(call), None, ttl_seconds).await.unwrap()
    }

    /// The account as readers see it, loaded if need be.
    pub(crate) async fn account_snapshot(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> AccountSnapshot {
        self.world.ledger.load_account(tenant_id, integration_id).await.unwrap();
        account_snapshot(&self.world.store, tenant_id, integration_id).await.unwrap()
    }

    /// A month as readers see it: without holds that are due, swept or not.
    pub(crate) async fn counter(
        &self,
        (tenant_id, integration_id): (TenantId, IntegrationId),
        month: Month,
    ) -> Counter {
        self.world.store.counter(tenant_id, integration_id, month).await.unwrap()
    }

    /// How many holds an account has stored in all of its months, those that are due included.
    pub(crate) fn stored_holds(
        &self,
        (tenant_id, integration_id): (TenantId, IntegrationId),
    ) -> i64 {
        let sql = "select tenant_id, scope_id, held_calls from counters where scope_kind = 1";
        let rows = self.world.database.rows(&[sql]).remove(0);
        let key =
            [tenant_id.number(), integration_id.number()].map(|number| Some(number.to_string()));
        let own = rows.iter().filter(|row| row[..2] == key);
        own.map(|row| row[2].as_ref().unwrap().parse::<i64>().unwrap()).sum()
    }

    /// The current month as readers see it.
    pub(crate) async fn this_month(&self, account: (TenantId, IntegrationId)) -> Counter {
        self.counter(account, self.world.clock.now().month()).await
    }

    pub(crate) async fn history(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
        page: Page,
    ) -> Vec<UsageRow> {
        self.world
            .store
            .usage_history(tenant_id, filter, HistoryPart::Whole(page))
            .await
            .unwrap()
            .rows
    }

    pub(crate) async fn entries(&self, tenant_id: TenantId) -> Vec<UsageRow> {
        self.history(tenant_id, HistoryFilter::default(), ALL).await
    }

    /// Every day and integration of some days.
    pub(crate) async fn days(
        &self,
        tenant_id: TenantId,
        (integration_id, first, last): (Option<IntegrationId>, Day, Day),
    ) -> Vec<DayUsage> {
        let filter = DayFilter { integration_id, first, last, after: None };
        self.world.store.usage_by_day(tenant_id, filter, ALL).await.unwrap().rows
    }

    /// Action, target and actor of every row of the audit log, in order.
    pub(crate) fn audit(&self) -> Vec<[String; 3]> {
        let sql = "select audit_id, action, target_id, actor_id from audit";
        let mut rows = self.world.database.rows(&[sql]).remove(0);
        rows.sort_by_key(|row| row[0].as_ref().unwrap().parse::<i64>().unwrap());
        rows.iter().map(|row| std::array::from_fn(|at| row[at + 1].clone().unwrap())).collect()
    }

    /// Every rollup of a tenant's days by model.
    pub(crate) fn models(&self, tenant_id: TenantId) -> Vec<Labelled> {
        self.rollups(tenant_id, 2)
    }

    /// Every rollup of a tenant's days by agent.
    pub(crate) fn agents(&self, tenant_id: TenantId) -> Vec<Labelled> {
        self.rollups(tenant_id, 3)
    }

    /// Every rollup of a tenant's days by value of a tag.
    pub(crate) fn tags(&self, tenant_id: TenantId) -> Vec<Labelled> {
        self.rollups(tenant_id, 4)
    }

    /// Key and calls of every rollup of a tenant's days by model and key.
    pub(crate) fn keys(&self, tenant_id: TenantId) -> Vec<(i64, i64)> {
        let rows = self.rollup_rows(tenant_id, 2);
        let number = |row: &Cells, at: usize| row[at].as_ref().unwrap().parse().unwrap();
        rows.iter().map(|row| (number(row, 5), number(row, 4))).collect()
    }

    fn rollups(&self, tenant_id: TenantId, grain: i64) -> Vec<Labelled> {
        let rows = self.rollup_rows(tenant_id, grain);
        let text = |row: &Cells, at: usize| row[at].clone().unwrap();
        rows.iter().map(|row| (text(row, 2), text(row, 3), text(row, 4).parse().unwrap())).collect()
    }

    /// Tenant, grain, provider, label, calls and key of rollups.
    fn rollup_rows(&self, tenant_id: TenantId, grain: i64) -> Vec<Cells> {
        let sql = "select tenant_id, grain, provider, label, calls, key_id from rollups \
             order by integration_id, start, provider, label, key_id";
        let mut rows = self.world.database.rows(&[sql]).remove(0);
        let key = [tenant_id.number(), grain].map(|number| Some(number.to_string()));
        rows.retain(|row| row[..2] == key);
        rows
    }
}

pub(crate) fn unlimited() -> LimitSettings {
    LimitSettings::default()
}

/// Cost in nano-dollars, tokens and calls.
pub(crate) fn totals(cost: Nanos, tokens: i64, calls: i64) -> Totals {
    Totals { cost, tokens, calls }
}

pub(crate) fn tokens(tokens_in: i64, tokens_out: i64) -> TokenBuckets {
    TokenBuckets::new(tokens_in, tokens_out, 0, 0, 0).unwrap()
}

/// The instant `seconds` before another.
pub(crate) fn earlier(at: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_micros(at.micros() - seconds * 1_000_000).unwrap()
}
