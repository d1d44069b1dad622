//! The operator's commands on PostgreSQL, with and without running nodes.

use bursar_testing::process::books::integer;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::http::Http;
use bursar_testing::process::server::Server;
use serde_json::Value;

use crate::nodes::support::{Site, check_failed};

/// The output of a command as JSON.
#[track_caller]
fn json(node: &Folder, arguments: &[&str]) -> Value {
    let stdout = node.run(&[arguments, &["--json"]].concat());
    serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout} is no JSON"))
}

#[test]
fn db_migrate_creates_the_schema_once_and_db_status_shows_it() {
    let site = Site::empty();
    let node = site.node();
    let status = node.command(&["db", "status", "--json"]).output().expect("the binary");
    assert_eq!(status.status.code(), Some(1));
    let shown: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(integer(&shown, "schema"), 0);
    assert!(shown.to_string().contains("run `bursar db migrate --app-role NAME`"), "{shown}");

    let (owner, role) = (site.database.owner_url(), site.database.app_role());
    let migrate = ["db", "migrate", "--database", owner];
    let nameless = node.command(&migrate).output().expect("the binary");
    check_failed(&nameless, &["--app-role NAME"]);
    let migrate = [&migrate[..], &["--app-role", role]].concat();
    let stdout = node.run(&migrate);
    assert!(stdout.contains("from 0") && stdout.contains(role), "{stdout}");
    let stdout = node.run(&migrate);
    assert!(stdout.contains("unchanged"), "{stdout}");

    let shown = json(&node, &["db", "status"]);
    assert_eq!(shown.get("is_usable"), Some(&Value::Bool(true)), "{shown}");
    assert_eq!(integer(&shown, "schema"), integer(&shown, "schema_known"));
    assert!(!shown.to_string().contains(&site.password()), "{shown}");
    Server::start(&node).stop();
    assert!(node.run(&migrate).contains("unchanged"), "with a server on the schema");
}

#[test]
fn only_the_owner_of_the_tables_can_migrate() {
    let site = Site::empty();
    let node = site.node();
    let migrate = ["db", "migrate", "--app-role", site.database.app_role()];
    let refused = node.command(&migrate).output().expect("the binary");
    check_failed(&refused, &["permission denied"]);
}

#[test]
fn nodes_know_what_a_command_created_on_the_database() {
    let site = Site::new();
    let node = site.node();
    let server = Server::start(&node);
    // Neither a folder nor the operator's token is needed, only access to the database.
    let mut alone = site.node();
    alone.set("BURSAR_OPERATOR_TOKEN", "");
    std::fs::remove_dir_all(alone.data()).expect("removed");
    alone.run(&["tenant", "create", "acme"]);
    let create = ["integration", "create", "main", "--tenant=acme", "--provider=openai"];
    let made = json(&alone, &[&create[..], &["--budget-cents=100", "--enable"]].concat());
    let key = json(&alone, &["key", "create", "--tenant=acme", "--name=k", "--scope=*"]);
    assert!(!alone.data().exists(), "a command needs no folder");

    let secret = key.get("secret").and_then(Value::as_str).expect("a secret");
    let mut http = Http::new(server.address(), &[("X-AOS-Key", secret)]);
    let id = made.get("id").and_then(Value::as_str).expect("an id");
    let limits = http.get(&format!("/api/v1/integrations/{id}/limits")).expect("an answer");
    assert_eq!(limits.data("budget_limit_cents"), 100, "{limits:?}");
    server.stop();
}

#[test]
fn a_command_without_the_secret_key_creates_nothing() {
    let site = Site::new();
    let mut node = site.node();
    node.set("BURSAR_SECRET_KEY", "");
    let refused = node.command(&["tenant", "create", "acme"]).output().expect("the binary");
    check_failed(&refused, &["PostgreSQL requires a secret key"]);
    assert_eq!(site.database.run("select count(*) from tenants"), [[Some("0".to_owned())]]);
}

#[test]
fn db_verify_reports_a_difference_and_exits_with_one() {
    let site = Site::new();
    let node = site.node();
    node.run(&["tenant", "create", "acme"]);
    let create = ["integration", "create", "main", "--tenant=acme", "--provider=openai"];
    let made = json(&node, &[&create[..], &["--enable"]].concat());
    let id = made.get("id").and_then(Value::as_str).expect("an id");
    let calls = node.beside("calls.ndjson");
    let line = r#"{"call_id":"a","provider":"openai","model":"m","tokens_in":1,"tokens_out":2,"cost_cents":3}"#;
    std::fs::write(&calls, line).expect("written");
    let file = calls.to_string_lossy().into_owned();
    node.run(&["usage", "import", &file, "--tenant=acme", "--integration", id]);
    assert!(node.run(&["db", "verify"]).contains(" 0 differences"));

    site.database.run("update counters set used_tokens = used_tokens + 1");
    let verified = node.command(&["db", "verify"]).output().expect("the binary");
    assert_eq!(verified.status.code(), Some(1));
    let stdout = String::from_utf8_lossy(&verified.stdout);
    assert!(stdout.contains("1 differences") && stdout.contains("used is"), "{stdout}");
}

#[test]
fn backup_and_restore_refer_to_the_tools_of_postgresql() {
    let site = Site::new();
    let node = site.node();
    for command in ["backup", "restore"] {
        let refused = node.command(&["db", command, "copy"]).output().expect("the binary");
        check_failed(&refused, &["pg_basebackup", "pg_dump", "BURSAR_SECRET_KEY"]);
    }
    let refused = node.command(&["dev"]).output().expect("the binary");
    check_failed(&refused, &["`bursar dev` does not work with PostgreSQL"]);
}
