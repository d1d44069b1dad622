//! The pools of read connections.
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
/// Connections for single-row reads, such as the check of an API key: long lists must not delay
/// them.
const POINTS: usize = 2;
/// Connections for reads of very many rows, so that other reads do not wait for them.
const LARGE: usize = 1;
/// Connections for the operator and the metrics, which no tenant can use up.
const OPERATOR: usize = 2;

/// The default time limit of a tenant's read.
const TIME_MAX: Duration = Duration::from_secs(10);
/// The time limit of a read over all tenants.
const OPERATOR_TIME_MAX: Duration = Duration::from_secs(60);
/// Steps of SQLite's virtual machine between two checks of the time limit: about 0.1 ms.
const STEPS: i32 = 4_000;

/// The read connections of a file.
pub(super) struct Readers {
    lists: Pool,
    list_slots: ReadSlots,
    points: Pool,
    large: Pool,
    large_slots: ReadSlots,
    operator: Pool,
    /// The connection of the database probe.
    probe: Pool,
    time_max_ms: AtomicU64,
    /// Closed after the last connection; see [`super::checkpoint`].
    _data_file: Arc<File>,
}

/// The right to use a connection of a pool, held until the read ends.
enum ReadPermit {
    Slot(#[expect(dead_code, reason = "held until it is dropped")] ReadSlot),
    Semaphore(#[expect(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit),
}

impl Readers {
    pub(super) fn open(
        path: &Path,
        (data_file, snapshots): (Arc<File>, &Arc<Snapshots>),
    ) -> rusqlite::Result<Self> {
        let time_max_ms = AtomicU64::new(millis(TIME_MAX));
        let counted = || Some(Arc::clone(snapshots));
        Ok(Self {
            lists: Pool::open(path, LISTS, counted())?,
            list_slots: ReadSlots::new(LISTS),
            points: Pool::open(path, POINTS, None)?,
            large: Pool::open(path, LARGE, counted())?,
            large_slots: ReadSlots::new(LARGE),
            operator: Pool::open(path, OPERATOR, counted())?,
            probe: Pool::open(path, 1, None)?,
            time_max_ms,
            _data_file: data_file,
        })
    }

    /// Sets the limit on the run time of a read, and on its wait for a slot.
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
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_with_slot((&self.lists, &self.list_slots), context, tenant_id, read).await
    }

    /// Runs a read of a tenant over very many rows.
    pub(super) async fn read_large<T: Send + 'static>(
        &self,
        context: &ReadContext,
        tenant_id: TenantId,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read_with_slot((&self.large, &self.large_slots), context, tenant_id, read).await
    }

    async fn read_with_slot<T: Send + 'static>(
        &self,
        (pool, slots): (&Pool, &ReadSlots),
        context: &ReadContext,
        tenant_id: TenantId,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let time_max = self.time_max();
        let memory = Arc::clone(&context.memory);
        match context.requester {
            Requester::Tenant => {
                let slot = slots.take(tenant_id, time_max).await?;
                pool.run(ReadPermit::Slot(slot), time_max, memory, read).await
            }
            Requester::Operator => {
                let permit = ReadPermit::Semaphore(self.operator.permit().await?);
                self.operator.run(permit, time_max, memory, read).await
            }
        }
    }

    /// Runs a single-row read.
    pub(super) async fn look_up<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let found = self.points.run_small(self.time_max(), read).await;
        found.map_err(StoreError::into_lookup_error)
    }

    /// Runs a read over all tenants.
    pub(super) async fn read_all<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.operator.run_small(OPERATOR_TIME_MAX, read).await
    }

    /// Checks that the file can be read.
    pub(super) async fn probe<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let found = self.probe.run_small(self.time_max(), read).await;
        found.map_err(StoreError::into_lookup_error)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

struct Pool {
    path: PathBuf,
    free: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    /// Counts the running reads, if they may take long.
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

    /// Waits for a connection.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit.map_err(|_| StoreError::Closed)
    }

    /// Runs a read with a small result, once a connection is free.
    async fn run_small<T: Send + 'static>(
        &self,
        time_max: Duration,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = ReadPermit::Semaphore(self.permit().await?);
        self.run(permit, time_max, Arc::new(read_context::UnlimitedReadMemory), read).await
    }

    /// Runs a read on a connection of the pool; the permit ensures that one is free.
    async fn run<T: Send + 'static>(
        &self,
        permit: ReadPermit,
        time_max: Duration,
        memory: Arc<dyn ReadMemory>,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (path, free) = (self.path.clone(), Arc::clone(&self.free));
        let snapshots = self.snapshots.clone();
        let cancel_on_drop = CancelOnDrop::default();
        let is_cancelled = Arc::clone(&cancel_on_drop.0);
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut pooled = PooledConnection::get(free, &path)?;
            let connection = pooled.connection.as_mut().ok_or(StoreError::Closed)?;
            let is_gone = || is_cancelled.load(Ordering::Relaxed);
            let _open = match &snapshots {
                Some(snapshots) => Some(snapshots.open(is_gone).ok_or(StoreError::ReadTooLarge)?),
                None => None,
            };
            // The wait for a slot, or for the end of a pause, does not count.
            let deadline = Instant::now() + time_max;
            let is_over =
                move || is_cancelled.load(Ordering::Relaxed) || Instant::now() >= deadline;
            connection.progress_handler(STEPS, Some(is_over)).map_err(store_error)?;
            // All statements of a read see the same snapshot.
            let snapshot = connection.unchecked_transaction().map_err(store_error)?;
            let result = read(&Snapshot { snapshot, memory: memory.as_ref() });
            connection.progress_handler(0, None::<fn() -> bool>).map_err(store_error)?;
            result
        });
        let joined = task.await;
        drop(cancel_on_drop);
        // The runtime cancels a blocking task only at shutdown, before the task starts.
        let result = joined.unwrap_or_else(|error| {
            Err(if error.is_panic() { StoreError::Panicked } else { StoreError::Closed })
        });
        result.map_err(StoreError::into_read_error)
    }
}

/// Cancels a read when its future is dropped, because the client stopped waiting.
#[derive(Default)]
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The file at one moment, and the memory for the result of a read.
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

/// A connection that returns to its pool on drop.
///
/// After a panic its state is unknown, so it is closed, and a later read opens a new one.
struct PooledConnection {
    connection: Option<Connection>,
    free: Arc<Mutex<Vec<Connection>>>,
}

impl PooledConnection {
    fn get(free: Arc<Mutex<Vec<Connection>>>, path: &Path) -> Result<Self, StoreError> {
        let known = free.lock().pop();
        let connection = known.map_or_else(|| open_reader(path), Ok).map_err(store_error)?;
        Ok(Self { connection: Some(connection), free })
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let reusable = self.connection.take().filter(|_| !std::thread::panicking());
        self.free.lock().extend(reusable);
    }
}
