//! Reading connections, and how they are shared.
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
/// How long a database that is there may take to say so.
const PING_MAX: Duration = Duration::from_secs(1);
/// The default time limit of a tenant's read.
const TIME_MAX: Duration = Duration::from_secs(10);
/// The time limit of a read over all tenants.
pub(super) const OPERATOR_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a question that nobody waits for may go on: most end by themselves meanwhile, and keep
/// their connection.
const GRACE: Duration = Duration::from_millis(100);
/// How long a question may take to end once it was cancelled.
const CANCEL_MAX: Duration = Duration::from_secs(2);
/// Connections for the operator and the metrics, which no tenant can use up.
const OPERATOR: usize = 2;

const PING: &str = "select pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', \
     (extract(epoch from clock_timestamp()) * 1000000)::bigint, confirmations \
     from clock where name = 'clock'";

/// The connections that read.
pub(super) struct Readers {
    address: Address,
    messages: Messages,
    pool: Pool,
    /// Those that may give lists, so that whoever asks for these keeps nobody waiting who is asked
    /// for their key. One tenant has at most half of them.
    lists: ReadSlots,
    /// Those that may read very many rows.
    wide: ReadSlots,
    operator: Pool,
    /// One that only tells whether the database answers, however many questions wait for it.
    pulse: Pool,
    time_max_ms: AtomicU64,
}

/// What a database says of itself.
pub(super) struct Pong {
    /// Its clock, in microseconds, and how often an operator confirmed that.
    pub(super) clock: (i64, i64),
    /// Whether its sessions may write.
    pub(super) writable: Result<(), StoreError>,
}

fn clock(row: &Row) -> Result<(i64, i64), StoreError> {
    Ok((row.try_get(2).map_err(read_error)?, row.try_get(3).map_err(read_error)?))
}

/// How a question ends when it does not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It is short, and goes on.
    OnlyByTime,
    /// Also when nobody waits for the answer any more.
    WhenGone,
}

/// How a question is asked.
struct Terms {
    tenant_id: Option<TenantId>,
    time_max: Duration,
    ending: Ending,
    memory: Arc<dyn ReadMemory>,
    slots: Vec<ReadSlot>,
}

impl Readers {
    /// Room for so many connections; they are made when they are needed.
    pub(super) fn new(
        address: Address,
        messages: Messages,
        count: usize,
    ) -> Result<Self, OpenPostgresError> {
        Ok(Self {
            pool: pool(&address, count.max(1))?,
            lists: ReadSlots::new(count * 3 / 4),
            wide: ReadSlots::new(count / 4),
            operator: pool(&address, OPERATOR)?,
            pulse: pool(&address, 1)?,
            time_max_ms: AtomicU64::new(millis(TIME_MAX)),
            address,
            messages,
        })
    }

    /// Sets how long a read may run, and how long it may wait for its turn.
    pub(super) fn limit(&self, time_max: Duration) {
        self.time_max_ms.store(millis(time_max), Ordering::Relaxed);
    }

    fn time_max(&self) -> Duration {
        Duration::from_millis(self.time_max_ms.load(Ordering::Relaxed))
    }

    /// Asks whether the database answers and takes writes. A connection that says nothing is given
    /// up, and the next question makes another one.
    pub(super) async fn ping(&self) -> Result<Pong, StoreError> {
        let connection = connection(&self.pulse).await?;
        let (messages, memory) = (self.messages, Arc::new(read_context::UnlimitedReadMemory));
        let reader = Reader { connection: Some(connection), messages, memory };
        let asked = reader.client()?.query_typed_one(PING, &[]);
        let answered = timeout(PING_MAX, asked).await;
        let row = answered.map_err(|late| StoreError::Unavailable(Arc::new(late)))?;
        let row = row.map_err(read_error)?;
        let is = |at| row.try_get::<_, bool>(at).map_err(read_error);
        let (reason, said) = match (is(0)?, is(1)?) {
            (false, false) => {
                reader.give_back();
                return Ok(Pong { clock: clock(&row)?, writable: Ok(()) });
            }
            (true, _) => (NotWritable::Standby, "this is a standby"),
            (false, true) => (NotWritable::ReadOnly, "default_transaction_read_only is on"),
        };
        // By the same name there may be another server the next time, and what a session is allowed
        // is said when it begins: so the next question is asked by another connection.
        let cause = Arc::new(io::Error::other(said));
        Ok(Pong { clock: clock(&row)?, writable: Err(StoreError::NotWritable { reason, cause }) })
    }

    /// Asks for a row or two by their keys, of one tenant or of no tenant's.
    pub(super) async fn look_up<T, Asked>(
        &self,
        tenant_id: Option<TenantId>,
        question: impl FnOnce(Arc<Reader>) -> Asked + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Asked: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (time_max, memory) = (self.time_max(), Arc::new(read_context::UnlimitedReadMemory));
        let (ending, slots) = (Ending::OnlyByTime, Vec::new());
        let terms = Terms { tenant_id, time_max, ending, memory, slots };
        self.ask(&self.pool, terms, question).await.map_err(StoreError::of_look_up)
    }

    /// Runs a list or a sum of a tenant.
    pub(super) async fn read<T, Asked>(
        &self,
        context: &ReadContext,
        tenant_id: TenantId,
        question: impl FnOnce(Arc<Reader>) -> Asked + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Asked: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.read_by(&[&self.lists], context, tenant_id, question).await
    }

    /// Runs a read of a tenant over very many rows.
    pub(super) async fn read_much<T, Asked>(
        &self,
        context: &ReadContext,
        tenant_id: TenantId,
        question: impl FnOnce(Arc<Reader>) -> Asked + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Asked: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        // In this order: those who have a list's slot already never wait for a wide one.
        self.read_by(&[&self.wide, &self.lists], context, tenant_id, question).await
    }

    async fn read_by<T, Asked>(
        &self,
        of_tenants: &[&ReadSlots],
        context: &ReadContext,
        tenant_id: TenantId,
        question: impl FnOnce(Arc<Reader>) -> Asked + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Asked: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (time_max, memory) = (self.time_max(), Arc::clone(&context.memory));
        let (pool, of_tenants) = match context.requester {
            Requester::Tenant => (&self.pool, of_tenants),
            Requester::Operator => (&self.operator, &[] as &[&ReadSlots]),
        };
        let mut slots = Vec::with_capacity(of_tenants.len());
        for wanted in of_tenants {
            slots.push(wanted.take(tenant_id, time_max).await?);
        }
        let (tenant_id, ending) = (Some(tenant_id), Ending::WhenGone);
        self.ask(pool, Terms { tenant_id, time_max, ending, memory, slots }, question).await
    }

    /// Runs a read over all tenants.
    pub(super) async fn read_all<T, Asked>(
        &self,
        question: impl FnOnce(Arc<Reader>) -> Asked + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Asked: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let memory = Arc::new(read_context::UnlimitedReadMemory);
        let (tenant_id, time_max, slots) = (None, OPERATOR_TIME_MAX, Vec::new());
        let terms = Terms { tenant_id, time_max, ending: Ending::WhenGone, memory, slots };
        self.ask(&self.operator, terms, question).await
    }

    async fn ask<T, Asked>(
        &self,
        pool: &Pool,
        terms: Terms,
        question: impl FnOnce(Arc<Reader>) -> Asked + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Asked: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let connection = connection(pool).await?;
        let (address, messages) = (self.address.clone(), self.messages);
        let (mut answers, answer) = oneshot::channel();
        tokio::spawn(async move {
            let Terms { tenant_id, time_max, ending, memory, slots } = terms;
            let reader = Arc::new(Reader { connection: Some(connection), messages, memory });
            let answered = {
                let opening = tx::begin_read(tenant_id, time_max);
                let mut asked = pin!(begin_and_ask(&reader, opening, question));
                select! {
                    biased;
                    answered = &mut asked => answered,
                    () = sleep(time_max) => cancel(&address, &reader, asked).await,
                    () = gone(&mut answers, ending) => match timeout(GRACE, &mut asked).await {
                        Ok(answered) => answered,
                        Err(_late) => cancel(&address, &reader, asked).await,
                    },
                }
            };
            let is_answered = answered.is_ok();
            // Nobody need wait for the end of a transaction that changed nothing.
            let _ = answers.send(answered);
            if is_answered
                && reader.end().await
                && let Some(reader) = Arc::into_inner(reader)
            {
                reader.give_back();
            }
            drop(slots);
        });
        // Its connection was closed with it, and the next question makes another one.
        answer.await.unwrap_or(Err(StoreError::Panicked))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Waits until nobody waits for the answer, if that matters.
async fn gone<T>(answers: &mut oneshot::Sender<T>, ending: Ending) {
    match ending {
        Ending::WhenGone => answers.closed().await,
        Ending::OnlyByTime => std::future::pending().await,
    }
}

/// Ends a question in the database, so that it takes nothing there any more.
async fn cancel<T>(
    address: &Address,
    reader: &Reader,
    asked: Pin<&mut impl Future<Output = Result<T, StoreError>>>,
) -> Result<T, StoreError> {
    let token = reader.client()?.cancel_token();
    let cancelled = timeout(CANCEL_MAX, token.cancel_query(address.tls())).await;
    let cancelled = cancelled.map_err(|late| StoreError::Unavailable(Arc::new(late)))?;
    // A database that cannot be told is away; there its own bound of a statement ends the question.
    cancelled.map_err(|error| StoreError::Unavailable(Arc::new(error)))?;
    let _ = timeout(CANCEL_MAX, asked).await;
    Err(StoreError::ReadTooLarge)
}

/// Connections that are made when they are needed.
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

/// Opens a transaction and asks in it; what is asked first is sent together with the opening.
async fn begin_and_ask<T, Asked>(
    reader: &Arc<Reader>,
    begin: String,
    question: impl FnOnce(Arc<Reader>) -> Asked,
) -> Result<T, StoreError>
where
    Asked: Future<Output = Result<T, StoreError>>,
{
    let (opened, answer) = join!(biased; reader.set(&begin), question(Arc::clone(reader)));
    opened?;
    answer
}

/// A connection in a transaction that reads. It is closed when it is dropped, unless it is given
/// back: then its transaction has ended.
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

    /// Opens its transaction, or changes settings of it; what is asked next need not wait.
    pub(super) async fn set(&self, statements: &str) -> Result<(), StoreError> {
        tx::set(self.client()?, statements, self.messages).await.map_err(read_error)
    }

    /// The memory for what is found.
    pub(super) fn memory(&self) -> &dyn ReadMemory {
        self.memory.as_ref()
    }

    /// Takes memory for a row of a list.
    pub(super) fn take_row(&self, row: &Row) -> Result<(), StoreError> {
        read_context::take_row(self.memory(), row.raw_size_bytes())
    }

    /// Whether its transaction came to its end.
    async fn end(&self) -> bool {
        match self.client() {
            Ok(client) => client.batch_execute("commit").await.is_ok(),
            Err(_) => false,
        }
    }

    fn give_back(mut self) {
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

/// What an error means to whoever asked: a question is never asked again by itself.
pub(super) fn read_error(error: tokio_postgres::Error) -> StoreError {
    // A statement ran longer than a question may, or was cancelled for it.
    let is_cancelled = error.code() == Some(&SqlState::QUERY_CANCELED);
    match tx::store_error(error).of_read() {
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
