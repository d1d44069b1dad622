//! The database of a test's store, and access to its stored rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bursar_store::{
    AuditKey, AuditReport, Clocks, SqliteStore, Store, VerifyReport, WriterConnection,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

/// One row, each column as a text; bytes as hexadecimal digits.
pub(crate) type Cells = Vec<Option<String>>;

/// The key that seals the audit log of every store in these tests.
pub(crate) fn audit_key() -> AuditKey {
    AuditKey::new([7; 32])
}

/// A database of one test, which is deleted on drop.
pub(crate) trait TestDatabase: Send + Sync {
    /// Opens the store, with its writers.
    fn open(&self, clocks: Clocks) -> (Arc<dyn Store>, Vec<Box<dyn WriterConnection>>);

    /// The rows of each statement, of all tenants, read on one snapshot.
    fn rows(&self, statements: &[&str]) -> Vec<Vec<Cells>>;

    /// Runs the store's own verification of its sums.
    fn verify(&self) -> VerifyReport;

    /// Runs the store's own check of the audit log.
    fn verify_audit(&self) -> AuditReport;

    /// Runs a statement on the rows of every tenant, without the store.
    fn tamper(&self, sql: &str);

    /// Bytes as a literal in SQL.
    fn literal(&self, bytes: &[u8]) -> String;

    /// The path of the file, for SQLite.
    fn path(&self) -> PathBuf;
}

/// An SQLite file in a folder of its own.
pub(super) struct SqliteFile(TempDir);

impl SqliteFile {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl TestDatabase for SqliteFile {
    fn open(&self, clocks: Clocks) -> (Arc<dyn Store>, Vec<Box<dyn WriterConnection>>) {
        let opened = SqliteStore::open(&self.path(), clocks, "fingerprint", audit_key());
        let (store, writer) = opened.unwrap();
        (store, vec![writer])
    }

    fn rows(&self, statements: &[&str]) -> Vec<Vec<Cells>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let db = Connection::open_with_flags(self.path(), flags).unwrap();
        db.execute_batch("begin").unwrap();
        assert_eq!(cells(&db, "pragma integrity_check"), [[Some("ok".to_owned())]]);
        assert!(cells(&db, "pragma foreign_key_check").is_empty(), "a row without its owner");
        statements.iter().map(|sql| cells(&db, sql)).collect()
    }

    fn verify(&self) -> VerifyReport {
        SqliteStore::verify(&self.path()).unwrap().unwrap()
    }

    fn verify_audit(&self) -> AuditReport {
        let (path, key) = (self.path(), audit_key());
        SqliteStore::verify_audit(&path, "fingerprint", &key, None).unwrap().unwrap()
    }

    fn tamper(&self, sql: &str) {
        Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }

    fn literal(&self, bytes: &[u8]) -> String {
        format!("x'{}'", digits(bytes))
    }

    fn path(&self) -> PathBuf {
        Path::join(self.0.path(), "bursar.db")
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cells(db: &Connection, sql: &str) -> Vec<Cells> {
    let mut statement = db.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement
        .query_map([], |row| Ok((0..columns).map(|at| cell(row.get_ref(at).unwrap())).collect()));
    rows.unwrap().map(Result::unwrap).collect()
}

fn cell(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
        ValueRef::Blob(bytes) => Some(digits(bytes)),
    }
}
