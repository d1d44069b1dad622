//! A secret that is put where none belongs stays nowhere, in no table of a shared database either.

use bursar_testing::process::canary::Walk;
use bursar_testing::process::server::Server;
use bursar_testing::waiting::scale;

use crate::nodes::support::Site;

/// As `bursar` makes them, so that it is recognised where it does not belong.
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
    let mut walk = Walk::new(&folder, &server);
    walk.ask_all(scale(false, true));
    let shown = walk.read_all();
    assert!(shown.contains("[redacted]"), "no error message was kept");
    assert!(walk.refused > 100, "{} of {} were refused", walk.refused, walk.asked);
    server.stop();
    let tables: Vec<String> = site.database.run(TABLES).into_iter().flatten().flatten().collect();
    assert!(tables.len() > 10, "{tables:?}");
    for table in &tables {
        let rows = site.database.run(&format!("select entry::text from {table} entry"));
        for row in rows.into_iter().flatten().flatten() {
            assert_eq!(walk.canaries.find(row.as_bytes()), None, "in {table}: {row}");
        }
    }
    let log = folder.log();
    let line = log.lines().find(|line| walk.canaries.find(line.as_bytes()).is_some());
    assert_eq!(line, None, "a line of the log shows a secret");
}
