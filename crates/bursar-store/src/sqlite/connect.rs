//! Opens connections to the data file: one for writing, and others for reading.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use crate::memory::Caches;

/// How long a connection waits for a lock of another process.
pub(super) const BUSY_MAX: Duration = Duration::from_secs(5);

/// Opens a connection in write-ahead mode that runs no checkpoints by itself.
pub(super) fn open_writable(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        let message = format!("the file system does not support a write-ahead log ({mode})");
        return Err(rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_CANTOPEN),
            Some(message),
        ));
    }
    connection.busy_timeout(BUSY_MAX)?;
    connection.pragma_update(None, "synchronous", "full")?;
    // Without these, a sync on macOS does not reach the disk; elsewhere they change nothing.
    connection.pragma_update(None, "fullfsync", "on")?;
    connection.pragma_update(None, "checkpoint_fullfsync", "on")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    keep_plans(&connection)?;
    Ok(connection)
}

/// Opens a read-only connection.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "cache_size", -Caches::fitting().reader_kib)?;
    connection.set_prepared_statement_cache_capacity(64);
    keep_plans(&connection)?;
    Ok(connection)
}

/// Keeps the plan of a prepared statement. Otherwise SQLite prepares a statement again whenever a
/// value changes that could change its plan, which costs more than a lookup by key.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_| ())
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    /// How often SQLite prepares a statement again for other values. Whether the partial index fits
    /// the statement depends on the value.
    fn repreparations(connection: &Connection) -> i32 {
        let sql = "select number from holds where state = $1";
        let mut statement = connection.prepare(sql).unwrap();
        for state in [1, 2, 1] {
            statement.raw_bind_parameter(1, state).unwrap();
            let mut rows = statement.raw_query();
            while rows.next().unwrap().is_some() {}
        }
        statement.get_status(StatementStatus::RePrepare)
    }

    #[test]
    fn no_connection_prepares_a_statement_again_for_other_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        let writable = open_writable(&path).unwrap();
        let schema = "create table holds (state integer not null, number integer not null);
             create index open_holds on holds (number) where state = 1";
        writable.execute_batch(schema).unwrap();
        assert_eq!(repreparations(&writable), 0, "the writable connection");
        assert_eq!(repreparations(&open_reader(&path).unwrap()), 0, "the reader");
        // Without the setting, the statement is prepared again.
        assert!(repreparations(&Connection::open(&path).unwrap()) > 0, "the test shows nothing");
    }

    /// A build that does not read `.cargo/config.toml` lacks the option; docs/operating.md names it.
    #[test]
    fn sqlite_does_not_count_the_memory_that_it_uses() {
        let connection = Connection::open_in_memory().unwrap();
        let mut statement = connection.prepare("pragma compile_options").unwrap();
        let options = statement.query_map([], |row| row.get(0)).unwrap();
        let options: Vec<String> = options.map(Result::unwrap).collect();
        assert!(options.iter().any(|option| option == "DEFAULT_MEMSTATUS=0"), "{options:?}");
    }
}
