//! Secrets sent in the wrong places are in no table of a shared database and in no output.

use bursar_testing::process::canary::CanaryRequests;
use bursar_testing::process::server::Server;
use bursar_testing::waiting::scale;

use crate::nodes::support::Site;

/// In the format of generated tokens, so that it is recognised in the wrong place.
const OPERATOR_TOKEN: &str = concat!("bur_", "operator_", "CanaryOfTheOperator78901234567890");
const TABLES: &str = "select tablename from pg_tables where schemaname = 'public'";

#[test]
fn a_secret_in_any_field_header_or_url_is_in_no_table_answer_or_line_of_the_log() {
    let site = Site::new();
    let mut folder = site.node();
    std::fs::write(folder.file("operator-token"), OPERATOR_TOKEN).expect("a file");
    folder.set("BURSAR_OPERATOR_TOKEN", OPERATOR_TOKEN);
    folder.set("BURSAR_LOG", "trace");
    folder.set("BURSAR_SERVER_TRUSTED_PROXIES", "127.0.0.1");
    let server = Server::start(&folder);
    let mut requests = CanaryRequests::new(&folder, &server);
    requests.send_all(scale(false, true));
    let shown = requests.read_all();
    assert!(shown.contains("[redacted]"), "no error message was stored");
    assert!(requests.refused > 100, "{} of {} were refused", requests.refused, requests.sent);
    server.stop();
    let tables: Vec<String> = site.database.run(TABLES).into_iter().flatten().flatten().collect();
    assert!(tables.len() > 10, "{tables:?}");
    for table in &tables {
        let rows = site.database.run(&format!("select entry::text from {table} entry"));
        for row in rows.into_iter().flatten().flatten() {
            assert_eq!(requests.canaries.find(row.as_bytes()), None, "in {table}: {row}");
        }
    }
    let log = folder.log();
    let line = log.lines().find(|line| requests.canaries.find(line.as_bytes()).is_some());
    assert_eq!(line, None, "a line of the log shows a secret");
}
