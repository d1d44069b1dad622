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
