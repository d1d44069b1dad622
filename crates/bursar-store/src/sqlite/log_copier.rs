//! Copies the write-ahead log into the data file, in passes (`wal_checkpoint(passive)`).
//!
//! Pages that count as copied must be on stable storage before the log restarts. SQLite syncs the
//! data file only after a pass that reaches the end of the log, so each pass here has its own sync.
//! A read of the log stays open around both, because SQLite does not restart a log that is being
//! read. If the copy or the sync fails, that read stays open until the process ends: the system may
//! have dropped pages without an error from a second sync, and only the next start copies the whole
//! log again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::connect::{open_reader, open_writable};

pub(super) const MEASURE: &str = "pragma wal_checkpoint(noop)";
const COPY: &str = "pragma wal_checkpoint(passive)";
/// Opens the log. In a transaction, it begins a read of the log.
const BEGIN_SNAPSHOT: &str = "select count(*) from sqlite_schema";

/// The first and the longest pause after a pass that made no progress.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The length of the log, and how far it is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Whether another process blocked the checkpoint.
    pub(super) is_blocked: bool,
    /// Pages in the log.
    pub(super) pages: i64,
    /// Pages of the log that are copied into the data file.
    pub(super) copied: i64,
}

impl Progress {
    pub(super) fn left(self) -> i64 {
        self.pages.saturating_sub(self.copied)
    }
}

pub(super) fn checkpoint(connection: &Connection, sql: &str) -> rusqlite::Result<Progress> {
    connection.prepare_cached(sql)?.query_row([], |row| {
        let is_blocked = row.get::<_, i64>(0)? != 0;
        Ok(Progress { is_blocked, pages: row.get(1)?, copied: row.get(2)? })
    })
}

/// Moves the log into the file and truncates it.
///
/// Returns `false` if readers or other processes prevented that.
pub(super) fn empty_log(writer: &Connection) -> rusqlite::Result<bool> {
    checkpoint(writer, "pragma wal_checkpoint(truncate)").map(|log| !log.is_blocked)
}

/// When the next pass may be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) at: Instant,
    pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { at: Instant::now(), pause: RETRY_MIN }
    }
}

impl Retry {
    fn put_off(&mut self) {
        self.at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(RETRY_MAX);
    }
}

/// The result of a pass.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pass {
    /// Whether it copied everything that was in the log when it began.
    pub(super) kept_up: bool,
    /// Whether nothing was left at its end.
    pub(super) is_whole: bool,
}

/// Makes passes.
pub(super) struct LogCopier {
    path: PathBuf,
    /// Opened by the first pass, and again after an error.
    pub(super) connections: Option<Connections>,
    /// The pages that were copied after the last pass.
    copied: i64,
    pub(super) retry: Retry,
    /// Whether the last pass failed, which was logged.
    is_failing: bool,
    /// Whether a copy or a sync failed, so that the log is kept until the next start.
    is_kept: Arc<AtomicBool>,
    /// The data file, for syncs.
    ///
    /// It must not be closed while SQLite has the file open in this process, because the system
    /// would drop the locks of all connections. It is the last field, so it is dropped last.
    data_file: Arc<File>,
}

pub(super) struct Connections {
    copying: Connection,
    /// Prevents a restart of the log while it reads.
    reading: Connection,
}

impl Connections {
    fn open(path: &Path) -> rusqlite::Result<Self> {
        let copying = open_writable(path)?;
        keep_log(&copying)?;
        Ok(Self { copying, reading: open_reader(path)? })
    }
}

impl LogCopier {
    pub(super) fn new(path: &Path, data_file: Arc<File>, is_kept: Arc<AtomicBool>) -> Self {
        let (path, retry) = (path.to_owned(), Retry::default());
        Self { path, connections: None, copied: 0, retry, is_failing: false, is_kept, data_file }
    }

    /// Makes a pass: copies what was committed before, as far as readers allow, and syncs it.
    ///
    /// Once the log is kept until the next start, this does nothing.
    pub(super) fn copy(&mut self) -> rusqlite::Result<Pass> {
        let (log, before) = match self.run_pass() {
            Ok(Some(passed)) => passed,
            Ok(None) => return Ok(Pass::default()),
            Err(error) => {
                self.connections = None;
                self.retry.put_off();
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(
                        %error,
                        "the write-ahead log cannot be moved into the data file, and grows; retrying"
                    );
                }
                return Err(error);
            }
        };
        let is_whole = !log.is_blocked && log.left() == 0;
        if !is_whole && log.copied == self.copied {
            // A reader blocks the copy.
            self.retry.put_off();
        } else {
            self.retry = Retry::default();
        }
        self.copied = log.copied;
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("the write-ahead log is moved into the data file again");
        }
        Ok(Pass { kept_up: !log.is_blocked && log.copied >= before.pages, is_whole })
    }

    /// The log after a pass and before it; `None` if the log is kept.
    fn run_pass(&mut self) -> rusqlite::Result<Option<(Progress, Progress)>> {
        if self.is_kept.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let open = match self.connections.take() {
            Some(open) => open,
            None => Connections::open(&self.path)?,
        };
        let Connections { copying, reading } = self.connections.insert(open);
        if !reading.is_autocommit() {
            return Ok(self.keep(&"a pass did not finish"));
        }
        copying.execute_batch(BEGIN_SNAPSHOT)?;
        let before = checkpoint(copying, MEASURE)?;
        if before.left() == 0 {
            return Ok(Some((before, before)));
        }
        // Pages are left to copy, so this read uses the log and not only the data file.
        reading.execute_batch("begin")?;
        reading.execute_batch(BEGIN_SNAPSHOT)?;
        let log = match checkpoint(copying, COPY) {
            Ok(log) => log,
            Err(error) if is_harmless(&error) => return Err(error),
            Err(error) => return Ok(self.keep(&error)),
        };
        if let Err(error) = self.data_file.sync_data() {
            return Ok(self.keep(&error));
        }
        reading.execute_batch("rollback")?;
        Ok(Some((log, before)))
    }

    /// Leaves the read of the log open, so that the log is kept until the process ends.
    fn keep<T>(&self, error: &dyn std::fmt::Display) -> Option<T> {
        self.is_kept.store(true, Ordering::Relaxed);
        tracing::error!(
            %error,
            "the data file was not written or synced: its write-ahead log is kept, and grows, until \
             a restart"
        );
        None
    }
}

/// Whether a pass with this error counted no page as copied, and none of its syncs failed.
fn is_harmless(error: &rusqlite::Error) -> bool {
    let harmless = [
        ErrorCode::DatabaseBusy,
        ErrorCode::DatabaseLocked,
        ErrorCode::DiskFull,
        ErrorCode::OutOfMemory,
    ];
    error.sqlite_error_code().is_some_and(|code| harmless.contains(&code))
}

/// Prevents that closing a connection copies the log and deletes it.
pub(super) fn keep_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(|_| ())
}
