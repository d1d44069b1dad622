//! What a group of commands under limits sends to the database, and what the database reads for it.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_core::{
    Bound, Caps, IntegrationId, Label, LimitSettings, RecordOutcome, Scope, TenantId, Timestamp,
    Usage, Window,
};
use bursar_store::{
    AuditKey, Ledger, LimitRow, NoopObserver, PostgresOptions, PostgresStore, Store,
};
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;
use bursar_testing::postgres::proxy::Proxy;
use bursar_testing::postgres::session::{ask, block_on};

use crate::support::accounts::create_account;
use crate::support::limits::{
    by_agent, calls, concurrent, cost, each, limit, limit_sums, put_limits, refusal, subject_of,
    tokens,
};
use crate::support::postgres_database::rows_read;
use crate::support::{call_id, usage};

fn migrated() -> Database {
    Database::migrated(Cluster::shared(), |owner_url, app_role| {
        PostgresStore::migrate(owner_url, app_role).unwrap();
    })
}

fn open(url: &str) -> (Arc<dyn Store>, Ledger) {
    let options = PostgresOptions {
        writers: 1,
        readers: 1,
        secret_fingerprint: "fingerprint".to_owned(),
        audit_key: AuditKey::new([7; 32]),
        clock: None,
    };
    let (store, writers) = PostgresStore::open(url, &options).unwrap();
    (store, Ledger::start(writers, Arc::new(NoopObserver), Caps::DEFAULT).unwrap())
}

/// An amount that counts since 1970, so that no period ends during a test.
fn total() -> Window {
    Window::Total { starts_at: Timestamp::MIN }
}

/// Every command about a call of an agent whose account exists, and of one whose account does not.
async fn run_commands(
    (store, ledger): &(Arc<dyn Store>, Ledger),
    (tenant_id, integration_id): (TenantId, IntegrationId),
    name: &str,
) {
    let agents = ["agent 1".to_owned(), format!("new {name}")];
    for agent in &agents {
        let call = |what: &str| format!("{agent} {what} {name}");
        for what in ["recorded", "released"] {
            let asked = by_agent(integration_id, agent, &call(what));
            assert_eq!(refusal(ledger, tenant_id, asked).await, None);
        }
        let agent_id = Some(agent.as_str().into());
        let record = Usage { agent_id, ..usage(integration_id, &call("recorded")) };
        let recorded = ledger.record(tenant_id, vec![record]).await.unwrap();
        assert!(matches!(recorded.as_slice(), [RecordOutcome::Accepted(_)]), "{recorded:?}");
        ledger.extend(tenant_id, call_id(&call("released")), None, Some(900)).await.unwrap();
        ledger.release(tenant_id, call_id(&call("released")), None).await.unwrap();
        let of = subject_of(&by_agent(integration_id, agent, "any"));
        limit_sums(store.as_ref(), tenant_id, &of).await;
    }
}

/// The statements that the commands send under so many limits of a kind, once these are known, and
/// how often they are sent.
async fn statements_under(limits: i64, (scope, bound): &(Scope, Bound)) -> BTreeMap<String, usize> {
    let database = migrated();
    let proxy = Proxy::start(database.app_url());
    let node = open(&proxy.through(database.app_url()));
    let account = create_account(&node.1, LimitSettings::default()).await;
    let row = |number| limit(account.0, number, scope.clone(), bound.clone());
    put_limits(&node.1, (1..=limits).map(row).collect::<Vec<LimitRow>>()).await;
    run_commands(&node, account, "first").await;
    proxy.take_statements();
    run_commands(&node, account, "second").await;
    let (mut sent, tenant) = (BTreeMap::new(), account.0.number().to_string());
    for text in proxy.take_statements() {
        *sent.entry(text.replace(&tenant, "1")).or_default() += 1;
    }
    // A writer takes numbers of ids once a second, and nothing waits for the end of a read.
    sent.retain(|text, _| !text.starts_with("update id_numbers") && text != "commit");
    node.1.close().await;
    sent
}

#[test]
fn the_statements_of_a_group_do_not_grow_with_the_number_of_limits() {
    const MANY: i128 = 1_000_000;
    let kinds = [
        (Scope::Tenant, cost(total(), 1_000_000)),
        (Scope::Tenant, tokens(Window::Minute, MANY)),
        (Scope::Tenant, concurrent(MANY)),
        (each(Label::Agent), calls(total(), MANY)),
        (each(Label::Agent), calls(Window::Minute, MANY)),
    ];
    block_on(async {
        let count = |sent: &BTreeMap<String, usize>| sent.values().sum::<usize>();
        let without = count(&statements_under(0, &kinds[0]).await);
        for kind in &kinds {
            let one = statements_under(1, kind).await;
            let with = count(&one);
            assert!(with > without, "{with} statements under {kind:?}, and {without} without");
            for limits in [5, 50] {
                let many = statements_under(limits, kind).await;
                let differs = |(text, times): &(&String, &usize)| one.get(*text) != Some(*times);
                let more: Vec<_> = many.iter().filter(differs).collect();
                assert_eq!(more, [], "{limits} limits: {kind:?}");
            }
        }
    });
}

/// Waits until no connection is left, because the database counts their reads when they end.
fn wait_for_no_connection(database: &Database) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !database.backends().is_empty() {
        assert!(Instant::now() < deadline, "a connection outlives its store");
        std::thread::yield_now();
    }
}

/// A tenant with limits for each agent, and many other agents: 100,000 accounts, 60,000 seconds and
/// 20,000 postings.
async fn grown(database: &Database) -> (TenantId, IntegrationId) {
    let (_store, ledger) = open(database.app_url());
    let (tenant_id, integration_id) = create_account(&ledger, LimitSettings::default()).await;
    let bounds = [cost(total(), 1_000), tokens(Window::Minute, 100_000), concurrent(1_000)];
    let rows = bounds.into_iter().zip(1..);
    let rows = rows.map(|(bound, number)| limit(tenant_id, number, each(Label::Agent), bound));
    put_limits(&ledger, rows.collect()).await;
    ledger.close().await;
    let tenant = tenant_id.number();
    let sql = format!(
        "begin;
         set local bursar.tenant_id = '{tenant}';
         insert into limit_accounts select {tenant}, l, 'agent ' || n, 0, 0, 0, 0, 0, 0, 0, 1
             from generate_series(1, 3) l, generate_series(1, 33334) n;
         insert into limit_values select {tenant}, l, 0, 33334 from generate_series(1, 3) l;
         insert into limit_seconds select {tenant}, 2, 'agent ' || n, s, s, 0, 0, 0, 0, 0, 0
             from generate_series(1, 1000) n, generate_series(0, 59) s;
         insert into postings select {tenant}, 1 + n % 3, 'agent ' || (100 + n % 1000), n,
             gen_random_uuid(), 0, 0, 0 from generate_series(1, 20000) n;
         commit"
    );
    ask(database.app_url(), &sql).unwrap();
    (tenant_id, integration_id)
}

#[test]
fn a_group_reads_the_accounts_of_its_own_limits_with_and_without_statistics() {
    const TABLES: [&str; 4] = ["limit_accounts", "limit_seconds", "limit_values", "postings"];
    for has_statistics in [false, true] {
        let database = migrated();
        for table in TABLES {
            let sql = format!("alter table {table} set (autovacuum_enabled = false)");
            ask(database.owner_url(), &sql).unwrap();
        }
        let account = block_on(grown(&database));
        if has_statistics {
            ask(database.owner_url(), "analyze").unwrap();
        }
        wait_for_no_connection(&database);
        let before = TABLES.map(|table| rows_read(&database, table));
        block_on(async {
            let node = open(database.app_url());
            run_commands(&node, account, "measured").await;
            node.1.close().await;
        });
        wait_for_no_connection(&database);
        for (table, before) in TABLES.into_iter().zip(before) {
            let read = rows_read(&database, table) - before;
            // Each of twelve commands reads and writes three accounts, and one has 60 seconds.
            assert!(read <= 2_000, "{read} rows of {table}, statistics: {has_statistics}");
        }
    }
}
