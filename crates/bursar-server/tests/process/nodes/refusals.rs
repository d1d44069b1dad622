//! Starts that are refused, in words that name what is wrong and what to do.

use std::time::Duration;

use bursar_testing::postgres::cluster::Cluster;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::{Process, Server};

use crate::nodes::support::Site;

/// Starts a node that must end with 1 and a message with these words in it, and no password.
#[track_caller]
fn check_refused(node: &Folder, site: &Site, words: &[&str]) {
    let before = node.log().len();
    let mut process = Process::start(&mut node.serve());
    let status = process.end_within(Duration::from_secs(10));
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
        ("BURSAR_SECRET_KEY", ["the secret key is required", "the same BURSAR_SECRET_KEY"]),
        ("BURSAR_OPERATOR_TOKEN", ["token is required", "the same BURSAR_OPERATOR_TOKEN"]),
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
fn a_schema_of_a_newer_version_is_served_as_long_as_it_says_so() {
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
fn a_role_that_row_level_security_does_not_bind_is_refused() {
    let site = Site::new();
    let unbound = "row level security does not apply to the role";
    for url in [site.database.admin_url(), site.database.role("bypassrls")] {
        check_refused(&site.node_by(&url), &site, &[unbound, "--app-role"]);
    }
    let owner = site.node_by(site.database.owner_url());
    check_refused(&owner, &site, &["owns the tables", "--app-role"]);
}

#[test]
fn a_database_that_could_lose_what_it_acknowledged_is_refused() {
    let site = Site::new();
    let name = site.database.app_url().rsplit('/').next().expect("a name").to_owned();
    site.database.run(&format!("alter database {name} set synchronous_commit = off"));
    check_refused(&site.node(), &site, &["synchronous_commit is off", "could be lost"]);
    let cluster = Cluster::with(&[("fsync", "off")]);
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
    check_refused(&site.node_by(&url), &site, &["the database cannot be used", "refused"]);
    let url = format!("postgres://role:{}@127.0.0.1:no/bursar", site.password());
    check_refused(&site.node_by(&url), &site, &["BURSAR_DATABASE has a port that is no number"]);
}

#[test]
fn a_password_that_cannot_be_read_is_refused_by_its_file() {
    let site = Site::new();
    let url = site.database.app_url();
    let login = format!(":{}@", site.password());
    let mut node = site.node_by(&url.replace(&login, "@"));
    let file = node.beside("password");
    node.set("BURSAR_POSTGRES_PASSWORD_FILE", file.to_string_lossy());
    let path = file.to_string_lossy().into_owned();
    check_refused(&node, &site, &["cannot read", &path, "postgres.password_file"]);
    std::fs::write(&file, format!("{}\n", site.password())).expect("written");
    Server::start(&node).stop();
}
