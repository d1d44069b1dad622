//! The PostgreSQL harness itself: clusters, databases, the pooler and the proxy.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bursar_testing::postgres::bouncer::Bouncer;
use bursar_testing::postgres::cluster::{Cluster, Mode};
use bursar_testing::postgres::database::Database;
use bursar_testing::postgres::proxy::Proxy;
use bursar_testing::postgres::session::{Row, ask, block_on, connect, rows};
use bursar_testing::postgres::url::Url;
use bursar_testing::waiting::within;
use tokio_postgres::Client;

/// The timeout of every wait.
const LIMIT: Duration = Duration::from_secs(30);

/// One table of tenants' notes, under row level security, with a note of each of two tenants.
fn migrate(owner_url: &str, application: &str) {
    let sql = format!(
        "create table notes (tenant_id bigint not null, note text not null);
         insert into notes values (1, 'of one'), (2, 'of two');
         alter table notes enable row level security;
         alter table notes force row level security;
         create policy notes_of_tenant on notes
             using (tenant_id = nullif(current_setting('bursar.tenant_id', true), '')::bigint);
         grant select, insert on notes to {application};"
    );
    ask(owner_url, &sql).unwrap();
}

/// The values of a statement with one column.
#[track_caller]
fn column(url: &str, sql: &str) -> Vec<String> {
    ask(url, sql).unwrap().into_iter().map(|row| row.into_iter().next().unwrap().unwrap()).collect()
}

/// The number that a statement returns.
async fn number(client: &Client, sql: &str) -> i64 {
    let answer: Vec<Row> = rows(client, sql).await.unwrap();
    answer.into_iter().flatten().flatten().next().unwrap().parse().unwrap()
}

#[track_caller]
fn wait_until(mut holds: impl FnMut() -> bool) {
    assert!(within(LIMIT, || holds().then_some(())).is_some(), "not within {LIMIT:?}");
}

#[test]
fn the_shared_cluster_is_as_durable_as_a_server_must_be() {
    let settings = "select current_setting('fsync') || current_setting('synchronous_commit') \
         || current_setting('full_page_writes')";
    let answer = Cluster::shared().run(settings);
    assert_eq!(answer, [[Some("ononon".to_owned())]]);
}

#[test]
fn a_clone_has_the_migrated_schema_and_no_rows_of_another_clone() {
    let one = Database::migrated(Cluster::shared(), migrate);
    let other = Database::migrated(Cluster::shared(), migrate);
    one.run("insert into notes values (3, 'of three')");
    let notes = "select note from notes order by tenant_id";
    assert_eq!(column(&one.admin_url(), notes), ["of one", "of two", "of three"]);
    assert_eq!(column(&other.admin_url(), notes), ["of one", "of two"]);
}

#[test]
fn a_database_is_dropped_with_its_connections() {
    let cluster = Cluster::shared();
    let database = Database::new(cluster);
    let name = column(database.app_url(), "select current_database()");
    let role = column(&database.create_role("bypassrls"), "select current_user");
    let client = block_on(async { connect(database.owner_url()).await.unwrap() });
    drop(database);
    let left = format!(
        "select datname from pg_database where datname = '{}' \
         union all select rolname from pg_roles where rolname = '{}'",
        name[0], role[0]
    );
    assert_eq!(cluster.run(&left), Vec::<Row>::new());
    drop(client);
}

#[test]
fn row_level_security_applies_to_both_roles_of_a_database() {
    let database = Database::migrated(Cluster::shared(), migrate);
    let notes = "select note from notes order by tenant_id";
    let of_one = format!("begin; set local bursar.tenant_id = '1'; {notes}; commit");
    for url in [database.app_url(), database.owner_url()] {
        assert_eq!(column(url, notes), Vec::<String>::new());
        assert_eq!(column(url, &of_one), ["of one"]);
    }
    assert_eq!(column(&database.create_role("bypassrls"), notes), ["of one", "of two"]);
    let owner =
        column(database.app_url(), "select tableowner from pg_tables where tablename = 'notes'");
    assert_ne!(owner, [database.app_role()]);
    assert!(ask(database.app_url(), "drop table notes").is_err());
}

#[test]
fn a_stopped_cluster_restarts_on_its_port_with_its_data() {
    let cluster = Cluster::with_settings(&[("max_connections", "20")]);
    assert_eq!(cluster.run("show max_connections"), [[Some("20".to_owned())]]);
    cluster.run("create table kept (step int)");
    let url = cluster.admin().to_string();
    for (step, mode) in [(1, Mode::Immediate), (2, Mode::Fast)] {
        cluster.run(&format!("insert into kept values ({step})"));
        let pid = cluster.pid();
        cluster.stop(mode);
        assert!(ask(&url, "select 1").is_err());
        cluster.start();
        assert_ne!(cluster.pid(), pid);
    }
    assert_eq!(column(&url, "select step from kept order by step"), ["1", "2"]);
}

#[test]
fn a_standby_is_read_only() {
    let cluster = Cluster::new();
    cluster.run("create table kept (step int)");
    cluster.restart_as_standby();
    let url = cluster.admin().to_string();
    assert_eq!(column(&url, "select count(*) || ' ' || pg_is_in_recovery() from kept"), ["0 true"]);
    assert!(ask(&url, "insert into kept values (1)").is_err());
}

#[tokio::test]
async fn terminating_backends_affects_one_database_only() {
    let (database, other) = (Database::new(Cluster::shared()), Database::new(Cluster::shared()));
    let ended = connect(database.app_url()).await.unwrap();
    let kept = connect(other.app_url()).await.unwrap();
    let pid = number(&ended, "select pg_backend_pid()").await;
    assert_eq!(database.backends(), [i32::try_from(pid).unwrap()]);
    assert_eq!(database.terminate_backends(), 1);
    assert!(rows(&ended, "select 1").await.is_err());
    assert_eq!(number(&kept, "select 1").await, 1);
    assert_eq!(other.backends().len(), 1);
}

#[tokio::test]
async fn clients_of_a_pooler_share_one_server_connection() {
    let cluster = Cluster::shared();
    let database = Database::migrated(cluster, migrate);
    let bouncer = Bouncer::start(cluster, 1);
    let url = bouncer.through(database.app_url());
    let (one, other) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
    let pid = "select pg_backend_pid()";
    assert_eq!(number(&one, pid).await, number(&other, pid).await);
    // While one is in a transaction, the other waits.
    rows(&one, "begin; set local bursar.tenant_id = '2'").await.unwrap();
    let (inside, outside) =
        tokio::join!(rows(&one, "select note from notes; commit"), rows(&other, "table notes"));
    assert_eq!(inside.unwrap(), [[Some("of two".to_owned())]]);
    assert_eq!(outside.unwrap(), Vec::<Row>::new());
    let owner = connect(&bouncer.through(database.owner_url())).await.unwrap();
    assert_eq!(number(&owner, "select 1").await, 1);
}

#[tokio::test]
async fn a_proxy_accepts_new_clients_after_a_cut() {
    let database = Database::new(Cluster::shared());
    let proxy = Proxy::start(database.app_url());
    let url = proxy.through(database.app_url());
    let client = connect(&url).await.unwrap();
    assert_eq!(number(&client, "select 1").await, 1);
    proxy.cut();
    assert!(rows(&client, "select 1").await.is_err());
    let next = connect(&url).await.unwrap();
    assert_eq!(number(&next, "select 2").await, 2);
    drop(proxy);
    assert!(connect(&url).await.is_err());
}

#[tokio::test]
async fn a_proxy_reports_every_statement() {
    let database = Database::new(Cluster::shared());
    let proxy = Proxy::start(database.app_url());
    let client = connect(&proxy.through(database.app_url())).await.unwrap();
    client.batch_execute("select 1; select 2").await.unwrap();
    client.query_typed("select 3", &[]).await.unwrap();
    assert_eq!(proxy.take_statements(), ["select 1; select 2", "select 3"]);
    assert_eq!(proxy.take_statements(), Vec::<String>::new());
}

#[test]
fn a_database_can_have_an_encoding_other_than_utf_8() {
    let database = Database::encoded(Cluster::shared(), "LATIN1");
    assert_eq!(column(database.app_url(), "show server_encoding"), ["LATIN1"]);
}

#[test]
fn a_proxy_forwards_a_request_for_encryption() {
    let proxy = Proxy::start(&Cluster::shared().admin().to_string());
    let host = Url::parse(&proxy.through("postgres://somewhere/")).host();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"N");
    // The session starts without encryption: protocol 3.0, and a user.
    stream.write_all(b"\0\0\0\x13\0\x03\0\0user\0bursar\0").unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert!(b"RE".contains(&answer[0]), "{answer:?}");
}

#[tokio::test]
async fn delayed_replies_arrive_after_their_release() {
    let database = Database::new(Cluster::shared());
    database.run("create sequence steps");
    let (proxy, url) = (Proxy::start(database.app_url()), database.admin_url());
    let (client, direct) =
        (connect(&proxy.through(&url)).await.unwrap(), connect(&url).await.unwrap());
    proxy.delay_replies();
    let held = tokio::spawn(async move { number(&client, "select nextval('steps')").await });
    let deadline = Instant::now() + LIMIT;
    while number(&direct, "select count(*) from steps where is_called").await == 0 {
        assert!(Instant::now() < deadline, "the statement did not reach the server");
    }
    assert!(!held.is_finished());
    proxy.release_replies();
    assert_eq!(held.await.unwrap(), 1);
}

/// Commits a row. Returns whether the insert and the commit were acknowledged.
async fn commit_fact(client: &Client, protocol: Protocol) -> [bool; 2] {
    let insert = "insert into facts select count(*) from facts";
    rows(client, "begin").await.unwrap();
    let simple = |sql| async move { rows(client, sql).await.is_ok() };
    match protocol {
        Protocol::Simple => [simple(insert).await, simple("commit").await],
        Protocol::Pipelined => {
            let (inserted, committed) = tokio::join!(simple(insert), simple(" COMMIT; "));
            [inserted, committed]
        }
        Protocol::Extended => {
            let inserted = client.execute_typed(insert, &[]).await.is_ok();
            [inserted, client.execute_typed("commit", &[]).await.is_ok()]
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Simple,
    Pipelined,
    Extended,
}

#[tokio::test]
async fn a_commit_whose_reply_is_lost_is_stored_once() {
    let database = Database::new(Cluster::shared());
    ask(database.owner_url(), "create table facts (number bigint not null)").unwrap();
    let proxy = Proxy::start(database.owner_url());
    let direct = connect(database.owner_url()).await.unwrap();
    let mut facts = 0;
    for (lost, protocol) in
        [(1, Protocol::Simple), (2, Protocol::Pipelined), (3, Protocol::Extended)]
    {
        let client = connect(&proxy.through(database.owner_url())).await.unwrap();
        assert_eq!(commit_fact(&client, protocol).await, [true, true], "{protocol:?} with a reply");
        proxy.lose_next_commit();
        assert_eq!(
            commit_fact(&client, protocol).await,
            [true, false],
            "{protocol:?} with a lost reply"
        );
        assert_eq!(proxy.wait_for_lost(lost, LIMIT), lost);
        assert!(client.is_closed());
        facts += 2;
        assert_eq!(number(&direct, "select count(*) from facts").await, facts, "{protocol:?}");
    }
    assert_eq!(proxy.commits_lost(), 3);
}

/// The file to which this test program writes the addresses of servers that it starts before it
/// waits to be killed; unset in the parent process.
const ADDRESSES_FILE: &str = "BURSAR_TEST_ADDRESSES_FILE";

/// Starts servers, writes their addresses to `note`, and waits to be killed.
fn start_and_wait(note: &Path) {
    let cluster = Cluster::new();
    let bouncer = Bouncer::start(&cluster, 1);
    let url = cluster.admin();
    let text = format!("{} {}", url.host(), Url::parse(&bouncer.through(&url.to_string())).host());
    let draft = note.with_extension("draft");
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(&draft, note).unwrap();
    // The parent holds the other end.
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// One test of this program in another process.
fn other_process(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    command
}

#[test]
fn a_server_ends_with_the_process_that_started_it_and_leaves_no_files() {
    if let Some(note) = std::env::var_os(ADDRESSES_FILE) {
        return start_and_wait(Path::new(&note));
    }
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("note");
    // The child's clusters are in this folder, so their removal can be observed.
    let clusters = folder.path().join("clusters");
    std::fs::create_dir(&clusters).unwrap();
    make_accessible(&[folder.path(), &clusters]);
    let mut child =
        other_process("a_server_ends_with_the_process_that_started_it_and_leaves_no_files")
            .env(ADDRESSES_FILE, &note)
            .env("TMPDIR", &clusters)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
    wait_until(|| note.is_file() || child.try_wait().unwrap().is_some());
    let text = std::fs::read_to_string(&note).unwrap();
    let servers: Vec<&str> = text.split(' ').collect();
    let listening = || servers.iter().filter(|host| TcpStream::connect(host).is_ok()).count();
    let folders = || std::fs::read_dir(&clusters).unwrap().count();
    assert_eq!((listening(), folders()), (2, 2));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until(|| folders() == 0);
    assert_eq!(listening(), 0);
}

/// Makes the folders accessible to the account of the server.
fn make_accessible(folders: &[&Path]) {
    use std::os::unix::fs::PermissionsExt;
    for folder in folders {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

#[test]
fn an_existing_server_is_used_and_its_stale_databases_and_roles_are_dropped() {
    let server = Cluster::new();
    server.run("create role tester login createdb createrole");
    let url = server.admin().with_login("tester", "unasked").to_string();
    for old in [
        "create database bursar_test_1_1_00000000_database_0 is_template true",
        "create role bursar_test_1_1_00000000_owner_0",
        "create database bursar_tests_of_somebody",
    ] {
        ask(&url, old).unwrap();
    }
    let output = other_process("terminating_backends_affects_one_database_only")
        .env("BURSAR_TEST_POSTGRES_URL", &url)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let left = "select datname from pg_database where datname like 'bursar%'";
    assert_eq!(column(&url, left), ["bursar_tests_of_somebody"]);
    // A process cannot drop the roles that its databases share. A later process drops them.
    let left = "select rolname from pg_roles where rolname like 'bursar_test_%' order by rolname";
    let left = column(&url, left);
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(!left.iter().any(|role| role.starts_with("bursar_test_1_")), "{left:?}");
}

#[test]
fn one_part_of_a_url_can_be_replaced() {
    let url = Url::parse("postgres://role:a@b@db.example/name?sslmode=disable&x=/@");
    let check = |changed: Url, expected: &str| assert_eq!(changed.to_string(), expected);
    check(url.with_database("other"), "postgres://role:a@b@db.example/other?sslmode=disable&x=/@");
    check(url.with_login("me", "pw"), "postgres://me:pw@db.example/name?sslmode=disable&x=/@");
    check(
        url.with_host("127.0.0.1:1"),
        "postgres://role:a@b@127.0.0.1:1/name?sslmode=disable&x=/@",
    );
    check(Url::parse("postgres://localhost"), "postgres://localhost/");
    assert_eq!(url.host(), "db.example:5432");
    assert_eq!(Url::parse("postgres://localhost:1/").host(), "localhost:1");
}
