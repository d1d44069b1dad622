//! Reads of the PostgreSQL store: how many rows they read, and what happens to their connections.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::indexing_slicing, reason = "a missing row fails the test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_core::{Day, IntegrationId, LimitInForce, Month, OwnedSubject, PolicyResult, TenantId};
use bursar_store::{
    AccountReads, AuditFilter, AuditKey, AuditReads, BreakdownFilter, CallFilter, CallLabel,
    DayFilter, DayPosition, DayReads, GroupBy, HistoryFilter, HistoryPart, HistoryReads,
    IntegrationReads, KeyReads, Page, PostgresOptions, PostgresStore, SeriesFilter, SeriesReads,
    Step, Store, SummaryReads, TenantReads,
};
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;
use bursar_testing::postgres::session::ask;

use crate::support::TestClock;
use crate::support::postgres_database::rows_read;

/// The time limit of a wait.
const LIMIT: Duration = Duration::from_secs(30);
/// Entries of the tenant.
const ENTRIES: i64 = 100_000;
/// Integrations of the tenant.
const INTEGRATIONS: i64 = 20;
/// The limit on the entries that a page skips.
const SKIPPED_MAX: i64 = 20_000;
/// The day of the last entry.
const TODAY: i32 = 20_526;

fn migrated() -> Database {
    Database::migrated(Cluster::shared(), |owner_url, app_role| {
        PostgresStore::migrate(owner_url, app_role).unwrap();
    })
}

fn open(database: &Database, readers: usize) -> Arc<PostgresStore> {
    let clock = TestClock::default();
    clock.set(Day::from_number(TODAY).start());
    let options = PostgresOptions {
        writers: 1,
        readers,
        secret_fingerprint: "fingerprint".to_owned(),
        audit_key: AuditKey::new([7; 32]),
        clock: Some(clock.clocks()),
    };
    let (store, writers) = PostgresStore::open(database.app_url(), &options).unwrap();
    // Dropping a writer blocks, which is not allowed on a thread of the runtime.
    std::thread::spawn(move || drop(writers)).join().unwrap();
    store
}

fn tenant() -> TenantId {
    TenantId::from_number(1).unwrap()
}

fn integration(number: i64) -> IntegrationId {
    IntegrationId::from_number(100 + number).unwrap()
}

/// Creates a tenant with many entries, half of them of one integration, and rollups of three years.
///
/// The planner's statistics are from a time with one small tenant only: a plan must be as good
/// without statistics as with them.
fn fill(database: &Database) {
    // Statistics are only updated by the test.
    let sql = "alter table usage_entries set (autovacuum_enabled = false);
         alter table rollups set (autovacuum_enabled = false);
         alter table integrations set (autovacuum_enabled = false);";
    ask(database.owner_url(), sql).unwrap();
    grow(database, 2, 100);
    analyze(database);
    grow(database, 1, ENTRIES);
}

/// Updates the planner's statistics.
fn analyze(database: &Database) {
    ask(database.owner_url(), "analyze usage_entries, rollups, integrations").unwrap();
}

fn grow(database: &Database, tenant: i64, entries: i64) {
    let days = if tenant == 1 { 1_095 } else { 3 };
    let sql = format!(
        "begin;
         set local bursar.tenant_id = '{tenant}';
         insert into tenants values ({tenant}, 'tenant', 1, 1, 1, 1);
         insert into integrations select {tenant}, 100 + n, 'integration ' || n, 'openai', null,
             '{{}}', null, 2, 1, null, null, null, 0, 0, 0, 1, 1, 1, 'operator', null
             from generate_series(1, {INTEGRATIONS}) n;
         insert into usage_entries (tenant_id, entry_id, integration_id, occurred_at, created_at,
             tokens_in, tokens_out, tokens_cache_read, tokens_cache_write, tokens_cache_write_long,
             tokens_audio_in, tokens_image_in, tokens_reasoning, tokens_audio_out,
             tokens_image_out, counted_tags, source, limits_version, cost_nanos, kind, cost_source, usage_status,
             policy_result, call_id, session_id, agent_id, provider, model, error_code)
             select {tenant}, n,
             case when n % 2 = 0 then 101 else 102 + n / 2 % ({INTEGRATIONS} - 1) end,
             ({TODAY} + 1)::bigint * 86400000000 - n * 864000, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 7, 1, 1, 1, 2,
             'call ' || n, 'session ' || n % 2, 'agent', 'openai', 'model', 'failed'
             from generate_series(1::bigint, {entries}) n;
         insert into rollups select {tenant}, 100 + i, g, s, 'openai', 'model', 0,
             1, 1, 0, 0, 0, 1, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
             0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
             from generate_series(1, {INTEGRATIONS}) i, generate_series(1, 4) g,
             generate_series({TODAY} - {days}, {TODAY}) s;
         insert into rollup_labels values ({tenant}, 1, 'openai', 'model');
         commit;"
    );
    ask(database.app_url(), &sql).unwrap();
}

/// The result of a read, and how many rows of a table it reads. A connection reports that when it
/// ends.
async fn reads_of<T>(
    database: &Database,
    table: &str,
    read: impl AsyncFnOnce(Arc<PostgresStore>) -> T,
) -> (T, i64) {
    let before = rows_read(database, table);
    let result = read(open(database, 1)).await;
    let deadline = Instant::now() + LIMIT;
    while !database.backends().is_empty() {
        assert!(Instant::now() < deadline, "a connection outlives its store");
        tokio::task::yield_now().await;
    }
    (result, rows_read(database, table) - before)
}

#[tokio::test]
async fn a_page_of_keys_reads_only_keys_of_its_owner() {
    let database = migrated();
    ask(database.owner_url(), "alter table keys set (autovacuum_enabled = false)").unwrap();
    // One in a hundred is an API key; the others belong to integrations.
    let sql = format!(
        "begin;
         set local bursar.tenant_id = '1';
         insert into tenants values (1, 'tenant', 1, 1, 1, 1);
         insert into integrations select 1, 100 + n, 'integration ' || n, 'openai', null,
             '{{}}', null, 2, 1, null, null, null, 0, 0, 0, 1, 1, 1, 'operator', null
             from generate_series(1, {INTEGRATIONS}) n;
         insert into keys (tenant_id, key_id, integration_id, name, scopes, secret_hash, created_at,
             created_by, account_key_id)
             select 1, n, case when n % 100 = 0 then null else 101 + n % {INTEGRATIONS} end, 'key',
             case when n % 100 = 0 then '*' end, sha256(''), 1, 'operator', n
             from generate_series(1, 20000) n;
         commit;"
    );
    ask(database.app_url(), &sql).unwrap();
    keys_are_read_by_owner(&database).await;
    ask(database.owner_url(), "analyze keys").unwrap();
    keys_are_read_by_owner(&database).await;
}

async fn keys_are_read_by_owner(database: &Database) {
    let page = Page { offset: 20, limit: 50 };
    for (owner, owned) in [(None, 200), (Some(integration(2)), 1_000)] {
        let (found, read) = reads_of(database, "keys", async |store| {
            store.keys(tenant(), owner, page).await.unwrap()
        })
        .await;
        assert_eq!((found.total, found.rows.len()), (owned, 50));
        assert!(read <= owned + 70, "{owner:?}: {read} of {owned}");
    }
}

/// A filter for each index, and the same with a second filter that matches nothing; whether a page
/// is full.
fn filters() -> Vec<(HistoryFilter, bool)> {
    let any = HistoryFilter::default;
    let text = |text: &str| Some(text.to_owned());
    let warned = Some(PolicyResult::Warned);
    let single = [
        any(),
        HistoryFilter { integration_id: Some(integration(1)), ..any() },
        HistoryFilter { model: text("model"), ..any() },
        HistoryFilter { agent_id: text("agent"), ..any() },
        HistoryFilter { session_id: text("session 1"), ..any() },
        HistoryFilter { errors_only: true, ..any() },
        HistoryFilter { policy_result: warned, ..any() },
    ];
    let without_match = |filter: &HistoryFilter| {
        let HistoryFilter { agent_id, session_id, errors_only, policy_result, .. } = filter;
        if agent_id.is_some() || session_id.is_some() || *errors_only || policy_result.is_some() {
            HistoryFilter { model: text("unused"), ..filter.clone() }
        } else {
            let allowed = Some(PolicyResult::Allowed);
            HistoryFilter { policy_result: allowed, ..filter.clone() }
        }
    };
    let empty = single.iter().map(|filter| (without_match(filter), false)).collect::<Vec<_>>();
    single.into_iter().map(|filter| (filter, true)).chain(empty).collect()
}

#[tokio::test]
async fn a_page_reads_a_limited_number_of_entries() {
    let database = migrated();
    fill(&database);
    pages_are_bounded(&database, 50).await;
    analyze(&database);
    pages_are_bounded(&database, 50).await;
    pages_are_bounded(&database, 1_000).await;
}

async fn pages_are_bounded(database: &Database, limit: u32) {
    for (filter, is_full) in filters() {
        let wanted_filter = filter.clone();
        let (found, read) = reads_of(database, "usage_entries", async |store| {
            let part = HistoryPart::UpTo(limit);
            store.usage_history(tenant(), wanted_filter, part).await.unwrap()
        })
        .await;
        assert_eq!(found.rows.len() == limit as usize, is_full, "{filter:?}");
        assert!(found.next.is_some(), "{filter:?}");
        // A scan reads one entry more than it wants, and the page is read by its keys, twice.
        let wanted = i64::from(limit) + 2;
        let scanned = if is_full { 8 * wanted } else { SKIPPED_MAX + INTEGRATIONS * wanted };
        assert!(
            read > 0 && read <= scanned + 2 * wanted,
            "{read} entries are read for {limit} of {filter:?}"
        );
        if !is_full {
            continue;
        }
        // A page at an offset reads no more.
        let (_, read) = reads_of(database, "usage_entries", async |store| {
            let whole = HistoryPart::Whole(Page { offset: 0, limit });
            store.usage_history(tenant(), filter.clone(), whole).await.unwrap()
        })
        .await;
        assert!(
            read > 0 && read <= scanned + 2 * wanted,
            "{read} entries are read for {limit} at an offset of {filter:?}"
        );
    }
}

/// The limit on the rows of the audit log that a page scans.
const SCANNED_MAX: i64 = 10_000;
/// Rows of the tenant's audit log.
const AUDIT_ROWS: i64 = 40_000;

/// Adds rows to the audit log, a tenth of them by a second actor.
fn audit(database: &Database, tenant: i64, rows: i64) {
    let sql = format!(
        "begin;
         set local bursar.tenant_id = '{tenant}';
         insert into audit (tenant_id, audit_id, at, actor_type, actor_id, action, target_type,
             target_id, request_id, detail, sequence, prev_hash, hash)
             select {tenant}, n, n, 'machine', case when n % 10 = 0 then 'b' else 'a' end,
             'a.update', 'a', 'target ' || n % 3, 'request', '{{}}', n, sha256('x'), sha256('x')
             from generate_series(1::bigint, {rows}) n;
         commit;"
    );
    ask(database.app_url(), &sql).unwrap();
}

#[tokio::test]
async fn a_page_of_the_audit_log_reads_a_limited_number_of_rows() {
    let database = migrated();
    ask(database.owner_url(), "alter table audit set (autovacuum_enabled = false)").unwrap();
    // The planner's statistics are from a time with one small tenant only.
    audit(&database, 2, 100);
    ask(database.owner_url(), "analyze audit").unwrap();
    audit(&database, 1, AUDIT_ROWS);
    audit_pages_are_bounded(&database).await;
    ask(database.owner_url(), "analyze audit").unwrap();
    audit_pages_are_bounded(&database).await;
}

async fn audit_pages_are_bounded(database: &Database) {
    let text = |text: &str| Some(text.to_owned());
    let any = AuditFilter::default;
    let single = [
        any(),
        AuditFilter { actor_id: text("a"), ..any() },
        AuditFilter { actor_id: text("b"), ..any() },
        AuditFilter { action: text("a.update"), ..any() },
        AuditFilter { target_id: text("target 1"), ..any() },
    ];
    for filter in single {
        let empty = AuditFilter { target_type: text("unused"), ..filter.clone() };
        for (filter, is_full) in [(filter, true), (empty, false)] {
            let wanted_filter = filter.clone();
            let (found, read) = reads_of(database, "audit", async |store| {
                store.audit(tenant(), wanted_filter, 50).await.unwrap()
            })
            .await;
            assert_eq!(found.rows.len() == 50, is_full, "{filter:?}");
            let scanned = if is_full { 52 } else { SCANNED_MAX + 2 };
            assert!(read > 0 && read <= scanned, "{read} rows are read for {filter:?}");
        }
    }
    let after = Some(AUDIT_ROWS / 2);
    let (found, read) = reads_of(database, "audit", async |store| {
        store.audit_chain(tenant(), after, 50).await.unwrap()
    })
    .await;
    assert_eq!(found.first().map(|row| row.link.sequence), Some(20_001));
    assert!(read <= 52, "{read} rows are read");
}

#[tokio::test]
async fn sums_read_the_rollups_of_their_days_only() {
    let database = migrated();
    fill(&database);
    sums_are_bounded(&database).await;
    analyze(&database);
    sums_are_bounded(&database).await;
}

async fn sums_are_bounded(database: &Database) {
    let (first, last) = (Day::from_number(TODAY - 29), Day::from_number(TODAY));
    let of_days = 30 * INTEGRATIONS;
    let by = GroupBy::Model;
    let breakdown = BreakdownFilter { by, integration_id: None, first, last, groups_max: 10 };
    let (by, step) = (Some(by), Step::Day);
    let series = SeriesFilter { by, step, integration_id: None, first, last, groups_max: 10 };
    let label = Some(CallLabel::Model("model".to_owned()));
    let calls = CallFilter { integration_id: None, label, outcome: None, first, last };
    let mut read = Vec::new();
    let (days, of_them) = reads_of(database, "rollups", async |store| {
        let filter = DayFilter { integration_id: None, first, last, after: None };
        let page = Page { offset: 0, limit: 10_000 };
        store.usage_by_day(tenant(), filter, page).await.unwrap()
    })
    .await;
    assert_eq!((days.rows.len() as i64, days.total), (of_days, Some(of_days)));
    // The rollups are read to find the page, to count all rows, and to sum up the page.
    read.push(of_them / 3);
    let (integrations, of_them) = reads_of(database, "rollups", async |store| {
        store.usage_by_integration(tenant(), None, first, last).await.unwrap()
    })
    .await;
    assert_eq!(integrations.len() as i64, INTEGRATIONS);
    read.push(of_them);
    let (models, of_them) = reads_of(database, "rollups", async |store| {
        store.usage_breakdown(tenant(), breakdown).await.unwrap().unwrap()
    })
    .await;
    assert_eq!(models.total.calls, of_days);
    read.push(of_them);
    let (counted, of_them) = reads_of(database, "rollups", async |store| {
        store.counted_calls(tenant(), calls).await.unwrap()
    })
    .await;
    assert_eq!(counted, Some(of_days));
    read.push(of_them);
    let (steps, of_them) = reads_of(database, "rollups", async |store| {
        store.usage_series(tenant(), series).await.unwrap()
    })
    .await;
    assert_eq!(steps.steps.len(), 30);
    // The rollups are read for the groups and for the steps.
    read.push(of_them / 2);
    for of_them in &read {
        assert!((1..=of_days + INTEGRATIONS).contains(of_them), "{read:?} of {of_days}");
    }
}

#[tokio::test]
async fn a_page_of_days_reads_only_its_own_rollups() {
    let database = migrated();
    fill(&database);
    pages_of_days_are_bounded(&database).await;
    analyze(&database);
    pages_of_days_are_bounded(&database).await;
}

async fn pages_of_days_are_bounded(database: &Database) {
    let (first, last) = (Day::from_number(TODAY - 1_000), Day::from_number(TODAY));
    let all = 1_001 * INTEGRATIONS;
    for only in [None, Some(integration(3))] {
        let rows = if only.is_some() { 1_001 } else { all };
        let (found, read) = reads_of(database, "rollups", async |store| {
            let filter = DayFilter { integration_id: only, first, last, after: None };
            let page = store.usage_by_day(tenant(), filter, Page { offset: 900, limit: 1 });
            page.await.unwrap()
        })
        .await;
        assert_eq!(found.rows.len(), 1);
        // At most 10,000 rows are counted.
        assert_eq!(found.total, (rows <= 10_000).then_some(rows));
        assert!(read <= 902 + 10_002 + 2, "{read} rollups are read");
        let (found, read) = reads_of(database, "rollups", async |store| {
            let (day, integration_id) = (Day::from_number(TODAY - 10), integration(3));
            let after = Some(DayPosition { day, integration_id });
            let filter = DayFilter { integration_id: only, first, last, after };
            store.usage_by_day(tenant(), filter, Page { offset: 0, limit: 50 }).await.unwrap()
        })
        .await;
        assert_eq!(found.rows.len(), if only.is_some() { 10 } else { 50 });
        assert!(read <= 102 + 10_002 + INTEGRATIONS, "{read} rollups are read after a position");
    }
}

#[tokio::test]
async fn the_limit_on_the_cost_of_a_day_reads_only_its_rollups() {
    let database = migrated();
    fill(&database);
    cost_guard_is_bounded(&database).await;
    analyze(&database);
    cost_guard_is_bounded(&database).await;
}

async fn cost_guard_is_bounded(database: &Database) {
    let subject = OwnedSubject::new(integration(1));
    let (snapshot, read) = reads_of(database, "rollups", async |store| {
        store.guard_cost(100);
        store.account_snapshot(tenant(), subject.clone()).await.unwrap().unwrap()
    })
    .await;
    let in_force = snapshot.limits.in_force(tenant(), &subject.as_subject()).unwrap();
    let LimitInForce { limit, account, period } = in_force.limits[0];
    let state = account.state(&limit.rule.bound, period, snapshot.now).unwrap();
    assert_eq!(state.used, 7 * i128::from(INTEGRATIONS));
    assert!((1..=2 * INTEGRATIONS).contains(&read), "{read} rollups are read");
}

#[tokio::test]
async fn a_month_reads_only_the_holds_that_are_due() {
    let database = migrated();
    let sql = "alter table reservations set (autovacuum_enabled = false)";
    ask(database.owner_url(), sql).unwrap();
    fill(&database);
    // Ten of 20,000 holds are due.
    let sql = "begin; set local bursar.tenant_id = '1';
         insert into counters values (1, 1, 101, 0, 0, 0, 0, 20000, 20000, 20000, 1);
         insert into reservations (tenant_id, call_key, call_id, integration_id,
             estimated_cost_nanos, estimated_tokens, ttl_seconds, reserved_at, expires_at, state,
             limits_version)
             select 1, gen_random_uuid(), 'call ' || n, 101, 1, 1, 1, 1,
             case when n <= 10 then 2 else 253402300799999999 end, 1, 0
             from generate_series(1, 20000) n;
         commit";
    ask(database.app_url(), sql).unwrap();
    holds_are_bounded(&database).await;
    analyze(&database);
    ask(database.owner_url(), "analyze reservations").unwrap();
    holds_are_bounded(&database).await;
}

async fn holds_are_bounded(database: &Database) {
    let month = Month::from_number(0);
    let (counter, read) = reads_of(database, "reservations", async |store| {
        store.counter(tenant(), integration(1), month).await.unwrap()
    })
    .await;
    assert_eq!(counter.held.calls, 19_990);
    assert!(read <= 10, "{read} reservations are read");
}

#[tokio::test]
async fn sessions_read_the_entries_of_their_days_only() {
    let database = migrated();
    fill(&database);
    sessions_are_bounded(&database).await;
    analyze(&database);
    sessions_are_bounded(&database).await;
}

async fn sessions_are_bounded(database: &Database) {
    let day = Day::from_number(TODAY);
    let filter = BreakdownFilter {
        by: GroupBy::Session,
        integration_id: Some(integration(2)),
        first: day,
        last: day,
        groups_max: 1,
    };
    let (sessions, read) = reads_of(database, "usage_entries", async |store| {
        store.usage_breakdown(tenant(), filter).await.unwrap().unwrap()
    })
    .await;
    // All entries are of this day. The entries of the integration are added up, and then those of
    // one session.
    let calls = sessions.groups[0].1.calls;
    assert!(calls > 2_000 && calls < ENTRIES / INTEGRATIONS, "{calls}");
    assert!(read <= calls + ENTRIES / 2 + 10, "{read} entries are read");
    let yesterday = Day::from_number(TODAY - 1);
    let filter = BreakdownFilter { first: yesterday, last: yesterday, ..filter };
    let (sessions, read) = reads_of(database, "usage_entries", async |store| {
        store.usage_breakdown(tenant(), filter).await.unwrap().unwrap()
    })
    .await;
    assert!(sessions.groups.is_empty());
    assert!(read <= 10, "{read} entries are read");
}

#[tokio::test]
async fn verifying_reads_each_entry_once_and_each_call_by_its_key() {
    let database = migrated();
    let sql = "alter table calls set (autovacuum_enabled = false)";
    ask(database.owner_url(), sql).unwrap();
    fill(&database);
    let before = (rows_read(&database, "usage_entries"), rows_read(&database, "calls"));
    let verified = PostgresStore::verify(database.app_url()).unwrap().unwrap();
    // The entries have no calls and no counters.
    assert_eq!(verified.entries as i64, ENTRIES + 100);
    assert!(verified.differences.count > 0);
    let deadline = Instant::now() + LIMIT;
    while !database.backends().is_empty() {
        assert!(Instant::now() < deadline, "a connection outlives its verification");
    }
    let read = rows_read(&database, "usage_entries") - before.0;
    assert!((ENTRIES..=ENTRIES + 10_200).contains(&read), "{read} entries are read");
    assert_eq!(rows_read(&database, "calls"), before.1);
}

#[tokio::test]
async fn statistics_of_many_tenants_take_several_reads() {
    let database = migrated();
    // An integration of the last tenant has used its whole budget.
    let many = 5_000;
    let sql = format!(
        "begin;
         set local bursar.tenant_id = '{many}';
         insert into tenants select n, 'tenant', 1, 1, 1, 1 from generate_series(1, {many}) n;
         insert into integrations values ({many}, 1, 'hot', 'openai', null, '{{}}', null, 2, 1,
             null, null, null, 1, 0, 0, 1, 1, 1, 'operator', null);
         insert into counters select {many}, 1, 1, m, 10000000, 0, 1, 0, 0, 0, 1
             from generate_series(600, 1200) m;
         insert into reservations (tenant_id, call_key, call_id, integration_id,
             estimated_cost_nanos, estimated_tokens, ttl_seconds, reserved_at, expires_at, state,
             limits_version)
             values ({many}, gen_random_uuid(), 'call', 1, 1, 1, 1, 1, 253402300799999999, 1, 0);
         commit"
    );
    ask(database.app_url(), &sql).unwrap();
    let store = open(&database, 2);
    let mut reads = Vec::new();
    for _ in 0..4 {
        let (near_limits, stats) =
            (store.near_limits(10).await.unwrap(), store.stats().await.unwrap());
        assert_eq!(stats.tenants, many);
        reads.push((near_limits.len(), stats.open_reservations));
    }
    // The first read is partial; later ones return the last complete scan.
    assert_eq!(reads, [(0, 0), (1, 1), (1, 1), (1, 1)]);
}

#[tokio::test]
async fn a_client_that_stops_waiting_leaves_no_connection_in_a_transaction() {
    let database = migrated();
    ask(database.app_url(), "insert into tenants values (1, 'tenant', 1, 1, 1, 1)").unwrap();
    let store = open(&database, 1);
    for _ in 0..50 {
        // The read may complete at once.
        let _ = tokio::time::timeout(Duration::ZERO, store.tenant(tenant())).await;
    }
    // The only connection can still be used.
    assert!(store.tenant(tenant()).await.unwrap().is_some());
    assert_eq!(store.tenants(Page { offset: 0, limit: 10 }).await.unwrap().total, 1);
    assert_eq!(store.integration(tenant(), integration(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_lost_connection_is_replaced() {
    let database = migrated();
    ask(database.app_url(), "insert into tenants values (1, 'tenant', 1, 1, 1, 1)").unwrap();
    let store = open(&database, 2);
    assert!(store.tenant(tenant()).await.unwrap().is_some());
    let deadline = Instant::now() + LIMIT;
    for _ in 0..3 {
        assert!(database.terminate_backends() > 0);
        while store.tenant(tenant()).await.is_err() {
            assert!(Instant::now() < deadline, "reads still fail");
        }
    }
}

#[tokio::test]
async fn a_read_sees_only_rows_of_its_tenant() {
    let database = migrated();
    fill(&database);
    let store = open(&database, 1);
    let other = TenantId::from_number(3).unwrap();
    let page = Page { offset: 0, limit: 10 };
    assert_eq!(store.integrations(tenant(), Default::default(), page).await.unwrap().total, 20);
    assert_eq!(store.integrations(other, Default::default(), page).await.unwrap().total, 0);
    // Row level security also protects a statement without a condition on the tenant.
    let sql = "begin; set local bursar.tenant_id = '3'; select count(*) from integrations; commit";
    let seen = ask(database.app_url(), sql).unwrap();
    assert_eq!(seen, [[Some("0".to_owned())]]);
}

#[test]
fn verification_compares_the_counts_of_labels() {
    let database = migrated();
    let label = "insert into rollup_labels values (1, 1, 'openai', 'model')";
    let count = "insert into rollup_label_counts values (1, 1, '', 1)";
    for (row, differences) in [(label, 1), (count, 0)] {
        let tenant = "insert into tenants values (1, 'tenant', 1, 1, 1, 1) on conflict do nothing";
        let sql = format!("begin; set local bursar.tenant_id = '1'; {tenant}; {row}; commit");
        ask(database.app_url(), &sql).unwrap();
        let verified = PostgresStore::verify(database.app_url()).unwrap().unwrap();
        assert_eq!(verified.differences.count, differences, "{:?}", verified.differences.listed);
    }
}
