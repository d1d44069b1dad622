//! The pools of read connections.
//!
//! A read is one transaction with one snapshot and one tenant. It runs in its own task, so that a
//! connection never returns to the pool inside a transaction. If a list or a sum takes too long, or
//! its client stops waiting, the statement is cancelled and the connection closed.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bursar_core::TenantId;
use deadpool_postgres::{ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio::{join, select};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

use super::connect::Address;
use super::error::OpenPostgresError;
use super::tx::{self, Messages};
use crate::error::{NotWritable, StoreError};
use crate::read::read_context;
use crate::read::read_context::{ReadContext, ReadMemory, Requester};
use crate::read::slots::{ReadSlot, ReadSlots};

/// How long a read waits for a connection.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// The time limit of the database probe.
const PING_MAX: Duration = Duration::from_secs(1);
/// The default time limit of a tenant's read.
const TIME_MAX: Duration = Duration::from_secs(10);
/// The time limit of a read over all tenants.
pub(super) const OPERATOR_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a read continues after its client stopped waiting: most reads end within this time, so
/// that their connection can be reused.
const GRACE: Duration = Duration::from_millis(100);
/// How long a cancelled read may take to end.
const CANCEL_MAX: Duration = Duration::from_secs(2);
/// Connections for the operator and the metrics, which no tenant can use up.
const OPERATOR: usize = 2;

const PING: &str = "select pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', \
     (extract(epoch from clock_timestamp()) * 1000000)::bigint, confirmations \
     from clock where name = 'clock'";

/// The read connections of a database.
pub(super) struct Readers {
    address: Address,
    messages: Messages,
    pool: Pool,
    /// The part of the pool for lists and sums, which must not delay single-row reads such as the
    /// check of an API key. One tenant has at most half of it.
    lists: ReadSlots,
    /// The part of `lists` for reads of very many rows.
    large: ReadSlots,
    operator: Pool,
    /// The connection of the database probe, which never waits for other reads.
    probe: Pool,
    time_max_ms: AtomicU64,
}

/// The reply to a database probe.
pub(super) struct PingReply {
    /// The database's clock, in microseconds, and the number of an operator's confirmations.
    pub(super) clock: (i64, i64),
    /// Whether sessions may write.
    pub(super) writable: Result<(), StoreError>,
}

fn clock(row: &Row) -> Result<(i64, i64), StoreError> {
    Ok((row.try_get(2).map_err(read_error)?, row.try_get(3).map_err(read_error)?))
}

/// When a read is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancellation {
    /// At its time limit.
    OnTimeout,
    /// Also after its client stopped waiting.
    OnTimeoutOrDrop,
}

/// How a read runs.
struct ReadOptions {
    tenant_id: Option<TenantId>,
    time_max: Duration,
    cancellation: Cancellation,
    memory: Arc<dyn ReadMemory>,
    slots: Vec<ReadSlot>,
}

impl Readers {
    /// Pools for `count` connections, which are opened when they are needed.
    pub(super) fn new(
        address: Address,
        messages: Messages,
        count: usize,
    ) -> Result<Self, OpenPostgresError> {
        Ok(Self {
            pool: pool(&address, count.max(1))?,
            lists: ReadSlots::new(count * 3 / 4),
            large: ReadSlots::new(count / 4),
            operator: pool(&address, OPERATOR)?,
            probe: pool(&address, 1)?,
            time_max_ms: AtomicU64::new(millis(TIME_MAX)),
            address,
            messages,
        })
    }

    /// Sets the limit on the run time of a read, and on its wait for a slot.
    pub(super) fn limit(&self, time_max: Duration) {
        self.time_max_ms.store(millis(time_max), Ordering::Relaxed);
    }

    fn time_max(&self) -> Duration {
        Duration::from_millis(self.time_max_ms.load(Ordering::Relaxed))
    }

    /// Checks that the database responds and accepts writes. A connection that does not respond is
    /// closed, and the next probe opens a new one.
    pub(super) async fn ping(&self) -> Result<PingReply, StoreError> {
        let connection = connection(&self.probe).await?;
        let (messages, memory) = (self.messages, Arc::new(read_context::UnlimitedReadMemory));
        let reader = Reader { connection: Some(connection), messages, memory };
        let reply = timeout(PING_MAX, reader.client()?.query_typed_one(PING, &[])).await;
        let row = reply.map_err(|late| StoreError::Unavailable(Arc::new(late)))?;
        let row = row.map_err(read_error)?;
        let is = |at| row.try_get::<_, bool>(at).map_err(read_error);
        let (reason, text) = match (is(0)?, is(1)?) {
            (false, false) => {
                reader.release();
                return Ok(PingReply { clock: clock(&row)?, writable: Ok(()) });
            }
            (true, _) => (NotWritable::Standby, "this is a standby"),
            (false, true) => (NotWritable::ReadOnly, "default_transaction_read_only is on"),
        };
        // The connection is closed: a session keeps its settings, and the host name can lead to
        // another server the next time.
        let cause = Arc::new(io::Error::other(text));
        let writable = Err(StoreError::NotWritable { reason, cause });
        Ok(PingReply { clock: clock(&row)?, writable })
    }

    /// Runs a read of few rows by their keys, of one tenant or outside all tenants.
    pub(super) async fn look_up<T, Fut>(
        &self,
        tenant_id: Option<TenantId>,
        read: impl FnOnce(Arc<Reader>) -> Fut + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Fut: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (time_max, memory) = (self.time_max(), Arc::new(read_context::UnlimitedReadMemory));
        let (cancellation, slots) = (Cancellation::OnTimeout, Vec::new());
        let options = ReadOptions { tenant_id, time_max, cancellation, memory, slots };
        self.run(&self.pool, options, read).await.map_err(StoreError::into_lookup_error)
    }

    /// Runs a list or a sum of a tenant.
    pub(super) async fn read<T, Fut>(
        &self,
        context: &ReadContext,
        tenant_id: TenantId,
        read: impl FnOnce(Arc<Reader>) -> Fut + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Fut: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.read_with_slots(&[&self.lists], context, tenant_id, read).await
    }

    /// Runs a read of a tenant over very many rows.
    pub(super) async fn read_large<T, Fut>(
        &self,
        context: &ReadContext,
        tenant_id: TenantId,
        read: impl FnOnce(Arc<Reader>) -> Fut + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Fut: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        // In this order, a read that holds a slot for lists never waits for another slot.
        self.read_with_slots(&[&self.large, &self.lists], context, tenant_id, read).await
    }

    async fn read_with_slots<T, Fut>(
        &self,
        tenant_slots: &[&ReadSlots],
        context: &ReadContext,
        tenant_id: TenantId,
        read: impl FnOnce(Arc<Reader>) -> Fut + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Fut: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (time_max, memory) = (self.time_max(), Arc::clone(&context.memory));
        let (pool, tenant_slots) = match context.requester {
            Requester::Tenant => (&self.pool, tenant_slots),
            Requester::Operator => (&self.operator, &[] as &[&ReadSlots]),
        };
        let mut slots = Vec::with_capacity(tenant_slots.len());
        for wanted in tenant_slots {
            slots.push(wanted.take(tenant_id, time_max).await?);
        }
        let (tenant_id, cancellation) = (Some(tenant_id), Cancellation::OnTimeoutOrDrop);
        let options = ReadOptions { tenant_id, time_max, cancellation, memory, slots };
        self.run(pool, options, read).await
    }

    /// Runs a read over all tenants.
    pub(super) async fn read_all<T, Fut>(
        &self,
        read: impl FnOnce(Arc<Reader>) -> Fut + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Fut: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let memory = Arc::new(read_context::UnlimitedReadMemory);
        let (tenant_id, time_max, slots) = (None, OPERATOR_TIME_MAX, Vec::new());
        let cancellation = Cancellation::OnTimeoutOrDrop;
        let options = ReadOptions { tenant_id, time_max, cancellation, memory, slots };
        self.run(&self.operator, options, read).await
    }

    async fn run<T, Fut>(
        &self,
        pool: &Pool,
        options: ReadOptions,
        read: impl FnOnce(Arc<Reader>) -> Fut + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Fut: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let connection = connection(pool).await?;
        let (address, messages) = (self.address.clone(), self.messages);
        let (mut sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            let ReadOptions { tenant_id, time_max, cancellation, memory, slots } = options;
            let reader = Arc::new(Reader { connection: Some(connection), messages, memory });
            let result = {
                let begin = tx::begin_read(tenant_id, time_max);
                let mut running = pin!(begin_and_read(&reader, begin, read));
                select! {
                    biased;
                    result = &mut running => result,
                    () = sleep(time_max) => cancel(&address, &reader, running).await,
                    () = dropped(&mut sender, cancellation) => {
                        match timeout(GRACE, &mut running).await {
                            Ok(result) => result,
                            Err(_late) => cancel(&address, &reader, running).await,
                        }
                    }
                }
            };
            let is_ok = result.is_ok();
            // The transaction changed nothing, so the caller need not wait for its end.
            let _ = sender.send(result);
            if is_ok
                && reader.end().await
                && let Some(reader) = Arc::into_inner(reader)
            {
                reader.release();
            }
            drop(slots);
        });
        // If the task panicked, its connection was closed.
        receiver.await.unwrap_or(Err(StoreError::Panicked))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Waits until the client stops waiting, if that cancels the read.
async fn dropped<T>(sender: &mut oneshot::Sender<T>, cancellation: Cancellation) {
    match cancellation {
        Cancellation::OnTimeoutOrDrop => sender.closed().await,
        Cancellation::OnTimeout => std::future::pending().await,
    }
}

/// Cancels a read in the database, so that it no longer uses resources there.
async fn cancel<T>(
    address: &Address,
    reader: &Reader,
    running: Pin<&mut impl Future<Output = Result<T, StoreError>>>,
) -> Result<T, StoreError> {
    let token = reader.client()?.cancel_token();
    let cancelled = timeout(CANCEL_MAX, token.cancel_query(address.tls())).await;
    let cancelled = cancelled.map_err(|late| StoreError::Unavailable(Arc::new(late)))?;
    // If the database cannot be reached, its statement timeout ends the read there.
    cancelled.map_err(|error| StoreError::Unavailable(Arc::new(error)))?;
    let _ = timeout(CANCEL_MAX, running).await;
    Err(StoreError::ReadTooLarge)
}

/// A pool whose connections are opened when they are needed.
fn pool(address: &Address, count: usize) -> Result<Pool, OpenPostgresError> {
    let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let create = Some(address.connect_max());
    let waits = Timeouts { wait: Some(WAIT_MAX), create, recycle: None };
    let pool = Pool::builder(address.manager(config))
        .max_size(count)
        .timeouts(waits)
        .runtime(Runtime::Tokio1)
        .build();
    pool.map_err(|error| OpenPostgresError::Database(error.to_string()))
}

async fn connection(pool: &Pool) -> Result<Object, StoreError> {
    pool.get().await.map_err(|error| StoreError::Unavailable(Arc::new(error)))
}

/// Begins a transaction and reads in it. The first statement is sent together with the begin.
async fn begin_and_read<T, Fut>(
    reader: &Arc<Reader>,
    begin: String,
    read: impl FnOnce(Arc<Reader>) -> Fut,
) -> Result<T, StoreError>
where
    Fut: Future<Output = Result<T, StoreError>>,
{
    let (begun, result) = join!(biased; reader.set(&begin), read(Arc::clone(reader)));
    begun?;
    result
}

/// A connection in a read-only transaction.
///
/// Dropping it closes the connection. After the end of the transaction, [`Reader::release`] returns
/// the connection to its pool.
pub(super) struct Reader {
    connection: Option<Object>,
    messages: Messages,
    memory: Arc<dyn ReadMemory>,
}

impl Reader {
    pub(super) fn client(&self) -> Result<&Client, StoreError> {
        let client = self.connection.as_ref().map(|connection| -> &Client { connection });
        client.ok_or(StoreError::Closed)
    }

    /// Begins the transaction, or changes its settings; the next statement need not wait for it.
    pub(super) async fn set(&self, statements: &str) -> Result<(), StoreError> {
        tx::set(self.client()?, statements, self.messages).await.map_err(read_error)
    }

    /// The memory for the result.
    pub(super) fn memory(&self) -> &dyn ReadMemory {
        self.memory.as_ref()
    }

    /// Takes memory for a row of a list.
    pub(super) fn take_row(&self, row: &Row) -> Result<(), StoreError> {
        read_context::take_row(self.memory(), row.raw_size_bytes())
    }

    /// Ends the transaction, and returns whether that succeeded.
    async fn end(&self) -> bool {
        match self.client() {
            Ok(client) => client.batch_execute("commit").await.is_ok(),
            Err(_) => false,
        }
    }

    /// Returns the connection to its pool.
    fn release(mut self) {
        drop(self.connection.take());
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(Object::take(connection));
        }
    }
}

/// The error of a read, which is never retried.
pub(super) fn read_error(error: tokio_postgres::Error) -> StoreError {
    // The statement exceeded its time limit, or was cancelled because the read did.
    let is_cancelled = error.code() == Some(&SqlState::QUERY_CANCELED);
    match tx::store_error(error).into_read_error() {
        StoreError::Retry(cause) => StoreError::Unavailable(cause),
        StoreError::Unavailable(_) if is_cancelled => StoreError::ReadTooLarge,
        other @ (StoreError::Unavailable(_)
        | StoreError::Overloaded
        | StoreError::ReadTooLarge
        | StoreError::Closed
        | StoreError::ClockJumped { .. }
        | StoreError::Statement(_)
        | StoreError::Exists(_)
        | StoreError::TotalsOverflow(_)
        | StoreError::Panicked
        | StoreError::NotWritable { .. }
        | StoreError::Corrupt(_)) => other,
    }
}
