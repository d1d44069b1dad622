//! Refused starts, whose errors name the problem.

use std::time::Duration;

use bursar_testing::process::books::Books;
use bursar_testing::process::folder::Folder;
use bursar_testing::process::server::{Process, Server};
use bursar_testing::process::tenant::Tenant;
use bursar_testing::process::writer::{Writer, check_acknowledged};

const BUDGET_CENTS: u64 = 1_000_000_000;

/// Asserts that a server exits at once with 1 and an error with these words.
#[track_caller]
fn check_refused(folder: &Folder, arguments: &[&str], words: &[&str]) {
    let before = folder.log().len();
    let mut process = Process::start(folder.serve().args(arguments));
    let status = process.wait_for_exit(Duration::from_secs(10));
    let log = folder.log();
    let message = log.get(before..).unwrap_or_default();
    assert_eq!(status.code(), Some(1), "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

#[test]
fn a_second_server_on_the_same_folder_is_refused_and_the_first_keeps_running() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    tenant.add_integration(&server, BUDGET_CENTS);
    let mut writer = Writer::new(&tenant, 0, 1);
    let mut http = tenant.client(&server);
    assert!(writer.write(&mut http, 10).is_none());
    let address = std::fs::read_to_string(folder.file("server-address"));

    let database = folder.file("bursar.db");
    check_refused(&folder, &[], &["bursar: ", &database.to_string_lossy(), "is in use by another"]);

    let unchanged = std::fs::read_to_string(folder.file("server-address"));
    assert_eq!(address.ok(), unchanged.ok(), "the first server's address");
    assert!(writer.write(&mut http, 10).is_none());
    check_acknowledged(&[writer], &Books::read(&server, &tenant));
    server.stop();
}

#[test]
fn a_folder_can_be_served_again_after_its_server_was_killed() {
    let folder = Folder::new();
    let first = Server::start(&folder);
    check_refused(&folder, &[], &["is in use by another"]);
    first.kill();
    Server::start(&folder).stop();
}

#[test]
fn another_secret_key_is_refused_and_the_right_one_still_works() {
    let mut folder = Folder::new();
    folder.set("BURSAR_SECRET_KEY", "one secret key of thirty-two bytes or more");
    let server = Server::start(&folder);
    let mut tenant = Tenant::new(&folder, &server);
    tenant.add_integration(&server, BUDGET_CENTS);
    server.stop();

    let another = "quite another secret key of thirty-two bytes";
    folder.set("BURSAR_SECRET_KEY", another);
    check_refused(&folder, &[], &["belongs to another secret key", "BURSAR_SECRET_KEY"]);
    assert!(!folder.log().contains(another), "the key is in the log");
    folder.set("BURSAR_SECRET_KEY", "too short");
    check_refused(&folder, &[], &["at least 32 bytes"]);

    folder.set("BURSAR_SECRET_KEY", "one secret key of thirty-two bytes or more");
    let server = Server::start(&folder);
    let answer = tenant.client(&server).get("/api/v1/integrations").expect("an answer");
    assert_eq!(answer.status, 200, "the key that was made before");
    server.stop();
}

#[test]
fn an_unknown_setting_is_refused_by_name() {
    let mut folder = Folder::new();
    let file = folder.beside("bursar.toml");
    let path = file.to_string_lossy().into_owned();
    let write = |text: &str| std::fs::write(&file, text).expect("a file");

    write("lissten = '127.0.0.1:0'");
    check_refused(&folder, &["--config", &path], &["lissten is not a setting"]);
    write("[server]\nconnection_max = 3");
    check_refused(&folder, &["--config", &path], &["server.connection_max is not a setting"]);
    write("listen = ");
    check_refused(&folder, &["--config", &path], &["bursar.toml:1 is not valid TOML"]);
    check_refused(&folder, &["--config", "/no/such.toml"], &["cannot read /no/such.toml"]);
    folder.set("BURSAR_LISSTEN", "127.0.0.1:0");
    check_refused(&folder, &[], &["BURSAR_LISSTEN is not a setting"]);
    assert!(!folder.data().exists(), "a refused start created the data folder");
}

#[test]
fn an_address_in_use_is_refused_by_name() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = Folder::new();
    check_refused(&folder, &["--listen", &address], &["cannot listen on", &address, "in use"]);
    assert!(!folder.file("server-address").exists(), "a refused start left its address");
    Server::start(&folder).stop();
}

#[test]
fn a_file_that_is_not_a_database_is_refused_and_not_changed() {
    let folder = Folder::new();
    std::fs::create_dir(folder.data()).expect("a folder");
    let path = folder.file("bursar.db");
    let text = "this is somebody's text, not a database".repeat(300);
    std::fs::write(&path, &text).expect("a file");
    check_refused(&folder, &[], &["cannot use", &path.to_string_lossy(), "not a database"]);
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), text);
}
