//! The ledger: the interface of the write path.
//!
//! A handler submits a command and waits. A writer thread takes all waiting commands as a group,
//! loads a book, applies the commands, saves, commits, and then replies to the handlers. There is
//! no timer: while one group commits, the next one collects. A database that can run several
//! transactions at once has several writers, each of which writes for one tenant at a time.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;

use bursar_core::{
    CallId, Caps, ExtendOutcome, IntegrationId, RecordMode, RecordOutcome, ReleaseOutcome,
    ReserveOutcome, ReserveRequest, TenantId, Usage,
};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::clock::ClockConfirmed;
use crate::error::StoreError;
use crate::read::accounts::AccountSnapshot;
use crate::write::job::{
    Change, CostedOutcome, Job, Reply, SMALL, SweepOutcome, Work, unknown_outcome,
};
use crate::write::observe::Observer;
use crate::write::queue::{Queue, Waiting};
use crate::write::turns::Rank;
use crate::write::writable::Writable;
use crate::write::writer::{Shared, write_groups};
use crate::write::writer_connection::{ControlTx, WriterConnection};

/// The only way to write.
///
/// An outcome means that the command's group is on stable storage. Dropping a waiting future does
/// not cancel its command.
#[derive(Clone)]
pub struct Ledger {
    queue: Arc<Queue<Job>>,
    writers: Arc<Mutex<Vec<JoinHandle<()>>>>,
    ended: watch::Receiver<bool>,
    writable: Arc<Writable>,
}

impl Ledger {
    /// Starts a writer thread for each connection.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(
        connections: Vec<Box<dyn WriterConnection>>,
        observer: Arc<dyn Observer>,
        caps: Caps,
    ) -> std::io::Result<Self> {
        let (ended_sender, ended) = watch::channel(false);
        let queue = Arc::new(Queue::new());
        let writable = Arc::new(Writable::default());
        let shared = Arc::new(Shared {
            queue: Arc::clone(&queue),
            observer,
            caps,
            writable: Arc::clone(&writable),
            writing: AtomicUsize::new(connections.len()),
            ended_sender,
        });
        let mut writers = Vec::with_capacity(connections.len());
        for connection in connections {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("bursar-writer".to_owned());
            // If this thread cannot start, closing the queue ends the ones before it.
            let started = thread.spawn(move || write_groups(&shared, connection));
            writers.push(started.inspect_err(|_| queue.close())?);
        }
        Ok(Self { queue, writers: Arc::new(Mutex::new(writers)), ended, writable })
    }

    /// Records calls of a tenant, and returns their outcomes in order.
    ///
    /// Each record is decided on its own: a refused one does not affect the others.
    ///
    /// # Errors
    /// [`StoreError`] if the records are not acknowledged. After [`StoreError::Unavailable`] they
    /// may be stored. Repeating them is safe.
    pub async fn record(
        &self,
        tenant_id: TenantId,
        records: Vec<Usage>,
    ) -> Result<Vec<RecordOutcome>, StoreError> {
        let outcomes = self.record_as(RecordMode::Any, tenant_id, records).await?;
        Ok(outcomes.into_iter().map(|costed| costed.outcome).collect())
    }

    /// Like [`Ledger::record`], for the calls that `mode` accepts, and with the sources of costs.
    ///
    /// With [`RecordMode::KnownOnly`] most records are refused, so they wait behind everything else
    /// and get a limited share of the queue.
    ///
    /// # Errors
    /// As for [`Ledger::record`].
    pub async fn record_as(
        &self,
        mode: RecordMode,
        tenant_id: TenantId,
        records: Vec<Usage>,
    ) -> Result<Vec<CostedOutcome>, StoreError> {
        self.submit(Some(tenant_id), |reply| Work::Record { mode, records, reply }).await
    }

    /// Whether the queue has room for a batch of which only the text is known.
    ///
    /// The server checks this before it parses the batch, so that a refusal is cheap.
    pub fn has_room(&self, tenant_id: TenantId, text_bytes: usize, records_max: usize) -> bool {
        self.has_room_as(RecordMode::Any, tenant_id, (text_bytes, records_max))
    }

    /// Like [`Ledger::has_room`], for [`Ledger::record_as`].
    pub fn has_room_as(
        &self,
        mode: RecordMode,
        tenant_id: TenantId,
        (text_bytes, records_max): (usize, usize),
    ) -> bool {
        // A record without long texts takes about twice the bytes of its JSON.
        let bytes = text_bytes + text_bytes.min(records_max.saturating_mul(SMALL));
        let rank = match mode {
            RecordMode::Any => Rank::Bulk,
            RecordMode::KnownOnly => Rank::Throttled,
        };
        self.queue.has_room(tenant_id, rank, bytes)
    }

    /// Makes a reservation, if the limits admit it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reserve(
        &self,
        tenant_id: TenantId,
        request: ReserveRequest,
    ) -> Result<ReserveOutcome, StoreError> {
        Ok(self.reserve_with_snapshot(tenant_id, request).await?.0)
    }

    /// Like [`Ledger::reserve`], and returns the account after the decision.
    ///
    /// The snapshot saves a second read for the response headers. It is `None` if the integration
    /// does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reserve_with_snapshot(
        &self,
        tenant_id: TenantId,
        request: ReserveRequest,
    ) -> Result<(ReserveOutcome, Option<AccountSnapshot>), StoreError> {
        self.submit(Some(tenant_id), |reply| Work::Reserve { request, reply }).await
    }

    /// Releases a reservation; `only` restricts the caller to one integration's reservations.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn release(
        &self,
        tenant_id: TenantId,
        call_id: CallId,
        only: Option<IntegrationId>,
    ) -> Result<ReleaseOutcome, StoreError> {
        self.submit(Some(tenant_id), |reply| Work::Release { call_id, only, reply }).await
    }

    /// Extends a reservation; `only` restricts the caller to one integration's reservations.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn extend(
        &self,
        tenant_id: TenantId,
        call_id: CallId,
        only: Option<IntegrationId>,
        ttl_seconds: Option<u32>,
    ) -> Result<ExtendOutcome, StoreError> {
        self.submit(Some(tenant_id), |reply| Work::Extend { call_id, only, ttl_seconds, reply })
            .await
    }

    /// Loads an integration's account into the cache of the readers, if it exists.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load_account(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<(), StoreError> {
        self.submit(Some(tenant_id), |reply| Work::LoadAccount { integration_id, reply }).await
    }

    /// Ends due reservations, a limited number at once, so that other commands are not delayed.
    ///
    /// Decisions do not depend on it: a hold counts nowhere from its expiry on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sweep(&self) -> Result<SweepOutcome, StoreError> {
        self.submit(None, |reply| Work::Sweep { reply }).await
    }

    /// Adopts the wall clock's time, forward or back, because an operator confirmed it.
    ///
    /// This also works while the clock is in doubt.
    ///
    /// # Errors
    /// [`StoreError`]; nothing changed then.
    pub async fn confirm_clock(&self) -> Result<ClockConfirmed, StoreError> {
        self.submit(None, |reply| Work::ConfirmClock { reply }).await
    }

    /// Checks whether the last writes succeeded, without a new write.
    ///
    /// # Errors
    /// [`StoreError::NotWritable`], until a [probe](Self::probe_writes) succeeds.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        self.writable.check()
    }

    /// Writes filler to learn whether the database accepts writes.
    ///
    /// Each probe replaces the one before, so the data does not grow.
    ///
    /// # Errors
    /// The [`StoreError`] of the write.
    pub async fn probe_writes(&self) -> Result<(), StoreError> {
        self.submit(None, |reply| Work::Probe { reply }).await
    }

    /// Runs a change of the control plane in its own transaction.
    ///
    /// `tenant_id` is `None` if no tenant exists yet, as in the creation of one. The change may run
    /// several times after failed attempts, so it must not keep state between runs. If it returns
    /// an error, nothing is stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn change<T, F>(
        &self,
        tenant_id: impl Into<Option<TenantId>>,
        change: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut dyn ControlTx) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let change = Box::new(Change::new(change, reply));
        self.push(tenant_id.into(), Work::Control(change))?;
        result.await.unwrap_or_else(|_| Err(unknown_outcome()))
    }

    /// The contents of the queue. The call is cheap, and never waits for the writer.
    pub fn waiting(&self) -> Waiting {
        self.queue.waiting()
    }

    /// Whether all writers have ended, after [`Ledger::close`] or because of a fault.
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Waits until all writers have ended. Nothing is written after that.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that the sender is gone, so the writers have ended too.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Refuses new commands, and waits until all accepted ones are done.
    pub async fn close(&self) {
        self.queue.close();
        let writers = std::mem::take(&mut *self.writers.lock());
        for writer in writers {
            // The jobs of a writer that panicked got their errors, so its result is not needed.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }

    async fn submit<T>(
        &self,
        tenant_id: Option<TenantId>,
        work: impl FnOnce(Reply<T>) -> Work,
    ) -> Result<T, StoreError> {
        let (reply, result) = oneshot::channel();
        self.push(tenant_id, work(reply))?;
        result.await.unwrap_or_else(|_| Err(unknown_outcome()))
    }

    fn push(&self, tenant_id: Option<TenantId>, work: Work) -> Result<(), StoreError> {
        let job = Job::new(tenant_id, work);
        self.queue.push(job).map_err(|(_, error)| error)
    }
}
