//! Features of the SQLite store only: its statements, its file and its lock.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::path::PathBuf;
use std::sync::Arc;

use bursar_core::Timestamp;
use bursar_store::{Clock, OpenError, SqliteStore};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::constants::{self, Constant};
use crate::support::test_database::audit_key;

fn clock() -> Clock {
    Arc::new(|| Timestamp::from_micros(1_780_000_000_000_000).unwrap())
}

/// A closed file with the newest schema.
fn migrated() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bursar.db");
    drop(SqliteStore::open(&path, clock(), "fingerprint", audit_key()).unwrap());
    (folder, path)
}

/// The statements of SQLite, and those of both databases.
fn constants() -> Vec<Constant> {
    let hint = " indexed by keys_by_owner";
    let of = |folder| constants::constants(folder, hint);
    ["src/sqlite", "src/tables"].into_iter().flat_map(of).collect()
}

#[test]
fn every_statement_prepares_on_the_newest_schema() {
    let (_folder, path) = migrated();
    let db = Connection::open(path).unwrap();
    let constants = constants();
    assert!(constants.len() >= 40, "only {} statements found", constants.len());
    for Constant { name, file, text } in constants {
        let prepared = db.prepare(&text);
        assert!(prepared.is_ok(), "{name} in {file}: {}\n{text}", prepared.err().unwrap());
    }
}

/// Statements that may scan a table: without a tenant, once at the start, for the metrics, or to
/// verify or copy the whole file.
const MAY_SCAN: [&str; 22] = [
    "AUDITED_TENANTS",
    "BEGIN_SNAPSHOT",
    "BYTES",
    // They scan a limited search result.
    "COUNT_DUE",
    "RESERVATIONS",
    "COUNT_ENTRIES",
    "COUNT_TENANTS",
    "LIST_TENANTS",
    "LIST_LIMITED",
    "MAX_LAST_AT",
    "LABELS",
    "ENTRIES",
    "OPEN",
    "COUNTERS",
    "ROLLUPS",
    "KEYED_ROLLUPS",
    "CALLS_WITH_ENTRY",
    "LIMITS",
    "LIMIT_ACCOUNTS",
    "LIMIT_VALUES",
    "POSTED",
    "POSTINGS",
];

/// The steps of SQLite's plan for a statement.
fn plan(db: &Connection, text: &str) -> Vec<String> {
    let mut statement = db.prepare(&format!("explain query plan {text}")).unwrap();
    statement.raw_query().mapped(|row| row.get(3)).map(|step| step.unwrap()).collect()
}

#[test]
fn no_statement_about_a_tenant_reads_a_whole_table() {
    let (_folder, path) = migrated();
    let db = Connection::open(path).unwrap();
    for Constant { name, file, text } in constants() {
        let plan = plan(&db, &text);
        // The result of a subquery may be scanned.
        let found = |table: &str| {
            let parts = ["CO-ROUTINE ", "MATERIALIZE "];
            plan.iter().any(|step| parts.iter().any(|part| *step == format!("{part}{table}")))
        };
        let scans = plan
            .iter()
            .filter_map(|step| step.strip_prefix("SCAN "))
            .any(|table| !table.contains("CONSTANT") && !found(table));
        let may = MAY_SCAN.contains(&name.as_str());
        assert!(!scans || may, "{name} in {file}: {plan:?}");
    }
}

/// The plan of one statement of one file.
fn plan_of(db: &Connection, file: &str, name: &str) -> Vec<String> {
    let found = constants().into_iter().find(|known| known.file == file && known.name == name);
    plan(db, &found.unwrap().text)
}

#[test]
fn the_history_starts_at_the_cursor_and_sorts_nothing() {
    let (_folder, path) = migrated();
    let db = Connection::open(path).unwrap();
    let scans = [
        ("BY_TIME", "usage_entries_by_time (tenant_id=? AND integration_id=?"),
        ("BY_MODEL", "usage_entries_by_model (tenant_id=? AND integration_id=? AND model=?"),
        ("BY_AGENT", "usage_entries_by_agent (tenant_id=? AND agent_id=?"),
        ("BY_SESSION", "usage_entries_by_session (tenant_id=? AND session_id=?"),
        ("FAILED", "usage_entries_failed (tenant_id=?"),
        ("NOT_ALLOWED", "usage_entries_not_allowed (tenant_id=? AND policy_result=?"),
    ];
    for (name, index) in scans {
        // A second step would sort (USE TEMP B-TREE) or look up.
        let scan = format!(
            "SEARCH usage_entries USING INDEX {index} AND occurred_at>? AND occurred_at<?)"
        );
        assert_eq!(plan_of(&db, "history.rs", name), [scan], "{name}");
    }
}

#[test]
fn the_audit_log_starts_at_the_cursor_and_sorts_nothing() {
    let (_folder, path) = migrated();
    let db = Connection::open(path).unwrap();
    let range = "AND at>? AND at<?)";
    let scans = [
        ("BY_TIME", format!("audit_by_time (tenant_id=? {range}")),
        ("BY_ACTOR", format!("audit_by_actor (tenant_id=? AND actor_id=? {range}")),
        ("BY_ACTION", format!("audit_by_action (tenant_id=? AND action=? {range}")),
        ("BY_TARGET", format!("audit_by_target (tenant_id=? AND target_id=? {range}")),
        ("CHAIN", "audit_chain (tenant_id=? AND sequence>?)".to_owned()),
    ];
    for (name, index) in scans {
        let scan = format!("SEARCH audit USING INDEX {index}");
        assert_eq!(plan_of(&db, "audit.rs", name), [scan], "{name}");
    }
}

#[test]
fn keys_are_listed_and_counted_through_the_owner_index() {
    let (_folder, path) = migrated();
    let db = Connection::open(path).unwrap();
    let by_owner = "keys_by_owner (tenant_id=? AND integration_id=?)";
    let names = ["LIST_KEYS", "COUNT_KEYS", "COUNT_LIVE"];
    let mut checked = Vec::new();
    for Constant { name, text, .. } in constants() {
        if !names.contains(&name.as_str()) {
            continue;
        }
        let plan = plan(&db, &text);
        assert!(matches!(&*plan, [step] if step.contains(by_owner)), "{name}: {plan:?}");
        checked.push(name);
    }
    // Each has one form for API keys and one for the keys of an integration.
    assert_eq!(checked.len(), 2 * names.len(), "{checked:?}");
}

#[test]
fn sums_of_days_read_these_days_only() {
    let (_folder, path) = migrated();
    let db = Connection::open(path).unwrap();
    let rollups =
        "PRIMARY KEY (tenant_id=? AND integration_id=? AND grain=? AND start>? AND start<?)";
    let by_day = "rollups_by_day (tenant_id=? AND ";
    let sessions = "INDEX usage_entries_by_session \
         (tenant_id=? AND session_id=? AND occurred_at>? AND occurred_at<?)";
    let entries = "INDEX usage_entries_by_time \
         (tenant_id=? AND integration_id=? AND occurred_at>? AND occurred_at<?)";
    let keys_of_day = "COVERING INDEX rollups_by_day \
         (tenant_id=? AND start=? AND integration_id=?";
    let key_of_day = "COVERING INDEX rollups_by_day (tenant_id=? AND start=? AND integration_id=? \
         AND grain=? AND provider=? AND label=? AND key_id=?)";
    let reads = [
        ("summaries.rs", "LIST_DAYS", rollups),
        ("days.rs", "LIST_POSITIONS_OF", rollups),
        ("days.rs", "COUNT_POSITIONS_OF", rollups),
        ("days.rs", "LIST_SUMS_OF", rollups),
        ("days.rs", "LIST_POSITIONS", by_day),
        ("days.rs", "COUNT_POSITIONS", "rollups_by_day (tenant_id=? AND start>? AND start<?)"),
        ("days.rs", "LIST_SUMS", by_day),
        ("series.rs", "LIST_ROLLUPS", rollups),
        ("series.rs", "COUNT_CALLS", rollups),
        ("limits.rs", "SUM_DAY", "rollups_by_day (tenant_id=? AND start=?)"),
        ("labels.rs", "COUNT_KEYED", keys_of_day),
        ("labels.rs", "SELECT_KEY", key_of_day),
        ("series.rs", "SCAN_SESSIONS", entries),
        ("series.rs", "SUM_SESSION", sessions),
    ];
    for (file, name, index) in reads {
        let plan = plan_of(&db, file, name);
        assert!(plan.iter().any(|step| step.contains(index)), "{name}: {plan:?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{name}: {plan:?}");
    }
}

#[test]
fn accounts_of_limits_are_read_by_their_key() {
    let (_folder, path) = migrated();
    let db = Connection::open(path).unwrap();
    let (limit, account) = ("tenant_id=? AND limit_id=?", "tenant_id=? AND limit_id=? AND value=?");
    let due = format!("{account} AND expires_at<?");
    let posting = format!("{account} AND expires_at=? AND call_key=?");
    let reads = [
        ("SELECT_ACCOUNT", "limit_accounts", account),
        ("SELECT_SECONDS", "limit_seconds", account),
        ("SELECT_VALUES", "limit_values", limit),
        ("SELECT_POSTINGS", "postings", account),
        ("SUM_DUE", "postings", &due),
        ("DELETE_POSTING", "postings", &posting),
        ("DELETE_POSTINGS", "postings", limit),
        ("DELETE_SECONDS", "limit_seconds", limit),
        ("DELETE_VALUES", "limit_values", limit),
        ("DELETE_ACCOUNTS", "limit_accounts", limit),
        ("DELETE_LIMIT", "limits", limit),
        ("SELECT_LIMIT", "limits", limit),
        ("LIST_LIMITS", "limits", "tenant_id=?"),
    ];
    for (name, table, key) in reads {
        let plan = plan_of(&db, "limits.rs", name);
        let search = format!("SEARCH {table} USING PRIMARY KEY ({key})");
        assert_eq!(plan.first(), Some(&search), "{name}: {plan:?}");
    }
}

#[test]
fn a_second_process_is_refused() {
    let (_folder, path) = migrated();
    let first = SqliteStore::open(&path, clock(), "fingerprint", audit_key()).unwrap();
    let second = SqliteStore::open(&path, clock(), "fingerprint", audit_key()).err().unwrap();
    assert!(matches!(second, OpenError::InUse(_)), "{second}");
    drop(first);
    assert!(SqliteStore::open(&path, clock(), "fingerprint", audit_key()).is_ok());
}

#[test]
fn another_secret_key_is_refused() {
    let (_folder, path) = migrated();
    let other = SqliteStore::open(&path, clock(), "other", audit_key()).err().unwrap();
    assert!(matches!(other, OpenError::OtherSecretKey(_)), "{other}");
    // The refused process has not changed the fingerprint.
    assert!(SqliteStore::open(&path, clock(), "fingerprint", audit_key()).is_ok());
}

#[test]
fn a_newer_schema_is_refused_unless_it_supports_this_version() {
    let (_folder, path) = migrated();
    let newer = |oldest_known: u32| {
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "user_version", 1_000).unwrap();
        let sql = "update server set value = ?1 where name = 'oldest_known'";
        db.execute(sql, [oldest_known.to_string()]).unwrap();
    };
    newer(1_000);
    let refused = SqliteStore::open(&path, clock(), "fingerprint", audit_key()).err().unwrap();
    let is_newer = matches!(refused, OpenError::NewerSchema { found: 1_000, .. });
    assert!(is_newer, "{refused}");
    newer(1);
    assert!(SqliteStore::open(&path, clock(), "fingerprint", audit_key()).is_ok());
}

#[test]
fn a_file_that_is_no_database_is_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bursar.db");
    let text = "not a database at all, and long enough to be read as the header of one. ".repeat(9);
    std::fs::write(&path, &text).unwrap();
    let refused = SqliteStore::open(&path, clock(), "fingerprint", audit_key()).err().unwrap();
    assert!(matches!(refused, OpenError::Database { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let nowhere = folder.path().join("missing/bursar.db");
    let refused = SqliteStore::open(&nowhere, clock(), "fingerprint", audit_key()).err().unwrap();
    assert!(matches!(refused, OpenError::File { .. }), "{refused}");
}

#[test]
fn a_link_to_a_file_in_use_is_refused() {
    let (folder, path) = migrated();
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let link = elsewhere.join("bursar.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let first = SqliteStore::open(&path, clock(), "fingerprint", audit_key()).unwrap();
    let second = SqliteStore::open(&link, clock(), "fingerprint", audit_key()).err().unwrap();
    assert!(matches!(second, OpenError::InUse(_)), "{second}");
    // Another file beside it is another store.
    let other = folder.path().join("bursar.sqlite");
    drop(SqliteStore::open(&other, clock(), "fingerprint", audit_key()).unwrap());
    drop(first);
}

#[test]
fn a_closed_store_leaves_an_empty_log_and_a_private_file() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, path) = migrated();
    let log = folder.path().join("bursar.db-wal");
    assert!(log.metadata().map_or(0, |file| file.len()) == 0);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_audit_log_is_not_checked_with_another_secret_key() {
    let (_folder, path) = migrated();
    let verify = |fingerprint| SqliteStore::verify_audit(&path, fingerprint, &audit_key(), None);
    assert_eq!(verify("fingerprint").unwrap().unwrap().differences.count, 0);
    let refused = verify("other").err().unwrap();
    assert!(matches!(refused, OpenError::OtherSecretKey(_)), "{refused}");
}

#[test]
fn the_audit_log_of_a_file_without_a_schema_is_not_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bursar.db");
    drop(Connection::open(&path).unwrap());
    std::fs::write(&path, "").unwrap();
    let refused = SqliteStore::verify_audit(&path, "fingerprint", &audit_key(), None);
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("start a server with it first"), "{refused}");
}
