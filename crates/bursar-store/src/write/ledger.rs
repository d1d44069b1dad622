//! The write path: commands in, one transaction a group, outcomes out.
//!
//! A handler submits and waits. A writer thread takes all that waits, loads what it touches into a
//! book, lets the core decide command after command, saves, commits, and then answers everyone.
//! There is no timer: while one group commits, the next collects. A database that takes several
//! transactions at once has several writers, each at the commands of one tenant at a time.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Instant;

use bursar_core::{
    CallId, Caps, ExtendOutcome, IntegrationId, RecordMode, RecordOutcome, ReleaseOutcome,
    ReserveOutcome, ReserveRequest, TenantId, Usage,
};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::clock::ClockConfirmed;
use crate::error::StoreError;
use crate::read::store::AccountSnapshot;
use crate::write::job::{Answer, Change, Job, SMALL, Swept, Work, unknown_outcome};
use crate::write::observe::Observer;
use crate::write::queue::{Queue, Rank, Waiting};
use crate::write::writable::Writable;
use crate::write::writer::{Shared, write_groups};
use crate::write::writer_connection::{ControlTx, WriterConnection};

/// The one way to write.
///
/// An answer is given only after its group is on stable storage. Dropping a future that waits does
/// not take its command back.
#[derive(Clone)]
pub struct Ledger {
    queue: Arc<Queue<Job>>,
    writers: Arc<Mutex<Vec<JoinHandle<()>>>>,
    ended: watch::Receiver<bool>,
    writable: Arc<Writable>,
}

impl Ledger {
    /// Starts a writer thread over each connection, watched by an observer; what callers leave behind is
    /// bounded by `caps`.
    ///
    /// # Errors
    /// When a thread cannot be started.
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
            // Those that were started end when the queue is closed.
            let started = thread.spawn(move || write_groups(&shared, connection));
            writers.push(started.inspect_err(|_| queue.close())?);
        }
        Ok(Self { queue, writers: Arc::new(Mutex::new(writers)), ended, writable })
    }

    /// Records calls of a tenant, each for itself, in one transaction; outcomes in order.
    ///
    /// # Errors
    /// [`StoreError`]: then none of the records was acknowledged. An error of
    /// [`StoreError::Unavailable`] leaves open whether they are stored; repeating them is safe.
    pub async fn record(
        &self,
        tenant_id: TenantId,
        records: Vec<Usage>,
    ) -> Result<Vec<RecordOutcome>, StoreError> {
        self.record_as(RecordMode::Any, tenant_id, records).await
    }

    /// The same, of the calls that the mode takes. Where only known calls are taken, most records
    /// are refused: they wait behind everything else and take a bounded share of the queue.
    ///
    /// # Errors
    /// As for [`Ledger::record`].
    pub async fn record_as(
        &self,
        mode: RecordMode,
        tenant_id: TenantId,
        records: Vec<Usage>,
    ) -> Result<Vec<RecordOutcome>, StoreError> {
        self.ask(tenant_id, |answer| Work::Record { mode, records, answer }).await
    }

    /// Whether [`Ledger::record`] would have room now for a batch of which only the text is there,
    /// so that a refusal need not cost the work that it refuses.
    pub fn has_room(&self, tenant_id: TenantId, text_bytes: usize, records_max: usize) -> bool {
        self.has_room_as(RecordMode::Any, tenant_id, (text_bytes, records_max))
    }

    /// The same of [`Ledger::record_as`].
    pub fn has_room_as(
        &self,
        mode: RecordMode,
        tenant_id: TenantId,
        (text_bytes, records_max): (usize, usize),
    ) -> bool {
        // Without long texts a record takes about twice what its text does.
        let bytes = text_bytes + text_bytes.min(records_max.saturating_mul(SMALL));
        let rank = match mode {
            RecordMode::Any => Rank::Bulk,
            RecordMode::KnownOnly => Rank::Throttled,
        };
        self.queue.has_room(tenant_id, rank, bytes)
    }

    /// Reserves, if the limits admit it.
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

    /// The same, with the account as it stood after the decision: what it was decided by is not
    /// asked for again. Nothing of an integration that there is not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reserve_with_snapshot(
        &self,
        tenant_id: TenantId,
        request: ReserveRequest,
    ) -> Result<(ReserveOutcome, Option<AccountSnapshot>), StoreError> {
        self.ask(tenant_id, |answer| Work::Reserve { request, answer }).await
    }

    /// Releases a reservation; `only` restricts to those of one integration.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn release(
        &self,
        tenant_id: TenantId,
        call_id: CallId,
        only: Option<IntegrationId>,
    ) -> Result<ReleaseOutcome, StoreError> {
        self.ask(tenant_id, |answer| Work::Release { call_id, only, answer }).await
    }

    /// Renews a reservation; `only` restricts to those of one integration.
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
        self.ask(tenant_id, |answer| Work::Extend { call_id, only, ttl_seconds, answer }).await
    }

    /// Loads an integration's account into what readers see, if it exists.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load_account(
        &self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<(), StoreError> {
        self.ask(tenant_id, |answer| Work::LoadAccount { integration_id, answer }).await
    }

    /// Ends reservations whose time is over, about a thousand at once, so that what others ask for
    /// is written in between.
    ///
    /// Decisions do not depend on it: from its expiry on a hold counts nowhere.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sweep(&self) -> Result<Swept, StoreError> {
        self.wait(None, |answer| Work::Sweep { answer }).await
    }

    /// Takes the wall clock for right, forward or back, because an operator says so; also while
    /// writes are refused because of it.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub async fn confirm_clock(&self) -> Result<ClockConfirmed, StoreError> {
        self.wait(None, |answer| Work::ConfirmClock { answer }).await
    }

    /// Whether the database took the last writes, by what the writers saw; asks nobody.
    ///
    /// # Errors
    /// [`StoreError::NotWritable`], until a [probe](Self::probe_writes) succeeds.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        self.writable.check()
    }

    /// Writes something that means nothing, to learn whether the database takes writes. It rewrites
    /// the same few pages, so the data does not grow by it.
    ///
    /// # Errors
    /// [`StoreError`] of the write.
    pub async fn probe_writes(&self) -> Result<(), StoreError> {
        self.wait(None, |answer| Work::Probe { answer }).await
    }

    /// Runs a change of the control plane in a transaction of its own; of a tenant, or of none, as
    /// when a tenant is made.
    ///
    /// The change may run again after a failure that left nothing behind, so it must not carry
    /// anything over from one run to the next. If it answers an error, nothing is stored.
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
        let (answer, answered) = oneshot::channel();
        let change = Box::new(Change::new(change, answer));
        self.push(tenant_id.into(), Work::Control(change))?;
        answered.await.unwrap_or_else(|_| Err(unknown_outcome()))
    }

    /// What waits to be written; cheap, and never waits for the writer's work.
    pub fn waiting(&self) -> Waiting {
        self.queue.waiting()
    }

    /// Whether the writer has ended: after [`Ledger::close`], or by a fault in it.
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Waits until the writer has ended. Nothing is written after that.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that the writer is gone without a word, which is an end too.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Stops taking commands, and waits until all that were taken are answered.
    pub async fn close(&self) {
        self.queue.close();
        let writers = std::mem::take(&mut *self.writers.lock());
        for writer in writers {
            // A writer that panicked has nothing left to say here; its jobs were answered.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
    }

    async fn ask<T>(
        &self,
        tenant_id: TenantId,
        work: impl FnOnce(Answer<T>) -> Work,
    ) -> Result<T, StoreError> {
        self.wait(Some(tenant_id), work).await
    }

    async fn wait<T>(
        &self,
        tenant_id: Option<TenantId>,
        work: impl FnOnce(Answer<T>) -> Work,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.push(tenant_id, work(answer))?;
        answered.await.unwrap_or_else(|_| Err(unknown_outcome()))
    }

    fn push(&self, tenant_id: Option<TenantId>, work: Work) -> Result<(), StoreError> {
        let job = Job { tenant_id, work, queued_at: Instant::now() };
        self.queue.push(job).map_err(|(_, error)| error)
    }
}
