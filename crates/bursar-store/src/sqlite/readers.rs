//! Reading connections, and how they are shared.
//!
//! A read runs on its own thread, on a snapshot, and never waits for the writer. It ends when its
//! time limit passes or its client stops waiting, which SQLite checks between the steps of a
//! statement.

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bursar_core::TenantId;
use parking_lot::Mutex;
use rusqlite::{Connection, Row, Transaction, types::ValueRef};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connect::open_reader;
use super::error::store_error;
use super::snapshots::Snapshots;
use crate::error::StoreError;
use crate::read::read_context;
use crate::read::read_context::{ReadContext, ReadMemory, Requester};
use crate::read::slots::{ReadSlot, ReadSlots};

/// Connections for lists and sums of tenants, of which one tenant has at most half.
const LISTS: usize = 4;
/// Connections for the one row that a request cannot go on without, so that whoever asks for long
/// lists keeps nobody waiting who is asked for their key.
const POINTS: usize = 2;
/// Connections for reads of very many rows, so that other reads do not wait for them.
const WIDE: usize = 1;
/// Connections for the operator and the metrics, which no tenant can use up.
const OPERATOR: usize = 2;

/// The default time limit of a tenant's read.
const TIME_MAX: Duration = Duration::from_secs(10);
/// The time limit of a read over all tenants.
const OPERATOR_TIME_MAX: Duration = Duration::from_secs(60);
/// Steps of SQLite's machine between two looks at the clock: about a tenth of a millisecond.
const STEPS: i32 = 4_000;

/// The reading connections of a file.
pub(super) struct Readers {
    lists: Pool,
    list_slots: ReadSlots,
    points: Pool,
    wide: Pool,
    wide_slots: ReadSlots,
    operator: Pool,
    /// The connection of the database probe.
    probe: Pool,
    time_max_ms: AtomicU64,
    /// Closed after the last connection; see [`super::checkpoint`].
    _data_file: Arc<File>,
}

/// What a question may take until it is over.
enum Leave {
    /// Of the tenants' readers.
    Slots(#[expect(dead_code, reason = "held until it is dropped")] ReadSlot),
    /// Of the others.
    Permit(#[expect(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit),
}

impl Readers {
    pub(super) fn open(
        path: &Path,
        (data_file, snapshots): (Arc<File>, &Arc<Snapshots>),
    ) -> rusqlite::Result<Self> {
        let time_max_ms = AtomicU64::new(millis(TIME_MAX));
        let long = || Some(Arc::clone(snapshots));
        Ok(Self {
            lists: Pool::open(path, LISTS, long())?,
            list_slots: ReadSlots::new(LISTS),
            points: Pool::open(path, POINTS, None)?,
            wide: Pool::open(path, WIDE, long())?,
            wide_slots: ReadSlots::new(WIDE),
            operator: Pool::open(path, OPERATOR, long())?,
            probe: Pool::open(path, 1, None)?,
            time_max_ms,
            _data_file: data_file,
        })
    }

    /// Sets how long a read may run, and how long it may wait for its turn.
    pub(super) fn limit(&self, time_max: Duration) {
        self.time_max_ms.store(millis(time_max), Ordering::Relaxed);
    }

    fn time_max(&self) -> Duration {
        Duration::from_millis(self.time_max_ms.load(Ordering::Relaxed))
    }

    /// Runs a list or a sum of a tenant.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        context: &ReadContext,
        tenant_id: TenantId,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let of_tenants = (&self.lists, &self.list_slots);
        self.read_by(of_tenants, context, tenant_id, question).await
    }

    /// Runs a read of a tenant over very many rows.
    pub(super) async fn read_much<T: Send + 'static>(
        &self,
        context: &ReadContext,
        tenant_id: TenantId,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_by((&self.wide, &self.wide_slots), context, tenant_id, question).await
    }

    async fn read_by<T: Send + 'static>(
        &self,
        (pool, slots): (&Pool, &ReadSlots),
        context: &ReadContext,
        tenant_id: TenantId,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let time_max = self.time_max();
        let memory = Arc::clone(&context.memory);
        match context.requester {
            Requester::Tenant => {
                let slot = slots.take(tenant_id, time_max).await?;
                pool.ask(Leave::Slots(slot), time_max, memory, question).await
            }
            Requester::Operator => {
                let permit = Leave::Permit(self.operator.permit().await?);
                self.operator.ask(permit, time_max, memory, question).await
            }
        }
    }

    /// Runs a single-row read.
    pub(super) async fn look_up<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let found = self.points.ask_plainly(self.time_max(), question).await;
        found.map_err(StoreError::of_look_up)
    }

    /// Runs a read over all tenants.
    pub(super) async fn read_all<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.operator.ask_plainly(OPERATOR_TIME_MAX, question).await
    }

    /// Checks that the file can be read.
    pub(super) async fn probe<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let found = self.probe.ask_plainly(self.time_max(), question).await;
        found.map_err(StoreError::of_look_up)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

struct Pool {
    path: PathBuf,
    free: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    /// Where its reads are counted, if they may take long.
    snapshots: Option<Arc<Snapshots>>,
}

impl Pool {
    fn open(
        path: &Path,
        count: usize,
        snapshots: Option<Arc<Snapshots>>,
    ) -> rusqlite::Result<Self> {
        let free = (0..count).map(|_| open_reader(path)).collect::<rusqlite::Result<Vec<_>>>()?;
        let permits = Arc::new(Semaphore::new(count));
        let path = path.to_owned();
        Ok(Self { path, free: Arc::new(Mutex::new(free)), permits, snapshots })
    }

    /// Waits for one of the connections.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit.map_err(|_| StoreError::Closed)
    }

    /// Asks for what takes little memory, once a connection is free.
    async fn ask_plainly<T: Send + 'static>(
        &self,
        time_max: Duration,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let leave = Leave::Permit(self.permit().await?);
        self.ask(leave, time_max, Arc::new(read_context::UnlimitedReadMemory), question).await
    }

    /// Asks on a free connection, which whoever has leave finds.
    async fn ask<T: Send + 'static>(
        &self,
        leave: Leave,
        time_max: Duration,
        memory: Arc<dyn ReadMemory>,
        question: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (path, free) = (self.path.clone(), Arc::clone(&self.free));
        let snapshots = self.snapshots.clone();
        let gone = Gone::default();
        let is_gone = Arc::clone(&gone.0);
        let task = tokio::task::spawn_blocking(move || {
            let _leave = leave;
            let mut borrowed = Borrowed::from(free, &path)?;
            let connection = borrowed.connection.as_mut().ok_or(StoreError::Closed)?;
            let is_unasked = || is_gone.load(Ordering::Relaxed);
            let _open = match &snapshots {
                Some(long) => Some(long.open(is_unasked).ok_or(StoreError::ReadTooLarge)?),
                None => None,
            };
            // Its time begins when it may begin.
            let deadline = Instant::now() + time_max;
            let is_over = move || is_gone.load(Ordering::Relaxed) || Instant::now() >= deadline;
            connection.progress_handler(STEPS, Some(is_over)).map_err(store_error)?;
            // Whatever a question reads, it reads of one moment.
            let snapshot = connection.unchecked_transaction().map_err(store_error)?;
            let answer = question(&Snapshot { snapshot, memory: memory.as_ref() });
            connection.progress_handler(0, None::<fn() -> bool>).map_err(store_error)?;
            answer
        });
        let answer = task.await;
        drop(gone);
        // The runtime cancels what never began, and only at its end.
        let answer = answer.unwrap_or_else(|error| {
            Err(if error.is_panic() { StoreError::Panicked } else { StoreError::Closed })
        });
        answer.map_err(StoreError::of_read)
    }
}

/// Tells a question when nobody waits for its answer any more.
#[derive(Default)]
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a question reads: the file at one moment, and the memory for what it finds.
pub(super) struct Snapshot<'a> {
    snapshot: Transaction<'a>,
    memory: &'a dyn ReadMemory,
}

impl Snapshot<'_> {
    pub(super) fn memory(&self) -> &dyn ReadMemory {
        self.memory
    }

    /// Takes memory for a row of a list.
    pub(super) fn take_row(&self, row: &Row<'_>) -> Result<(), StoreError> {
        let texts = (0..row.as_ref().column_count()).map(|at| match row.get_ref(at) {
            Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => bytes.len(),
            Ok(ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_)) | Err(_) => 0,
        });
        read_context::take_row(self.memory, texts.sum())
    }
}

impl Deref for Snapshot<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.snapshot
    }
}

/// A reading connection on loan, which goes back when the question ends. After a panic nobody knows
/// in which state it is: it is closed, and the next question opens another one.
struct Borrowed {
    connection: Option<Connection>,
    free: Arc<Mutex<Vec<Connection>>>,
}

impl Borrowed {
    /// There are as many connections as questions that may be asked at once, but for those that
    /// were closed.
    fn from(free: Arc<Mutex<Vec<Connection>>>, path: &Path) -> Result<Self, StoreError> {
        let known = free.lock().pop();
        let connection = known.map_or_else(|| open_reader(path), Ok).map_err(store_error)?;
        Ok(Self { connection: Some(connection), free })
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let sound = self.connection.take().filter(|_| !std::thread::panicking());
        self.free.lock().extend(sound);
    }
}
