//! What only the embedded store has: its statements, its file and its lock.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bursar_core::Timestamp;
use bursar_store::{Clock, OpenError, SqliteStore};
use rusqlite::Connection;
use tempfile::TempDir;

fn clock() -> Clock {
    Arc::new(|| Timestamp::from_micros(1_780_000_000_000_000).unwrap())
}

/// A file with the newest schema, closed again.
fn migrated() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bursar.db");
    drop(SqliteStore::open(&path, clock(), "fingerprint").unwrap());
    (folder, path)
}

/// A text constant of the source.
struct Constant {
    name: String,
    file: String,
    text: String,
}

/// Every `const NAME: &str = "..."` of the embedded store.
fn constants() -> Vec<Constant> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sqlite");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut found = Vec::new();
    for path in files {
        let source = std::fs::read_to_string(&path).unwrap();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        for piece in source.split("const ").skip(1) {
            let Some((name, rest)) = piece.split_once(": &str =") else { continue };
            let is_name =
                name.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_numeric());
            if !is_name {
                continue;
            }
            let literal = rest.trim_start().strip_prefix('"').unwrap();
            let text = unescaped(literal);
            found.push(Constant { name: name.to_owned(), file: file.clone(), text });
        }
    }
    found
}

/// The literal up to its closing quote; a line that ends in a backslash goes on in the next one.
fn unescaped(literal: &str) -> String {
    let mut text = String::new();
    let mut characters = literal.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => return text,
            '\\' => {
                assert_eq!(characters.next(), Some('\n'), "no other escape is known here");
                while characters.next_if(|next| next.is_whitespace()).is_some() {}
            }
            other => text.push(other),
        }
    }
    unreachable!("a literal without an end")
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

/// Statements that may read a table from end to end: without a tenant, once at the start, or to
/// verify or copy the whole file.
const MAY_SCAN: [&str; 11] = [
    "BEGIN_SNAPSHOT",
    "COUNT_ENTRIES",
    "COUNT_TENANTS",
    "LIST_TENANTS",
    "MAX_LAST_AT",
    "LABELS",
    "ENTRIES",
    "OPEN",
    "COUNTERS",
    "ROLLUPS",
    "CALLS_WITH_ENTRY",
];

#[test]
fn no_statement_about_a_tenant_reads_a_whole_table() {
    let (_folder, path) = migrated();
    let db = Connection::open(path).unwrap();
    for Constant { name, file, text } in constants() {
        let mut statement = db.prepare(&format!("explain query plan {text}")).unwrap();
        let plan: Vec<String> =
            statement.raw_query().mapped(|row| row.get(3)).map(|step| step.unwrap()).collect();
        let scans = plan.iter().any(|step| step.starts_with("SCAN") && !step.contains("CONSTANT"));
        let may = MAY_SCAN.contains(&name.as_str());
        assert!(!scans || may, "{name} in {file}: {plan:?}");
    }
}

#[test]
fn a_second_process_is_refused() {
    let (_folder, path) = migrated();
    let first = SqliteStore::open(&path, clock(), "fingerprint").unwrap();
    let second = SqliteStore::open(&path, clock(), "fingerprint").err().unwrap();
    assert!(matches!(second, OpenError::InUse(_)), "{second}");
    drop(first);
    assert!(SqliteStore::open(&path, clock(), "fingerprint").is_ok());
}

#[test]
fn another_secret_key_is_refused() {
    let (_folder, path) = migrated();
    let other = SqliteStore::open(&path, clock(), "other").err().unwrap();
    assert!(matches!(other, OpenError::OtherSecretKey(_)), "{other}");
    // Whoever was refused must not have taken the file over.
    assert!(SqliteStore::open(&path, clock(), "fingerprint").is_ok());
}

#[test]
fn a_newer_schema_is_refused_unless_it_still_knows_this_one() {
    let (_folder, path) = migrated();
    let newer = |oldest_known: u32| {
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "user_version", 1_000).unwrap();
        let sql = "update server set value = ?1 where name = 'oldest_known'";
        db.execute(sql, [oldest_known.to_string()]).unwrap();
    };
    newer(1_000);
    let refused = SqliteStore::open(&path, clock(), "fingerprint").err().unwrap();
    let is_newer = matches!(refused, OpenError::NewerSchema { found: 1_000, .. });
    assert!(is_newer, "{refused}");
    newer(1);
    assert!(SqliteStore::open(&path, clock(), "fingerprint").is_ok());
}

#[test]
fn a_file_that_is_no_database_is_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bursar.db");
    let text = "not a database at all, and long enough to be read as the header of one. ".repeat(9);
    std::fs::write(&path, &text).unwrap();
    let refused = SqliteStore::open(&path, clock(), "fingerprint").err().unwrap();
    assert!(matches!(refused, OpenError::Database { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let nowhere = folder.path().join("missing/bursar.db");
    let refused = SqliteStore::open(&nowhere, clock(), "fingerprint").err().unwrap();
    assert!(matches!(refused, OpenError::File { .. }), "{refused}");
}

#[test]
fn another_way_to_the_same_file_is_refused() {
    let (folder, path) = migrated();
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let link = elsewhere.join("bursar.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let first = SqliteStore::open(&path, clock(), "fingerprint").unwrap();
    let second = SqliteStore::open(&link, clock(), "fingerprint").err().unwrap();
    assert!(matches!(second, OpenError::InUse(_)), "{second}");
    // Another file beside it is another store.
    let other = folder.path().join("bursar.sqlite");
    drop(SqliteStore::open(&other, clock(), "fingerprint").unwrap());
    drop(first);
}

#[test]
fn a_closed_file_is_all_there_is_and_its_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, path) = migrated();
    let log = folder.path().join("bursar.db-wal");
    assert!(log.metadata().map_or(0, |file| file.len()) == 0);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}
