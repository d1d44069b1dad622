//! Opens the writer's connection, at a start with an empty log.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::checkpoint::Lengths;
use super::connect::{BUSY_MAX, open_writable};
use super::error::OpenError;
use super::log_copier::{MEASURE, checkpoint, empty_log, keep_log};
use crate::memory::Caches;

/// How often a start retries while another process reads the log.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// Opens the writer's connection.
pub(super) fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open_writable(path)?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    connection.pragma_update(None, "cache_size", -Caches::fitting().writer_kib)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "journal_size_limit", Lengths::fitting().kept_bytes())?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Opens the writer's connection and moves the whole log into the file.
///
/// Pages that an earlier server copied may be missing on the disk, so all are copied again. SQLite
/// does that by itself, unless another process has the file open: then it skips the pages that
/// count as copied.
pub(super) fn open_emptied(path: &Path) -> Result<Connection, OpenError> {
    let database = |cause| OpenError::Database { path: path.to_owned(), cause };
    let end = Instant::now() + BUSY_MAX;
    loop {
        let writer = open_writer(path).map_err(database)?;
        writer.execute_batch("select count(*) from sqlite_schema").map_err(database)?;
        writer.busy_timeout(Duration::ZERO).map_err(database)?;
        let log = checkpoint(&writer, MEASURE).map_err(database)?;
        if log.copied <= 0 && empty_log(&writer).map_err(database)? {
            writer.busy_timeout(BUSY_MAX).map_err(database)?;
            return Ok(writer);
        }
        if Instant::now() >= end {
            return Err(OpenError::ReadByAnother(path.to_owned()));
        }
        keep_log(&writer).map_err(database)?;
        drop(writer);
        std::thread::sleep(RETRY_EVERY);
    }
}
