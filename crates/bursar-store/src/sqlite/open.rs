//! Opens a data file for a server, and inspects one without the server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bursar_core::Calendar;
use rusqlite::Connection;

use super::account_cache::AccountCache;
use super::checkpoint::{Checkpointer, Lengths};
use super::connect::open_reader;
use super::error::OpenError;
use super::files::{beside, create_private, lock_beside, open_private, sync_folder};
use super::limit_cache::LimitCache;
use super::readers::Readers;
use super::writer_connection::open_emptied;
use super::writer_state::SqliteWriter;
use super::{clock, schema, verify};
use crate::audit::chain::AuditKey;
use crate::calendar::ZonedCalendar;
use crate::clock::{Clocks, StoreClock};
use crate::cost_guard::CostGuard;
use crate::error::StoreError;
use crate::read::read_context::ReadContext;
use crate::schema::SchemaStatus;
use crate::verify::recount::VerifyReport;
use crate::write::writer_connection::WriterConnection;

/// The store in an SQLite file.
#[derive(Clone)]
pub struct SqliteStore {
    pub(super) path: PathBuf,
    pub(super) readers: Arc<Readers>,
    pub(super) accounts: Arc<AccountCache>,
    pub(super) limits: Arc<LimitCache>,
    pub(super) calendar: Arc<dyn Calendar>,
    pub(super) guard: Arc<CostGuard>,
    pub(super) clock: StoreClock,
    pub(super) context: ReadContext,
    pub(super) is_log_kept: Arc<AtomicBool>,
}

impl SqliteStore {
    /// Opens a data file, creates it if it is missing, and migrates its schema.
    ///
    /// The log of an earlier process is moved into the file and synced first, so that no read
    /// returns pages that exist only in the page cache after a failed sync.
    ///
    /// # Errors
    /// [`OpenError`], whose texts are for the operator.
    pub fn open(
        path: &Path,
        clocks: impl Into<Clocks>,
        secret_fingerprint: &str,
        audit_key: AuditKey,
    ) -> Result<(Arc<Self>, Box<dyn WriterConnection>), OpenError> {
        create_private(path)?;
        let lock = lock_beside(path)?;
        let database = |cause| OpenError::Database { path: path.to_owned(), cause };
        let mut writer = open_emptied(path)?;
        schema::migrate(&mut writer, path)?;
        schema::check_secret(&writer, path, secret_fingerprint)?;
        sync_folder(path)?;
        let found = clock::read(&writer).map_err(database)?;
        let clock = StoreClock::here(clocks.into(), found.mark, found.floor);
        let accounts = Arc::new(AccountCache::default());
        let limits = Arc::new(LimitCache::default());
        let guard = Arc::new(CostGuard::default());
        let data_file = open_private(path);
        let data_file =
            data_file.map_err(|cause| OpenError::File { path: path.to_owned(), cause })?;
        let data_file = Arc::new(data_file);
        let snapshots = Arc::default();
        let readers = Readers::open(path, (Arc::clone(&data_file), &snapshots));
        let readers = Arc::new(readers.map_err(database)?);
        let is_log_kept = Arc::default();
        let checkpointer = Checkpointer::start(
            path,
            (Arc::clone(&data_file), snapshots),
            Arc::clone(&is_log_kept),
            Lengths::fitting(),
        );
        let writer = SqliteWriter::new(
            writer,
            path.to_owned(),
            (lock, Arc::clone(&data_file)),
            checkpointer,
            (Arc::clone(&accounts), Arc::clone(&limits), Arc::clone(&guard)),
            (clock.clone(), found),
            audit_key,
        );
        let path = path.to_owned();
        let context = ReadContext::default();
        let calendar = Arc::new(ZonedCalendar::default());
        let store =
            Self { path, readers, accounts, limits, calendar, guard, clock, context, is_log_kept };
        Ok((Arc::new(store), Box::new(writer)))
    }

    /// Sets the limit on the run time of a tenant's read, and on its wait for a slot; by default 10
    /// seconds.
    pub fn limit_reads(&self, time_max: Duration) {
        self.readers.limit(time_max);
    }

    /// Sets what each tenant may spend on a UTC day, in cents; 0 means unlimited. Call it before the
    /// store is used.
    pub fn guard_cost(&self, cents_per_day: u32) {
        self.guard.set(cents_per_day);
    }

    /// The data file, and the files beside it while a server has it open.
    pub fn files(path: &Path) -> Vec<PathBuf> {
        ["", "-wal", "-shm", ".lock"].into_iter().map(|ending| beside(path, ending)).collect()
    }

    /// Whether a server or another writing process has the data file open.
    ///
    /// # Errors
    /// [`OpenError`] if the lock file cannot be used.
    pub fn is_in_use(path: &Path) -> Result<bool, OpenError> {
        match lock_beside(path) {
            Ok(_free) => Ok(false),
            Err(OpenError::InUse(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The schema version of a data file; a missing file has none. A server may be running on it.
    ///
    /// # Errors
    /// [`OpenError`] if the file exists and cannot be read.
    pub fn schema_status(path: &Path) -> Result<SchemaStatus, OpenError> {
        let database = |cause| OpenError::Database { path: path.to_owned(), cause };
        let connection = match path.try_exists() {
            Ok(true) => open_reader(path).map_err(database)?,
            Ok(false) => Connection::open_in_memory().map_err(database)?,
            Err(cause) => return Err(OpenError::File { path: path.to_owned(), cause }),
        };
        schema::status(&connection, path)
    }

    /// Recomputes the sums of a data file and compares them. A server may be running on it.
    ///
    /// # Errors
    /// [`OpenError`] if the file cannot be opened, [`StoreError`] if it cannot be read.
    pub fn verify(path: &Path) -> Result<Result<VerifyReport, StoreError>, OpenError> {
        let database = |cause| OpenError::Database { path: path.to_owned(), cause };
        let reader = open_reader(path).map_err(database)?;
        Ok(verify::verify(&reader))
    }
}
