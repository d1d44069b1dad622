//! Where the store of a test lies, and its rows as they are stored.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bursar_store::{
    AuditKey, AuditVerified, Clocks, SqliteStore, Store, Verified, WriterConnection,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

/// One row, each column as a text; bytes as hexadecimal digits.
pub(crate) type Cells = Vec<Option<String>>;

/// Seals the audit log of every store here.
pub(crate) fn audit_key() -> AuditKey {
    AuditKey::new([7; 32])
}

/// A database of a test's own, which goes when it is dropped.
pub(crate) trait Home: Send + Sync {
    /// Opens the store that lies here, with its writers.
    fn open(&self, clocks: Clocks) -> (Arc<dyn Store>, Vec<Box<dyn WriterConnection>>);

    /// The rows of each of these statements, all of one instant and of every tenant.
    fn rows(&self, statements: &[&str]) -> Vec<Vec<Cells>>;

    /// What the store itself finds when it counts everything a second time.
    fn verify(&self) -> Verified;

    /// What the store itself finds when it checks the audit log.
    fn verify_audit(&self) -> AuditVerified;

    /// Runs a statement behind the back of the store, on the rows of every tenant.
    fn tamper(&self, sql: &str);

    /// Bytes as a statement of this database writes them.
    fn literal(&self, bytes: &[u8]) -> String;

    /// The file, of a database that is one.
    fn path(&self) -> PathBuf;
}

/// The embedded store in a folder of its own.
pub(super) struct File(TempDir);

impl File {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Home for File {
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

    fn verify(&self) -> Verified {
        SqliteStore::verify(&self.path()).unwrap().unwrap()
    }

    fn verify_audit(&self) -> AuditVerified {
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
