//! Connections that only read, and who may have how many of them.
//!
//! A question is one transaction that sees one moment and one tenant. It runs to its end whether or
//! not anyone still waits for the answer, so that a connection never goes back in the middle of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bursar_core::TenantId;
use deadpool_postgres::{ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use tokio::join;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_postgres::Client;

use super::OpenPostgresError;
use super::connect::Address;
use super::tx;
use crate::error::StoreError;

/// How long a question waits for a connection.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a database that is there may take to say so.
const PING_MAX: Duration = Duration::from_secs(1);

const PING: &str = "select pg_is_in_recovery(), \
     (extract(epoch from clock_timestamp()) * 1000000)::bigint, confirmations \
     from clock where name = 'clock'";

/// The connections that read.
pub(super) struct Readers {
    pool: Pool,
    /// Those that may give lists, so that whoever asks for these keeps nobody waiting who is asked
    /// for their key.
    lists: Arc<Semaphore>,
    /// Those that may read very many rows.
    wide: Arc<Semaphore>,
    /// One that only tells whether the database answers, however many questions wait for it.
    pulse: Pool,
}

impl Readers {
    /// Room for so many connections; they are made when they are needed.
    pub(super) fn new(address: &Address, count: usize) -> Result<Self, OpenPostgresError> {
        let lists = Arc::new(Semaphore::new((count * 3 / 4).max(1)));
        let wide = Arc::new(Semaphore::new((count / 4).max(1)));
        Ok(Self { pool: pool(address, count.max(1))?, lists, wide, pulse: pool(address, 1)? })
    }

    /// Asks whether the database answers and is no standby. A connection that says nothing is given
    /// up, and the next question makes another one. Tells its clock, and how often an operator
    /// confirmed that.
    pub(super) async fn ping(&self) -> Result<(i64, i64), StoreError> {
        let connection = connection(&self.pulse).await?;
        let reader = Reader { connection: Some(connection) };
        let asked = reader.client()?.query_typed_one(PING, &[]);
        let answered = tokio::time::timeout(PING_MAX, asked).await;
        let row = answered.map_err(|late| StoreError::Unavailable(Arc::new(late)))?;
        let row = row.map_err(read_error)?;
        if row.try_get(0).map_err(read_error)? {
            // By the same name there may be another server the next time.
            return Err(StoreError::Unavailable(Arc::new(io::Error::other("this is a standby"))));
        }
        reader.give_back();
        Ok((row.try_get(1).map_err(read_error)?, row.try_get(2).map_err(read_error)?))
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
        self.ask(Vec::new(), tenant_id, question).await
    }

    /// Asks for a list or a sum.
    pub(super) async fn read<T, Asked>(
        &self,
        tenant_id: Option<TenantId>,
        question: impl FnOnce(Arc<Reader>) -> Asked + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Asked: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.ask(vec![permit(&self.lists).await?], tenant_id, question).await
    }

    /// Asks something that reads very many rows.
    pub(super) async fn read_much<T, Asked>(
        &self,
        tenant_id: Option<TenantId>,
        question: impl FnOnce(Arc<Reader>) -> Asked + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Asked: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let permits = vec![permit(&self.wide).await?, permit(&self.lists).await?];
        self.ask(permits, tenant_id, question).await
    }

    async fn ask<T, Asked>(
        &self,
        permits: Vec<OwnedSemaphorePermit>,
        tenant_id: Option<TenantId>,
        question: impl FnOnce(Arc<Reader>) -> Asked + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        Asked: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let connection = connection(&self.pool).await?;
        let (answers, answer) = oneshot::channel();
        tokio::spawn(async move {
            let reader = Arc::new(Reader { connection: Some(connection) });
            let answered = begin_and_ask(&reader, tenant_id, question).await;
            let is_answered = answered.is_ok();
            // Nobody need wait for the end of a transaction that changed nothing.
            let _ = answers.send(answered);
            if is_answered
                && reader.end().await
                && let Some(reader) = Arc::into_inner(reader)
            {
                reader.give_back();
            }
            drop(permits);
        });
        answer.await.unwrap_or_else(|lost| Err(StoreError::Unavailable(Arc::new(lost))))
    }
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

/// A permit, waited for as long as for a connection.
async fn permit(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StoreError> {
    let waited = tokio::time::timeout(WAIT_MAX, Arc::clone(of).acquire_owned()).await;
    let permit = waited.map_err(|late| StoreError::Unavailable(Arc::new(late)))?;
    permit.map_err(|_| StoreError::Closed)
}

/// Opens a transaction and asks in it; what is asked first is sent together with the opening.
async fn begin_and_ask<T, Asked>(
    reader: &Arc<Reader>,
    tenant_id: Option<TenantId>,
    question: impl FnOnce(Arc<Reader>) -> Asked,
) -> Result<T, StoreError>
where
    Asked: Future<Output = Result<T, StoreError>>,
{
    let begin = tx::begin_read(tenant_id);
    let opening = reader.client()?.batch_execute(&begin);
    let (opened, answer) = join!(biased; opening, question(Arc::clone(reader)));
    opened.map_err(read_error)?;
    answer
}

/// A connection in a transaction that reads. It is closed when it is dropped, unless it is given
/// back: then its transaction has ended.
pub(super) struct Reader {
    connection: Option<Object>,
}

impl Reader {
    pub(super) fn client(&self) -> Result<&Client, StoreError> {
        let client = self.connection.as_ref().map(|connection| -> &Client { connection });
        client.ok_or(StoreError::Closed)
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
    match tx::store_error(error) {
        StoreError::Again(cause) => StoreError::Unavailable(cause),
        other @ (StoreError::Unavailable(_)
        | StoreError::Overloaded
        | StoreError::Closed
        | StoreError::ClockJumped { .. }
        | StoreError::Statement(_)
        | StoreError::Exists(_)
        | StoreError::Corrupt(_)) => other,
    }
}
