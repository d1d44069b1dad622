//! A flood of reads by one tenant: its memory, its effect on another tenant, and its cancellation.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_core::{Day, TenantId, Timestamp};
use bursar_store::{
    AuditKey, Clock, DayFilter, HistoryFilter, HistoryPart, Page, PostgresOptions, PostgresStore,
    SqliteStore, Store, StoreError,
};
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;
use bursar_testing::postgres::session::ask;
use tokio::task::JoinSet;

/// The last day that has rollups, and how many days do.
const TODAY: i32 = 20_526;
const DAYS: i32 = 366;
/// Concurrent reads of one tenant.
const FLOOD: usize = 30;
/// The limit on another tenant's read meanwhile.
const QUIET_MAX: Duration = Duration::from_millis(500);
/// The limit on the memory of eight pages of one row each.
const MEMORY_MAX: u64 = 32 * 1024 * 1024;
/// How long a cancelled read may keep its connection.
const END_MAX: Duration = Duration::from_secs(5);

/// The loud and the quiet tenant.
fn tenants() -> (TenantId, TenantId) {
    (TenantId::from_number(1).unwrap(), TenantId::from_number(2).unwrap())
}

fn year() -> (Day, Day) {
    (Day::from_number(TODAY + 1 - DAYS), Day::from_number(TODAY))
}

/// A year of rollups of the first tenant, and a few entries of the second. `numbers` is a table
/// expression for the numbers from 1 on, with one column of that name.
fn rows(integrations: i64, numbers: impl Fn(&str, i64) -> String) -> [String; 2] {
    let (of_integrations, of_days) = (numbers("i", integrations), numbers("d", DAYS.into()));
    let of_entries = numbers("n", 1_000);
    let integration = |tenant: i64, number: &str| {
        format!(
            "insert into integrations select {tenant}, 100 + {number}, 'integration ' || {number},
             'openai', null, '{{}}', null, 2, 1, null, null, null, 0, 0, 0, 1, 1, 1, 'operator', null"
        )
    };
    let first = format!(
        "insert into tenants values (1, 'tenant', 1, 1, 1, 1);
         {} from {of_integrations};
         insert into rollups select 1, 100 + i, 2, {TODAY} + 1 - d, 'openai', 'model', 0,
             1, 1, 0, 0, 0, 1, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
             0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
             from {of_integrations}, {of_days};",
        integration(1, "i"),
    );
    let second = format!(
        "insert into tenants values (2, 'tenant', 1, 1, 1, 1);
         {};
         insert into usage_entries (tenant_id, entry_id, integration_id, occurred_at, created_at,
             tokens_in, tokens_out, tokens_cache_read, tokens_cache_write, tokens_cache_write_long,
             tokens_audio_in, tokens_image_in, tokens_reasoning, tokens_audio_out,
             tokens_image_out, counted_tags, source, limits_version, cost_nanos, kind, cost_source, usage_status,
             policy_result, call_id, provider, model)
             select 2, n, 101, n, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 7, 1, 1, 1, 1, 'call ' || n, 'openai', 'model'
             from {of_entries};",
        integration(2, "1"),
    );
    [first, second]
}

/// The peak memory of this process since the last reset.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

async fn page_of_days(
    store: &dyn Store,
    tenant_id: TenantId,
    limit: u32,
) -> Result<usize, StoreError> {
    let (first, last) = year();
    let filter = DayFilter { integration_id: None, first, last, after: None };
    let page = Page { offset: 0, limit };
    Ok(store.usage_by_day(tenant_id, filter, page).await?.rows.len())
}

/// A read over every rollup of the year.
async fn read_all(store: &dyn Store, tenant_id: TenantId) -> Result<usize, StoreError> {
    let (first, last) = year();
    Ok(store.usage_by_integration(tenant_id, None, first, last).await?.len())
}

async fn memory_is_flat(store: &Arc<dyn Store>) {
    let (loud, _) = tenants();
    assert_eq!(page_of_days(store.as_ref(), loud, 1).await.unwrap(), 1);
    // Resets the peak, if that is permitted.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = peak_bytes();
    let mut reads = JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(store);
        reads.spawn(async move { page_of_days(store.as_ref(), loud, 1).await });
    }
    while let Some(found) = reads.join_next().await {
        assert_eq!(found.unwrap().unwrap(), 1);
    }
    let taken = peak_bytes().saturating_sub(before);
    assert!(taken < MEMORY_MAX, "{taken} bytes for eight rows");
}

/// Reads the quiet tenant's history during a flood, and then cancels the flood, which must free its
/// connections at once.
async fn others_are_not_delayed(store: &Arc<dyn Store>) {
    let (loud, quiet) = tenants();
    let mut flood = JoinSet::new();
    for _ in 0..FLOOD {
        let store = Arc::clone(store);
        flood.spawn(async move {
            loop {
                let read = read_all(store.as_ref(), loud).await;
                let is_refused =
                    matches!(read, Err(StoreError::Overloaded | StoreError::ReadTooLarge));
                assert!(is_refused || read.is_ok(), "{read:?}");
            }
        });
    }
    let mut took = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        let page = HistoryPart::UpTo(50);
        let found = store.usage_history(quiet, HistoryFilter::default(), page).await.unwrap();
        assert_eq!(found.rows.len(), 50);
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let p99 = *took.iter().rev().nth(1).unwrap();
    assert!(p99 < QUIET_MAX, "{p99:?}");
    flood.shutdown().await;
    let begun = Instant::now();
    assert_eq!(page_of_days(store.as_ref(), loud, 1).await.unwrap(), 1);
    assert!(begun.elapsed() < END_MAX, "{:?}", begun.elapsed());
}

/// Checks that a read ends at its time limit.
async fn a_read_ends_in_time(store: &Arc<dyn Store>) {
    let (loud, _) = tenants();
    let begun = Instant::now();
    let ended = read_all(store.as_ref(), loud).await;
    assert!(matches!(ended, Err(StoreError::ReadTooLarge)), "{ended:?}");
    assert!(begun.elapsed() < END_MAX, "{:?}", begun.elapsed());
    // Its connection can be used again. On a busy machine a small read may be late too.
    let begun = Instant::now();
    loop {
        match page_of_days(store.as_ref(), loud, 1).await {
            Ok(found) => break assert_eq!(found, 1),
            Err(StoreError::ReadTooLarge) if begun.elapsed() < END_MAX => {}
            Err(error) => unreachable!("{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_reads_does_not_delay_another_tenant_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bursar.db");
    let now: Clock = Arc::new(|| Timestamp::from_micros(1).unwrap());
    let (store, _writer) =
        SqliteStore::open(&path, now, "fingerprint", AuditKey::new([7; 32])).unwrap();
    let numbers = |name: &str, count: i64| {
        format!(
            "(with recursive numbers (x) as (select 1 union all select x + 1 from numbers \
             where x < {count}) select x as {name} from numbers)"
        )
    };
    let db = rusqlite::Connection::open(&path).unwrap();
    for sql in rows(1_000, numbers) {
        db.execute_batch(&format!("begin; {sql} commit;")).unwrap();
    }
    let limited = Arc::clone(&store);
    let store: Arc<dyn Store> = store;
    memory_is_flat(&store).await;
    others_are_not_delayed(&store).await;
    limited.limit_reads(Duration::from_millis(20));
    a_read_ends_in_time(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_reads_does_not_delay_another_tenant_on_postgresql() {
    let database = Database::migrated(Cluster::shared(), |owner_url, app_role| {
        PostgresStore::migrate(owner_url, app_role).unwrap();
    });
    let numbers = |name: &str, count: i64| format!("generate_series(1, {count}) {name}");
    let (first, second) = tenants();
    for (tenant_id, sql) in [first, second].iter().zip(rows(300, numbers)) {
        let sql =
            format!("begin; set local bursar.tenant_id = '{}'; {sql} commit", tenant_id.number());
        ask(database.app_url(), &sql).unwrap();
    }
    let options = PostgresOptions {
        writers: 1,
        readers: 4,
        secret_fingerprint: "fingerprint".to_owned(),
        audit_key: AuditKey::new([7; 32]),
        clock: None,
    };
    let (store, writers) = PostgresStore::open(database.app_url(), &options).unwrap();
    // Dropping a writer blocks, which is not allowed on a thread of the runtime.
    std::thread::spawn(move || drop(writers)).join().unwrap();
    let limited = Arc::clone(&store);
    let store: Arc<dyn Store> = store;
    memory_is_flat(&store).await;
    others_are_not_delayed(&store).await;
    limited.limit_reads(Duration::from_millis(20));
    a_read_ends_in_time(&store).await;
}
