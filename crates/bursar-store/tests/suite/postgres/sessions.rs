//! The settings that the PostgreSQL store requires of a database and sets in each transaction, and
//! the messages in which it sends them.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_core::{Caps, IntegrationId, KeyId, LimitSettings, TenantId, Timestamp, Usage};
use bursar_store::{
    AuditFilter, AuditKey, AuditReads, Control, ControlTx, DayReads, HistoryPart, HistoryReads,
    IntegrationReads, Ledger, LoadRequest, NoopObserver, OpenPostgresError, OpenedPostgres, Page,
    PostgresOptions, PostgresStore, Store, TenantReads, WriterConnection,
};
use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::postgres::database::Database;
use bursar_testing::postgres::proxy::Proxy;
use bursar_testing::postgres::session::{ask, block_on};

use crate::support::accounts::create_account;
use crate::support::postgres_database::rows_read;
use crate::support::{actor, request, usage};

/// The time limit of a wait.
const LIMIT: Duration = Duration::from_secs(30);

fn migrated() -> Database {
    Database::migrated(Cluster::shared(), |owner_url, app_role| {
        PostgresStore::migrate(owner_url, app_role).unwrap();
    })
}

fn open(url: &str) -> Result<OpenedPostgres, OpenPostgresError> {
    let options = PostgresOptions {
        writers: 1,
        readers: 1,
        secret_fingerprint: "fingerprint".to_owned(),
        audit_key: AuditKey::new([7; 32]),
        clock: None,
    };
    PostgresStore::open(url, &options)
}

fn tenant() -> TenantId {
    TenantId::from_number(1).unwrap()
}

/// Sets a parameter for all new sessions of the servers' role in this database.
fn set(database: &Database, parameter: &str) {
    let (role, url) = (database.app_role(), database.app_url());
    let name = url.rsplit('/').next().unwrap();
    database.run(&format!("alter role {role} in database {name} set {parameter}"));
}

/// Waits until no connection is left, because the database counts their reads when they end.
fn wait_for_no_connection(database: &Database) {
    let deadline = Instant::now() + LIMIT;
    while !database.backends().is_empty() {
        assert!(Instant::now() < deadline, "a connection outlives its store");
        std::thread::yield_now();
    }
}

#[track_caller]
fn check_refused<T>(result: Result<T, OpenPostgresError>, encoding: &str) {
    let Err(OpenPostgresError::Setting(text)) = result else { unreachable!("{:?}", result.err()) };
    for word in [encoding, "encoding 'UTF8' template template0"] {
        assert!(text.contains(word), "{text}");
    }
}

fn tx(writer: &mut Box<dyn WriterConnection>) -> &mut dyn ControlTx {
    writer.as_mut()
}

#[test]
fn a_database_that_cannot_store_every_text_is_neither_migrated_nor_served() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let database = Database::encoded(Cluster::shared(), encoding);
        check_refused(PostgresStore::migrate(database.owner_url(), database.app_role()), encoding);
        let tables = "select tablename from pg_tables where schemaname = 'public'";
        assert!(database.run(tables).is_empty(), "something was made in {encoding}");
        check_refused(open(database.app_url()), encoding);
    }
}

#[test]
fn the_encoding_of_a_role_changes_no_text() {
    let database = migrated();
    set(&database, "client_encoding = 'LATIN1'");
    let (_store, writers) = open(database.app_url()).unwrap();
    let ledger = Ledger::start(writers, Arc::new(NoopObserver), Caps::DEFAULT).unwrap();
    let name = "\u{1f4b8} für alle";
    block_on(ledger.change(None, move |tx| Control::create_tenant(tx, &actor(), name))).unwrap();
    let stored = database.run("select name from tenants");
    assert_eq!(stored, [[Some(name.to_owned())]]);
}

/// Notes the value of `synchronous_commit` for each write to one of these tables.
const NOTE_COMMITS: &str = "
    create table noted (at text not null, value text not null);
    create function note_commit() returns trigger language plpgsql security definer as
        'begin insert into noted values (tg_table_name, current_setting(''synchronous_commit''));
         return null; end';
    create trigger note after insert or update on tenants execute function note_commit();
    create trigger note after insert or update on calls execute function note_commit();
    create trigger note after insert or update on usage_entries execute function note_commit();
    create trigger note after insert or update on counters execute function note_commit();
    create trigger note after insert or update on audit execute function note_commit();
    create trigger note after update on clock for each row
        when (old.confirmations <> new.confirmations) execute function note_commit();";

#[test]
fn acknowledged_writes_are_durable_after_synchronous_commit_is_turned_off() {
    let database = migrated();
    database.run(NOTE_COMMITS);
    let (_store, writers) = open(database.app_url()).unwrap();
    let ledger = Ledger::start(writers, Arc::new(NoopObserver), Caps::DEFAULT).unwrap();
    block_on(async {
        let (tenant_id, integration_id) = create_account(&ledger, LimitSettings::default()).await;
        set(&database, "synchronous_commit = off");
        database.run("truncate noted");
        // New connections have the setting.
        assert!(database.terminate_backends() > 0);
        let off = ask(database.app_url(), "show synchronous_commit").unwrap();
        assert_eq!(off, [[Some("off".to_owned())]]);
        let reserved = ledger.reserve(tenant_id, request(integration_id, "call")).await;
        reserved.unwrap();
        ledger.record(tenant_id, vec![usage(integration_id, "call")]).await.unwrap();
        let renamed = ledger.change(tenant_id, move |tx| {
            Control::new(tx, &actor(), tenant_id).rename_tenant("another")
        });
        renamed.await.unwrap().unwrap();
        ledger.confirm_clock().await.unwrap();
    });
    let noted = "select at, string_agg(distinct value, ' ') from noted group by at order by at";
    let noted: Vec<String> = database
        .run(noted)
        .into_iter()
        .map(|row| format!("{} {}", text(&row, 0), text(&row, 1)))
        .collect();
    let tables = ["audit", "calls", "clock", "counters", "tenants", "usage_entries"];
    assert_eq!(noted, tables.map(|table| format!("{table} on")));
}

fn text(row: &[Option<String>], at: usize) -> &str {
    row.get(at).unwrap().as_deref().unwrap()
}

/// The statements that begin a transaction that writes rows of the tenant.
const OPENING: [&str; 6] = [
    "begin isolation level read committed",
    "set local bursar.tenant_id = '1'",
    "set local lock_timeout = '5s'",
    "set local statement_timeout = '15s'",
    "set local idle_in_transaction_session_timeout = '3500ms'",
    "set local synchronous_commit = on",
];

/// A database whose sessions have the parameter of the Citus library.
fn with_citus() -> Database {
    let database = migrated();
    set(&database, "citus.propagate_set_commands = 'local'");
    database
}

#[test]
fn a_transaction_is_opened_in_one_message_and_with_citus_in_one_for_each_statement() {
    let [alone, with_citus] = [migrated(), with_citus()].map(|database| {
        let proxy = Proxy::start(database.app_url());
        let (_store, mut writers) = open(&proxy.through(database.app_url())).unwrap();
        let writer = writers.first_mut().unwrap();
        writer.begin().unwrap();
        proxy.take_statements();
        assert!(
            tx(writer)
                .integration(tenant(), IntegrationId::from_number(1).unwrap())
                .unwrap()
                .is_none()
        );
        let mut asked = proxy.take_statements();
        assert!(asked.pop().unwrap().starts_with("select "));
        asked
    });
    assert_eq!(alone, [OPENING.join("; ")]);
    assert_eq!(with_citus, OPENING);
}

#[test]
fn a_transaction_is_opened_without_waiting_for_replies() {
    let database = with_citus();
    let proxy = Proxy::start(database.app_url());
    let (_store, mut writers) = open(&proxy.through(database.app_url())).unwrap();
    let writer = writers.first_mut().unwrap();
    writer.begin().unwrap();
    // This opens the connection.
    tx(writer).tenant(tenant()).unwrap();
    writer.rollback();
    writer.begin().unwrap();
    proxy.take_statements();
    std::thread::scope(|scope| {
        proxy.delay_replies();
        scope.spawn(|| {
            let deadline = Instant::now() + LIMIT;
            let mut asked = Vec::new();
            // The opening and the first query.
            while asked.len() <= OPENING.len() && Instant::now() < deadline {
                asked.extend(proxy.take_statements());
                std::thread::yield_now();
            }
            proxy.release_replies();
            assert_eq!(asked.len(), OPENING.len() + 1, "{asked:?}");
        });
        assert!(tx(writer).tenant(tenant()).unwrap().is_none());
    });
}

#[test]
fn with_citus_no_setting_shares_its_message() {
    let database = with_citus();
    let proxy = Proxy::start(database.app_url());
    let url = proxy.through(database.app_url());
    let (store, writers) = open(&url).unwrap();
    let ledger = Ledger::start(writers, Arc::new(NoopObserver), Caps::DEFAULT).unwrap();
    block_on(async {
        let (tenant_id, integration_id) = create_account(&ledger, LimitSettings::default()).await;
        ledger.record(tenant_id, vec![usage(integration_id, "call")]).await.unwrap();
        ledger.sweep().await.unwrap();
        let page = Page { offset: 0, limit: 10 };
        store.tenants(page).await.unwrap();
        store.integrations(tenant_id, Default::default(), page).await.unwrap();
        store.usage_history(tenant_id, Default::default(), HistoryPart::Whole(page)).await.unwrap();
        store.usage_by_day(tenant_id, days(), page).await.unwrap();
        store.audit(tenant_id, AuditFilter::default(), 10).await.unwrap();
        store.near_limits(10).await.unwrap();
        store.stats().await.unwrap();
    });
    PostgresStore::verify(&url).unwrap().unwrap();
    let key = AuditKey::new([7; 32]);
    PostgresStore::verify_audit(&url, "fingerprint", &key, None).unwrap().unwrap();
    let owner_url = proxy.through(database.owner_url());
    PostgresStore::migrate(&owner_url, database.app_role()).unwrap();

    let asked = proxy.take_statements();
    let settings = asked.iter().filter(|text| text.contains("set local "));
    assert!(settings.clone().count() >= 60, "{asked:#?}");
    for text in settings {
        assert!(text.starts_with("set local ") && !text.contains(';'), "{text}");
    }
    for text in asked.iter().filter(|text| text.starts_with("begin")) {
        assert!(!text.contains(';'), "{text}");
    }
}

fn days() -> bursar_store::DayFilter {
    let first = bursar_core::Day::from_number(0);
    let last = bursar_core::Day::from_number(30_000);
    bursar_store::DayFilter { integration_id: None, first, last, after: None }
}

/// A tenant with an integration, due holds and labels, of which the planner has no statistics.
fn grown() -> Database {
    let database = migrated();
    let sql = "alter table reservations set (autovacuum_enabled = false);
         alter table rollup_labels set (autovacuum_enabled = false);
         analyze";
    ask(database.owner_url(), sql).unwrap();
    let sql = "begin;
         set local bursar.tenant_id = '1';
         insert into tenants values (1, 'tenant', 1, 1, 1, 1);
         insert into integrations values (1, 1, 'one', 'openai', null, '{}', null, 2, 1, null, null,
             null, 0, 0, 0, 1, 1, 1, 'operator', null);
         insert into reservations (tenant_id, call_key, call_id, integration_id,
             estimated_cost_nanos, estimated_tokens, ttl_seconds, reserved_at, expires_at, state,
             limits_version)
             select 1, gen_random_uuid(), 'call ' || n, 1, 1, 1, 1, n, n, 1, 0
             from generate_series(1, 20000) n;
         insert into counters values (1, 1, 1, 0, 0, 0, 0, 20000, 20000, 20000, 1);
         insert into open_reservations values (1, 20000);
         insert into rollup_labels select 1, 2, '', 'agent ' || n
             from generate_series(1, 900) n;
         insert into rollup_label_counts values (1, 2, '', 900);
         insert into rollup_labels select 1, 3, 'tag ' || t, 'value ' || n
             from generate_series(1, 5) t, generate_series(1, 1000) n;
         insert into rollup_label_counts select 1, 3, 'tag ' || t, 1000
             from generate_series(1, 5) t;
         commit";
    ask(database.app_url(), sql).unwrap();
    database
}

#[test]
fn a_sweep_reads_the_holds_that_it_removes_and_no_others() {
    let database = grown();
    let (_store, mut writers) = open(database.app_url()).unwrap();
    let mut writer: Box<dyn WriterConnection> = writers.pop().unwrap();
    let due = writer.sweep_work(500).unwrap();
    assert_eq!(due.holds.len(), 500);
    let before = rows_read(&database, "reservations");
    let mut request = LoadRequest::default();
    for hold in due.holds {
        request.integrations.insert((hold.tenant_id, hold.integration_id));
        request.due.insert((hold.tenant_id, hold.call), hold);
    }
    writer.begin().unwrap();
    let book = writer.load(&request).unwrap();
    assert!(book.now() > Timestamp::MIN);
    drop(book);
    writer.rollback();
    drop(writer);
    wait_for_no_connection(&database);
    // This includes the holds that `sweep_work` found on the same connection.
    let read = rows_read(&database, "reservations") - before;
    assert!((500..=1_100).contains(&read), "{read} calls are read");
}

#[test]
fn a_group_reads_the_labels_that_it_names_and_no_others() {
    let database = grown();
    let (_store, writers) = open(database.app_url()).unwrap();
    let ledger = Ledger::start(writers, Arc::new(NoopObserver), Caps::DEFAULT).unwrap();
    let before = rows_read(&database, "rollup_labels");
    let integration_id = IntegrationId::from_number(1).unwrap();
    let record = |number: u32| {
        let agent_id = Some(format!("agent {number}").into());
        Usage { agent_id, ..usage(integration_id, &format!("record {number}")) }
    };
    // Half of the labels are new.
    let records: Vec<Usage> = (851..951).map(record).collect();
    let labels = "select labels::text from rollup_label_counts where kind = 2";
    block_on(async {
        ledger.record(tenant(), records).await.unwrap();
        ledger.close().await;
    });
    assert_eq!(database.run(labels), [[Some("950".to_owned())]]);
    wait_for_no_connection(&database);
    let read = rows_read(&database, "rollup_labels") - before;
    assert!((50..=500).contains(&read), "{read} labels are read");
}

#[test]
fn new_keys_of_a_day_read_the_rollups_of_that_day_only() {
    let database = grown();
    ask(database.owner_url(), "alter table rollups set (autovacuum_enabled = false)").unwrap();
    let now = "(extract(epoch from now()) / 86400)::integer";
    let figures = "0, ".repeat(41);
    let sql = format!(
        "begin; set local bursar.tenant_id = '1';
         insert into rollups select 1, 1, 2, {now} - d, 'openai', 'gpt', n, {figures} 0
             from generate_series(-1, 10) d, generate_series(1, 500) n;
         commit"
    );
    ask(database.app_url(), &sql).unwrap();
    let (_store, writers) = open(database.app_url()).unwrap();
    let ledger = Ledger::start(writers, Arc::new(NoopObserver), Caps::DEFAULT).unwrap();
    let before = rows_read(&database, "rollups");
    let integration_id = IntegrationId::from_number(1).unwrap();
    let record = |number: u32| {
        let key_id = KeyId::from_number(number.into());
        Usage { key_id, ..usage(integration_id, &format!("record {number}")) }
    };
    // Half of the keys are new.
    let records: Vec<Usage> = (451..551).map(record).collect();
    block_on(async {
        ledger.record(tenant(), records).await.unwrap();
        ledger.close().await;
    });
    wait_for_no_connection(&database);
    let read = rows_read(&database, "rollups") - before;
    // The known keys are looked up, those of the day are counted, and rollups are merged.
    assert!((500..=900).contains(&read), "{read} rollups are read");
}
