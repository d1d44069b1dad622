//! Connections that only read, and who may have how many of them.
//!
//! A question is one transaction that sees one moment and one tenant. It runs to its end whether or
//! not anyone still waits for the answer, so that a connection never goes back in the middle of it.

use std::sync::Arc;
use std::time::Duration;

use bursar_core::TenantId;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use tokio::join;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_postgres::Client;

use super::OpenPostgresError;
use super::connect::Address;
use super::tx;
use crate::error::StoreError;

/// How long a question waits for a connection.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The connections that read.
pub(super) struct Readers {
    pool: Pool,
    /// Those that may give lists, so that whoever asks for these keeps nobody waiting who is asked
    /// for their key.
    lists: Arc<Semaphore>,
    /// Those that may read very many rows.
    wide: Arc<Semaphore>,
}

impl Readers {
    /// Room for so many connections; they are made when they are needed.
    pub(super) fn new(address: &Address, count: usize) -> Result<Self, OpenPostgresError> {
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(address.config.clone(), address.tls.clone(), config);
        let waits = Timeouts { wait: Some(WAIT_MAX), create: Some(WAIT_MAX), recycle: None };
        let pool = Pool::builder(manager)
            .max_size(count.max(1))
            .timeouts(waits)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| OpenPostgresError::Database(error.to_string()))?;
        let lists = Arc::new(Semaphore::new((count * 3 / 4).max(1)));
        Ok(Self { pool, lists, wide: Arc::new(Semaphore::new(1)) })
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
        let connection = self.pool.get().await;
        let connection = connection.map_err(|error| StoreError::Unavailable(Arc::new(error)))?;
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
        | StoreError::Statement(_)
        | StoreError::Exists(_)
        | StoreError::Corrupt(_)) => other,
    }
}
