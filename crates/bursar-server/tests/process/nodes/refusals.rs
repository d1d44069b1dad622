//! Refused starts, whose errors name the problem and the fix.

use std::time::Duration;

use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::{Process, Server};

use crate::nodes::support::Site;

/// Asserts that a node exits with 1 and an error with these words and without a password.
#[track_caller]
fn check_refused(node: &Folder, site: &Site, words: &[&str]) {
    let before = node.log().len();
    let mut process = Process::start(&mut node.serve());
    let status = process.wait_for_exit(Duration::from_secs(10));
    let log = node.log();
    let message = log.get(before..).unwrap_or_default();
    assert_eq!(status.code(), Some(1), "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    assert!(!message.contains("panicked"), "{message}");
    assert!(!message.contains(&site.password()), "the password is shown");
}

#[test]
fn a_node_without_the_shared_secrets_is_refused() {
    let site = Site::new();
    for (name, words) in [
        ("BURSAR_SECRET_KEY", ["PostgreSQL requires a secret key", "the same BURSAR_SECRET_KEY"]),
        (
            "BURSAR_OPERATOR_TOKEN",
            ["PostgreSQL requires an operator's token", "the same BURSAR_OPERATOR_TOKEN"],
        ),
    ] {
        let mut node = site.node();
        node.set(name, "");
        check_refused(&node, &site, &words);
    }
}

#[test]
fn a_node_with_another_secret_key_is_refused_and_the_right_one_still_works() {
    let site = Site::new();
    let node = site.node();
    Server::start(&node).stop();
    let mut other = site.node();
    other.set("BURSAR_SECRET_KEY", "quite another secret key of thirty-two bytes");
    check_refused(&other, &site, &["belongs to another secret key", "BURSAR_SECRET_KEY"]);
    Server::start(&node).stop();
}

#[test]
fn a_database_without_the_schema_is_refused() {
    let site = Site::empty();
    check_refused(&site.node(), &site, &["schema 0", "run `bursar db migrate`"]);
}

#[test]
fn a_newer_schema_is_served_while_it_declares_compatibility() {
    let site = Site::new();
    let set = |name: &str, value: &str| {
        site.database.run(&format!("update server set value = '{value}' where name = '{name}'"));
    };
    set("schema_version", "99");
    Server::start(&site.node()).stop();
    set("oldest_known", "98");
    check_refused(&site.node(), &site, &["schema 99", "needs a newer bursar"]);
    set("schema_version", "0");
    check_refused(&site.node(), &site, &["schema 0", "run `bursar db migrate`"]);
}

#[test]
fn a_role_that_bypasses_row_level_security_is_refused() {
    let site = Site::new();
    let unbound = "row level security does not apply to the role";
    for url in [site.database.admin_url(), site.database.create_role("bypassrls")] {
        check_refused(&site.node_with_url(&url), &site, &[unbound, "--app-role"]);
    }
    let owner = site.node_with_url(site.database.owner_url());
    check_refused(&owner, &site, &["owns the tables", "--app-role"]);
}

#[test]
fn a_database_that_could_lose_acknowledged_writes_is_refused() {
    let site = Site::new();
    let name = site.database.app_url().rsplit('/').next().expect("a name").to_owned();
    site.database.run(&format!("alter database {name} set synchronous_commit = off"));
    check_refused(&site.node(), &site, &["synchronous_commit is off", "could be lost"]);
    let cluster = Cluster::with_settings(&[("fsync", "off")]);
    let site = Site::on(&cluster);
    check_refused(&site.node(), &site, &["fsync is off", "could be lost"]);
}

#[test]
fn a_database_that_cannot_be_reached_is_refused() {
    let site = Site::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    drop(taken);
    let url = format!("postgres://role:{}@127.0.0.1:{port}/bursar", site.password());
    check_refused(&site.node_with_url(&url), &site, &["the database cannot be used", "refused"]);
    let url = format!("postgres://role:{}@127.0.0.1:no/bursar", site.password());
    check_refused(
        &site.node_with_url(&url),
        &site,
        &["BURSAR_DATABASE has a port that is not a number"],
    );
}

#[test]
fn an_unreadable_password_file_is_refused_by_name() {
    let site = Site::new();
    let url = site.database.app_url();
    let login = format!(":{}@", site.password());
    let mut node = site.node_with_url(&url.replace(&login, "@"));
    let file = node.beside("password");
    node.set("BURSAR_POSTGRES_PASSWORD_FILE", file.to_string_lossy());
    let path = file.to_string_lossy().into_owned();
    check_refused(&node, &site, &["cannot read", &path, "postgres.password_file"]);
    std::fs::write(&file, format!("{}\n", site.password())).expect("written");
    Server::start(&node).stop();
}
