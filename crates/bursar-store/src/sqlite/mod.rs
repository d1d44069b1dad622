//! The embedded store: one SQLite file, one writer thread, a pool of readers.
//!
//! This process is the only one that has the file open, which a lock beside it ensures, so the
//! accounts that decide live in memory ([`view`]) and change only after a commit.

mod audit;
mod backup;
mod checkpoint;
mod clock;
mod columns;
mod control;
mod days;
mod decisions;
mod history;
mod holds;
mod keys;
mod lane;
mod load;
mod protection;
mod read;
mod readers;
mod restore;
mod save;
mod schema;
mod series;
mod snapshots;
mod stock;
mod verify;
mod view;

pub use backup::{BackedUp, CopyError, Existing, Watch};
pub use restore::Restore;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bursar_core::{
    ApiKeyId, ClockState, Counter, Day, IntegrationId, IntegrationKeyId, Month, SignalId, TenantId,
    Timestamp,
};
use checkpoint::{Checkpointer, Lengths, MEASURE, checkpoint, keep_log};
use readers::{Readers, Snapshot};
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use rustix::fs::StatVfsMountFlags;

use crate::audit::chain::{AuditEntry, AuditFilter, AuditKey, AuditPage, ChainPlace};
use crate::audit::check::AuditVerified;
use crate::cache::Cache;
use crate::clock::{Clocks, StoreClock};
use crate::error::{NotWritable, StoreError};
use crate::memory::Caches;
use crate::read::breakdown::{Breakdown, BreakdownFilter, GroupBy, Series, SeriesFilter};
use crate::read::history::Cut;
use crate::read::near_limit::HotAccount;
use crate::read::reading::Reading;
use crate::read::store::{
    CallFilter, DayFilter, DayPage, DecisionFilter, HistoryFilter, HistoryPage, HistoryPart,
    IntegrationFilter, IntegrationUsage, OpenReservation, Page, Paged, Standing, Stock, Store,
};
use crate::rows::protection::{OverrideRow, SignalRow};
use crate::rows::row::{ApiKeyRow, DecisionRow, IntegrationKeyRow, IntegrationRow, TenantRow};
use crate::schema::SchemaStatus;
use crate::verify::recount::Verified;
use crate::write::lane::Lane;
use crate::write::writable::WRITE_PROBE_BYTES;

/// How long a connection waits for another process that has the file.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// How long after another process was in the way a start tries again.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// Why a data file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error("{0} is in use by another bursar process; stop it, or choose another data folder")]
    InUse(PathBuf),
    /// The file cannot be opened, read or made.
    #[error("cannot open {path}: {cause}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Another process reads what an earlier server left in the log.
    #[error(
        "another process reads {0}, so its log cannot be moved into the file: end it (a backup or a \
         check, say), and start again"
    )]
    ReadByAnother(PathBuf),
    /// SQLite does not accept it.
    #[error("cannot use {path} as a database: {cause}")]
    Database {
        /// Which.
        path: PathBuf,
        /// What SQLite said.
        cause: rusqlite::Error,
    },
    /// A newer server has changed the schema in a way that this one does not know.
    #[error("{path} has schema {found}, which needs a newer bursar (this one knows {known})")]
    NewerSchema {
        /// Which.
        path: PathBuf,
        /// The schema of the file.
        found: u32,
        /// The newest schema that this binary knows.
        known: u32,
    },
    /// No server was started on it that keeps a chain.
    #[error("{path} has schema {found}, and schema {needed} is needed: start a server on it once")]
    OlderSchema {
        /// Which.
        path: PathBuf,
        /// The schema of the file.
        found: u32,
        /// The first one that has what is asked for.
        needed: u32,
    },
    /// The keys in the file were hashed with another secret key.
    #[error(
        "{0} belongs to another secret key: start bursar with the BURSAR_SECRET_KEY (or the \
         secret-key file) with which its keys were made"
    )]
    OtherSecretKey(PathBuf),
}

/// Free bytes of the disk below which it is in doubt whether it takes writes: a probe in the log, and
/// once more in the file.
const LOW_DISK_BYTES: u64 = 2 * WRITE_PROBE_BYTES as u64;

/// The embedded store.
#[derive(Clone)]
pub struct SqliteStore {
    path: PathBuf,
    readers: Arc<Readers>,
    view: Arc<view::View>,
    clock: StoreClock,
    reading: Reading,
    is_log_kept: Arc<AtomicBool>,
}

impl SqliteStore {
    /// Opens a data file, makes it when it is not there, and brings its schema up to date.
    ///
    /// What an earlier process left in the log is moved into the file and synced first, so that
    /// nothing is answered from pages that only the system's cache remembers.
    ///
    /// # Errors
    /// [`OpenError`], in words for the operator.
    pub fn open(
        path: &Path,
        clocks: impl Into<Clocks>,
        secret_fingerprint: &str,
        audit_key: AuditKey,
    ) -> Result<(Arc<Self>, Box<dyn Lane>), OpenError> {
        create_private(path)?;
        let lock = lock_beside(path)?;
        let database = |cause| OpenError::Database { path: path.to_owned(), cause };
        let mut writer = open_emptied(path)?;
        schema::migrate(&mut writer, path)?;
        schema::check_secret(&writer, path, secret_fingerprint)?;
        sync_folder(path)?;
        let found = clock::read(&writer).map_err(database)?;
        let clock = StoreClock::here(clocks.into(), found.mark, found.floor);
        let view = Arc::new(view::View::default());
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
        let lane = lane::SqliteLane::new(
            writer,
            path.to_owned(),
            (lock, Arc::clone(&data_file)),
            checkpointer,
            Arc::clone(&view),
            (clock.clone(), found),
            audit_key,
        );
        let path = path.to_owned();
        let store = Self { path, readers, view, clock, reading: Reading::default(), is_log_kept };
        Ok((Arc::new(store), Box::new(lane)))
    }

    /// Sets how long a read of a tenant may run, and wait for its turn; 10 seconds if not set.
    pub fn limit_reads(&self, time_max: Duration) {
        self.readers.limit(time_max);
    }

    /// A data file, and the files that stand beside it while a server has it open.
    pub fn files(path: &Path) -> Vec<PathBuf> {
        ["", "-wal", "-shm", ".lock"].into_iter().map(|ending| beside(path, ending)).collect()
    }

    /// Whether a server, or another process that writes, has a data file open.
    ///
    /// # Errors
    /// [`OpenError`] when that cannot be told.
    pub fn is_in_use(path: &Path) -> Result<bool, OpenError> {
        match lock_beside(path) {
            Ok(_free) => Ok(false),
            Err(OpenError::InUse(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// What the schema of a data file is, beside a server that may be running on it; of one that is
    /// not there nothing is found.
    ///
    /// # Errors
    /// [`OpenError`] when it is there and cannot be read.
    pub fn schema_status(path: &Path) -> Result<SchemaStatus, OpenError> {
        let database = |cause| OpenError::Database { path: path.to_owned(), cause };
        let connection = match path.try_exists() {
            Ok(true) => open_reader(path).map_err(database)?,
            Ok(false) => Connection::open_in_memory().map_err(database)?,
            Err(cause) => return Err(OpenError::File { path: path.to_owned(), cause }),
        };
        schema::status(&connection, path)
    }

    /// Counts a data file a second time, beside a server that may be running on it.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be opened, [`StoreError`] when it cannot be read.
    pub fn verify(path: &Path) -> Result<Result<Verified, StoreError>, OpenError> {
        let database = |cause| OpenError::Database { path: path.to_owned(), cause };
        let reader = open_reader(path).map_err(database)?;
        Ok(verify::verify(&reader))
    }

    /// Checks the audit log of every tenant, or of one, beside a server that may be running on the
    /// file. Rows of no chain are differences unless they are from before `unchained_before`.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be opened, has no chain yet or belongs to another secret key;
    /// [`StoreError`] when it cannot be read.
    pub fn verify_audit(
        path: &Path,
        secret_fingerprint: &str,
        audit_key: &AuditKey,
        only: Option<TenantId>,
        unchained_before: Option<Timestamp>,
    ) -> Result<Result<AuditVerified, StoreError>, OpenError> {
        let database = |cause| OpenError::Database { path: path.to_owned(), cause };
        let reader = open_reader(path).map_err(database)?;
        schema::check_audited(&reader, path, secret_fingerprint)?;
        Ok(audit::verify(&reader, audit_key, only, unchained_before))
    }
}

impl SqliteStore {
    /// Asks for a list or a sum of a tenant.
    async fn read<T: Send + 'static>(
        &self,
        tenant_id: TenantId,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.readers.read(&self.reading, tenant_id, question).await
    }
}

/// Holds the file's lock, which the system takes back when the process ends, however it ends.
fn lock_beside(path: &Path) -> Result<File, OpenError> {
    let whole = |cause| OpenError::File { path: path.to_owned(), cause };
    // Whichever way leads to the file: its lock stands beside the file itself.
    lock_of(path, &path.canonicalize().map_err(whole)?)
}

/// Holds the lock of a file that need not be there, whose path has no links in it.
fn lock_of(path: &Path, canonical: &Path) -> Result<File, OpenError> {
    let lock_path = beside(canonical, ".lock");
    let file = |cause| OpenError::File { path: lock_path.clone(), cause };
    // Whoever can open it could hold it, and keep the server from starting.
    let lock = open_private(&lock_path).map_err(file)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(cause)) => Err(file(cause)),
    }
}

/// A path with something added to its name.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Makes the file, for its owner only; SQLite gives its log the same mode.
fn create_private(path: &Path) -> Result<(), OpenError> {
    let made = open_private(path);
    made.map(|_| ()).map_err(|cause| OpenError::File { path: path.to_owned(), cause })
}

/// Opens a file, and makes it for its owner only when it is not there.
fn open_private(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// Makes the names of new files as durable as what is in them.
fn sync_folder(path: &Path) -> Result<(), OpenError> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|cause| OpenError::File { path: folder.to_owned(), cause })
}

/// Opens the writing connection.
fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open_writable(path)?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    connection.pragma_update(None, "cache_size", -Caches::fitting().writer_kib)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "journal_size_limit", Lengths::fitting().kept_bytes())?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Opens the writing connection after all of the log was moved into the file.
///
/// What an earlier server copied may not be on the disk, so all is copied again. SQLite does that by
/// itself unless another process has the file open: then it goes on after what counts as copied.
fn open_emptied(path: &Path) -> Result<Connection, OpenError> {
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

/// Moves the log into the file and cuts it, unless readers or other processes are in the way. Whether
/// it did.
fn empty_log(writer: &Connection) -> rusqlite::Result<bool> {
    checkpoint(writer, "pragma wal_checkpoint(truncate)").map(|log| !log.is_blocked)
}

/// Opens a connection that keeps a log, and copies it into the file only when it is told to.
fn open_writable(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        let message = format!("the file system does not allow a write-ahead log ({mode})");
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
    Ok(connection)
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "cache_size", -Caches::fitting().reader_kib)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// What an error of SQLite means for the caller.
fn store_error(error: rusqlite::Error) -> StoreError {
    let Some(code) = error.sqlite_error_code() else {
        return StoreError::Statement(Arc::new(error));
    };
    let unique = [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_CONSTRAINT_PRIMARYKEY];
    if error.sqlite_error().is_some_and(|error| unique.contains(&error.extended_code)) {
        return StoreError::Exists(Arc::new(error));
    }
    if code == ErrorCode::OperationInterrupted {
        // Only questions are interrupted: by their time, or when nobody waits for the answer.
        return StoreError::ReadTooLarge;
    }
    if is_overflow(&error) {
        return StoreError::TotalsOverflow("a stored sum".to_owned());
    }
    if let Some(reason) = not_writable(code, &error) {
        return StoreError::NotWritable { reason, cause: Arc::new(error) };
    }
    // Whatever else SQLite says is about the file, the disk or the memory, not the command.
    let of_command = matches!(
        code,
        ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::TooBig
            | ErrorCode::ParameterOutOfRange
    );
    if of_command {
        StoreError::Statement(Arc::new(error))
    } else {
        StoreError::Unavailable(Arc::new(error))
    }
}

/// Whether a sum of an aggregate left 64 bits.
fn is_overflow(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(_, said) = error else { return false };
    said.as_deref() == Some("integer overflow")
}

/// What an error means of a statement that adds to a figure: a sum that leaves 64 bits becomes a number
/// with a point, which the column refuses. Of any other statement that is a fault in the server.
fn sum_error(error: rusqlite::Error, figure: &'static str) -> StoreError {
    let code = error.sqlite_error().map(|error| error.extended_code);
    if code == Some(ffi::SQLITE_CONSTRAINT_DATATYPE) {
        return StoreError::TotalsOverflow(figure.to_owned());
    }
    store_error(error)
}

/// The ways in which a disk fails to write. One that fails to read may take writes all the same.
const OF_WRITES: [i32; 8] = [
    ffi::SQLITE_IOERR_WRITE,
    ffi::SQLITE_IOERR_FSYNC,
    ffi::SQLITE_IOERR_DIR_FSYNC,
    ffi::SQLITE_IOERR_TRUNCATE,
    ffi::SQLITE_IOERR_SHMOPEN,
    ffi::SQLITE_IOERR_SHMSIZE,
    ffi::SQLITE_IOERR_SHMLOCK,
    ffi::SQLITE_IOERR_SHMMAP,
];

/// Why the next write will fail as well, if it will.
fn not_writable(code: ErrorCode, error: &rusqlite::Error) -> Option<NotWritable> {
    if code == ErrorCode::DiskFull {
        return Some(NotWritable::DiskFull);
    }
    if code == ErrorCode::ReadOnly {
        return Some(NotWritable::ReadOnly);
    }
    let is_of_write = error.sqlite_error().is_some_and(|of| OF_WRITES.contains(&of.extended_code));
    is_of_write.then_some(NotWritable::DiskFailing)
}

#[async_trait]
impl Store for SqliteStore {
    fn clock(&self) -> ClockState {
        self.clock.state()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.readers.probe(|db| read::ping(db)).await
    }

    fn doubts_writes(&self) -> bool {
        // A file system that cannot say is asked by the next write.
        rustix::fs::statvfs(&self.path).is_ok_and(|disk| {
            let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
            free_bytes < LOW_DISK_BYTES || disk.f_flag.contains(StatVfsMountFlags::RDONLY)
        })
    }

    fn reading(&self, reading: Reading) -> Arc<dyn Store> {
        Arc::new(Self { reading, ..self.clone() })
    }

    async fn standing(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<Option<Standing>, StoreError> {
        let now = self.now();
        if let Some(standing) = self.view.standing(tenant_id, integration_id, now)? {
            return Ok(Some(standing));
        }
        let stored = move |db: &Snapshot<'_>| load::standing(db, tenant_id, integration_id, now);
        let standing = self.readers.look_up(stored).await?;
        if standing.is_some() {
            // The next sweep brings it into memory; this question need not wait for it.
            self.view.miss(tenant_id, integration_id);
        }
        Ok(standing)
    }

    async fn counter(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
        month: Month,
    ) -> Result<Counter, StoreError> {
        let (now, of) = (self.now(), (integration_id, month));
        self.readers.look_up(move |db| load::open_counter(db, tenant_id, of, now)).await
    }

    async fn open_reservations(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        page: Page,
    ) -> Result<Paged<OpenReservation>, StoreError> {
        let now = self.now();
        self.read(tenant_id, move |db| {
            read::open_reservations(db, tenant_id, integration_id, now, page)
        })
        .await
    }

    async fn tenant(&self, tenant_id: TenantId) -> Result<Option<TenantRow>, StoreError> {
        self.readers.look_up(move |db| control::tenant(db, tenant_id)).await
    }

    async fn tenants(&self, page: Page) -> Result<Paged<TenantRow>, StoreError> {
        self.readers.read_all(move |db| read::tenants(db, page)).await
    }

    async fn api_key(
        &self,
        tenant_id: TenantId,
        api_key_id: ApiKeyId,
    ) -> Result<Option<ApiKeyRow>, StoreError> {
        self.readers.look_up(move |db| control::api_key(db, tenant_id, api_key_id)).await
    }

    async fn api_keys(
        &self,
        tenant_id: TenantId,
        page: Page,
    ) -> Result<Paged<ApiKeyRow>, StoreError> {
        self.read(tenant_id, move |db| read::api_keys(db, tenant_id, page)).await
    }

    async fn integration(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<Option<IntegrationRow>, StoreError> {
        let row = self
            .readers
            .look_up(move |db| control::integration(db, tenant_id, integration_id))
            .await?;
        Ok(row.filter(|row| row.deleted_at.is_none()))
    }

    async fn knows_integration(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<bool, StoreError> {
        self.readers
            .look_up(move |db| Ok(control::integration(db, tenant_id, integration_id)?.is_some()))
            .await
    }

    async fn integrations(
        &self,
        tenant_id: TenantId,
        filter: IntegrationFilter,
        page: Page,
    ) -> Result<Paged<IntegrationRow>, StoreError> {
        self.read(tenant_id, move |db| read::integrations(db, tenant_id, &filter, page)).await
    }

    async fn integration_key(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
        integration_key_id: IntegrationKeyId,
    ) -> Result<Option<IntegrationKeyRow>, StoreError> {
        self.readers
            .look_up(move |db| {
                let owner = control::integration(db, tenant_id, integration_id)?;
                if owner.is_none_or(|owner| owner.deleted_at.is_some()) {
                    return Ok(None);
                }
                control::integration_key(db, tenant_id, integration_id, integration_key_id)
            })
            .await
    }

    async fn integration_keys(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
        page: Page,
    ) -> Result<Paged<IntegrationKeyRow>, StoreError> {
        self.read(tenant_id, move |db| read::integration_keys(db, tenant_id, integration_id, page))
            .await
    }

    async fn usage_by_integration(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
        first: Day,
        last: Day,
    ) -> Result<Vec<IntegrationUsage>, StoreError> {
        self.read(tenant_id, move |db| {
            read::usage_by_integration(db, tenant_id, integration_id, (first, last))
        })
        .await
    }

    async fn usage_by_day(
        &self,
        tenant_id: TenantId,
        filter: DayFilter,
        page: Page,
    ) -> Result<DayPage, StoreError> {
        self.read(tenant_id, move |db| days::usage_by_day(db, tenant_id, filter, page)).await
    }

    async fn recorded_calls(
        &self,
        tenant_id: TenantId,
        integration_id: Option<IntegrationId>,
    ) -> Result<i64, StoreError> {
        self.read(tenant_id, move |db| read::recorded_calls(db, tenant_id, integration_id)).await
    }

    async fn usage_history(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
        part: HistoryPart,
    ) -> Result<HistoryPage, StoreError> {
        self.read(tenant_id, move |db| history::usage_history(db, tenant_id, &filter, part.into()))
            .await
    }

    async fn export_page(
        &self,
        tenant_id: TenantId,
        filter: HistoryFilter,
    ) -> Result<HistoryPage, StoreError> {
        self.read(tenant_id, move |db| history::usage_history(db, tenant_id, &filter, Cut::EXPORT))
            .await
    }

    async fn counted_calls(
        &self,
        tenant_id: TenantId,
        filter: CallFilter,
    ) -> Result<Option<i64>, StoreError> {
        self.read(tenant_id, move |db| series::counted_calls(db, tenant_id, &filter)).await
    }

    async fn usage_breakdown(
        &self,
        tenant_id: TenantId,
        filter: BreakdownFilter,
    ) -> Result<Option<Breakdown>, StoreError> {
        let question = move |db: &Snapshot<'_>| series::usage_breakdown(db, tenant_id, filter);
        if filter.by == GroupBy::Session {
            self.readers.read_much(&self.reading, tenant_id, question).await
        } else {
            self.read(tenant_id, question).await
        }
    }

    async fn usage_series(
        &self,
        tenant_id: TenantId,
        filter: SeriesFilter,
    ) -> Result<Series, StoreError> {
        self.read(tenant_id, move |db| series::usage_series(db, tenant_id, filter)).await
    }

    async fn decisions(
        &self,
        tenant_id: TenantId,
        filter: DecisionFilter,
        limit: u32,
    ) -> Result<Vec<DecisionRow>, StoreError> {
        self.read(tenant_id, move |db| decisions::list(db, tenant_id, &filter, limit)).await
    }

    async fn audit(
        &self,
        tenant_id: TenantId,
        filter: AuditFilter,
        limit: u32,
    ) -> Result<AuditPage, StoreError> {
        self.read(tenant_id, move |db| audit::list(db, tenant_id, &filter, limit)).await
    }

    async fn audit_chain(
        &self,
        tenant_id: TenantId,
        after: Option<ChainPlace>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(tenant_id, move |db| audit::chain(db, tenant_id, after, limit)).await
    }

    async fn signals(
        &self,
        tenant_id: TenantId,
        before: Option<SignalId>,
        limit: u32,
    ) -> Result<Vec<SignalRow>, StoreError> {
        self.read(tenant_id, move |db| protection::signals(db, tenant_id, before, limit)).await
    }

    async fn protection_overrides(
        &self,
        tenant_id: TenantId,
    ) -> Result<Vec<OverrideRow>, StoreError> {
        let now = self.now();
        self.readers.look_up(move |db| protection::overrides(db, tenant_id, now)).await
    }

    async fn cost_of_day(&self, tenant_id: TenantId, day: Day) -> Result<i128, StoreError> {
        self.readers.look_up(move |db| protection::cost_of_day(db, tenant_id, day)).await
    }

    fn caches(&self) -> Vec<&dyn Cache> {
        vec![self.view.as_ref()]
    }

    async fn hottest(&self, limit: usize) -> Result<Vec<HotAccount>, StoreError> {
        let now = self.now();
        self.readers.read_all(move |db| stock::hottest(db, now, limit)).await
    }

    async fn stock(&self) -> Result<Stock, StoreError> {
        let (path, now) = (self.path.clone(), self.now());
        let stock = self.readers.read_all(move |db| stock::stock(db, &path, now)).await?;
        let is_log_kept = self.is_log_kept.load(Ordering::Relaxed);
        Ok(Stock { is_log_kept, ..stock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(code: i32) -> Option<NotWritable> {
        let error = store_error(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        if let StoreError::NotWritable { reason, .. } = error {
            return Some(reason);
        }
        assert!(matches!(error, StoreError::Unavailable(_)), "{code}: {error:?}");
        None
    }

    #[test]
    fn a_disk_that_fails_to_write_is_in_doubt_and_one_that_fails_to_read_is_not() {
        for code in OF_WRITES {
            assert_eq!(reason(code), Some(NotWritable::DiskFailing), "{code}");
        }
        assert_eq!(reason(ffi::SQLITE_FULL), Some(NotWritable::DiskFull));
        assert_eq!(reason(ffi::SQLITE_READONLY_DBMOVED), Some(NotWritable::ReadOnly));
        let of_reads = [
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_IOERR_SHORT_READ,
            ffi::SQLITE_IOERR_FSTAT,
            ffi::SQLITE_IOERR_GETTEMPPATH,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_CORRUPT,
        ];
        for code in of_reads {
            assert_eq!(reason(code), None, "{code}");
        }
    }

    #[test]
    fn a_value_of_a_wrong_type_is_a_sum_that_is_too_large_only_where_something_is_added() {
        let wrong = ffi::Error::new(ffi::SQLITE_CONSTRAINT_DATATYPE);
        let error = || rusqlite::Error::SqliteFailure(wrong, None);
        let added = sum_error(error(), "calls");
        assert!(matches!(&added, StoreError::TotalsOverflow(figure) if figure == "calls"));
        let stored = store_error(error());
        assert!(matches!(stored, StoreError::Statement(_)), "{stored:?}");
    }

    #[test]
    fn a_read_says_nothing_of_writes() {
        let full = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None);
        let read = store_error(full).of_read();
        assert!(matches!(read, StoreError::Unavailable(_)), "{read:?}");
    }
}
