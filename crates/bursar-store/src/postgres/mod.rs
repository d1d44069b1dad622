//! The store of several nodes: one PostgreSQL database, any number of stateless servers.
//!
//! Nothing that decides is kept in a node's memory: a group locks the accounts that it touches,
//! reads the database's clock, loads, decides and saves in one transaction. No statement is
//! prepared and nothing is set beyond a transaction, so that a pooler may stand between.

mod clock;
mod columns;
mod connect;
mod control;
mod labels;
mod lane;
mod load;
mod pipeline;
mod save;
mod schema;
mod settings;
mod sweep;
mod tx;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bursar_core::TenantId;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use tokio_postgres::Client;

pub use schema::SchemaStatus;

use clock::DatabaseClock;
use connect::Address;

use crate::error::StoreError;
use crate::lane::Lane;
use crate::sqlite::Clock;

/// How long a question waits for a connection.
const READER_WAIT_MAX: Duration = Duration::from_secs(2);

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenPostgresError {
    /// The URL is not understood; it is not shown, because it may hold a password.
    #[error("the database's URL is not understood: {0}")]
    Url(&'static str),
    /// A file of certificates cannot be used.
    #[error("{0} has no certificate that can be used (sslrootcert)")]
    Certificate(PathBuf),
    /// The database does not answer, or not as it should.
    #[error("the database cannot be used: {0}")]
    Database(String),
    /// A setting of the server would lose what was acknowledged.
    #[error("{0}")]
    Setting(String),
    /// Nobody made the schema yet, or an older one than this binary needs.
    #[error(
        "the database has schema {found}, this binary needs {known}: run `bursar db migrate` with \
         the role that owns the tables"
    )]
    OlderSchema {
        /// The schema of the database.
        found: u32,
        /// The schema that this binary needs.
        known: u32,
    },
    /// A newer server has changed the schema in a way that this one does not know.
    #[error("the database has schema {found}, which needs a newer bursar (this one knows {known})")]
    NewerSchema {
        /// The schema of the database.
        found: u32,
        /// The newest schema that this binary knows.
        known: u32,
    },
    /// The keys in the database were hashed with another secret key.
    #[error(
        "the database belongs to another secret key: start every node with the BURSAR_SECRET_KEY \
         with which its keys were made"
    )]
    OtherSecretKey,
}

impl From<tokio_postgres::Error> for OpenPostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(tx::told(&error))
    }
}

/// How a node uses its database.
#[derive(Clone)]
pub struct PostgresOptions {
    /// Writer lanes, each a thread with a connection.
    pub lanes: usize,
    /// Connections for reading.
    pub readers: usize,
    /// Tells which secret key this node hashes keys with.
    pub secret_fingerprint: String,
    /// What stands in the place of the database's clock in tests.
    pub clock: Option<Clock>,
}

/// An open store, and the lanes that write to it.
pub type OpenedPostgres = (Arc<PostgresStore>, Vec<Box<dyn Lane>>);

/// The store of several nodes.
pub struct PostgresStore {
    pool: Pool,
    clock: DatabaseClock,
}

impl PostgresStore {
    /// Checks a database, and opens it with its writer lanes. Blocks until that is done.
    ///
    /// # Errors
    /// [`OpenPostgresError`], in words for the operator.
    pub fn open(url: &str, options: &PostgresOptions) -> Result<OpenedPostgres, OpenPostgresError> {
        let address = Address::parse(url)?;
        let clock = DatabaseClock::new(options.clock.clone());
        let checked = address.clone();
        let fingerprint = options.secret_fingerprint.clone();
        let heard = in_short(async move {
            let client = checked.connect().await?;
            settings::check(&client).await?;
            let status = schema::status(&client).await?;
            if !status.is_usable() {
                let (found, known) = (status.found, status.known);
                return Err(if found > known {
                    OpenPostgresError::NewerSchema { found, known }
                } else {
                    OpenPostgresError::OlderSchema { found, known }
                });
            }
            schema::check_secret(&client, &fingerprint).await?;
            Ok(load::clock(&client).await?)
        })?;
        clock.heard(heard);
        let sweep = Arc::new(sweep::Sweep::new());
        let lanes = (0..options.lanes.max(1)).map(|_| {
            let lane = lane::PostgresLane::new(address.clone(), clock.clone(), Arc::clone(&sweep));
            lane.map(|lane| Box::new(lane) as Box<dyn Lane>)
        });
        let lanes = lanes
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|error| OpenPostgresError::Database(error.to_string()))?;
        let pool = readers(&address, options.readers)?;
        Ok((Arc::new(Self { pool, clock }), lanes))
    }

    /// What the schema of a database is.
    ///
    /// # Errors
    /// [`OpenPostgresError`] when it cannot be read.
    pub fn schema_status(url: &str) -> Result<SchemaStatus, OpenPostgresError> {
        let address = Address::parse(url)?;
        in_short(async move { Ok(schema::status(&address.connect().await?).await?) })
    }

    /// Brings the schema of a database up to date, as the role that owns it, and lets the role of
    /// the servers use it.
    ///
    /// # Errors
    /// [`OpenPostgresError`]; then nothing was changed.
    pub fn migrate(url: &str, app_role: &str) -> Result<SchemaStatus, OpenPostgresError> {
        let address = Address::parse(url)?;
        let app_role = app_role.to_owned();
        in_short(async move { schema::migrate(&address.connect().await?, &app_role).await })
    }

    /// Asks something of one tenant, or of no tenant's rows, all of one moment.
    ///
    /// What was asked runs to its end whether or not anyone still waits for the answer, so that a
    /// connection never goes back in the middle of a transaction.
    async fn read<T, F, Asked>(
        &self,
        tenant_id: Option<TenantId>,
        question: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Reader>) -> Asked + Send + 'static,
        Asked: Future<Output = Result<T, StoreError>> + Send,
    {
        let connection = self.pool.get().await.map_err(pool_error)?;
        let asked = tokio::spawn(async move {
            let reader = Arc::new(Reader { connection: Some(connection) });
            reader.client()?.batch_execute(&tx::begin_read(tenant_id)).await.map_err(read_error)?;
            let answer = question(Arc::clone(&reader)).await?;
            reader.client()?.batch_execute("commit").await.map_err(read_error)?;
            if let Some(reader) = Arc::into_inner(reader) {
                reader.give_back();
            }
            Ok(answer)
        });
        asked.await.unwrap_or_else(|error| Err(StoreError::Unavailable(Arc::new(error))))
    }
}

/// A connection in a transaction that reads. It is closed when it is dropped, unless it is given
/// back: then its transaction has ended.
pub(crate) struct Reader {
    connection: Option<Object>,
}

impl Reader {
    pub(crate) fn client(&self) -> Result<&Client, StoreError> {
        self.connection
            .as_ref()
            .map(|connection| -> &Client { connection })
            .ok_or(StoreError::Closed)
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

fn readers(address: &Address, count: usize) -> Result<Pool, OpenPostgresError> {
    let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(address.config.clone(), address.tls.clone(), config);
    let waits =
        Timeouts { wait: Some(READER_WAIT_MAX), create: Some(READER_WAIT_MAX), recycle: None };
    let pool = Pool::builder(manager)
        .max_size(count.max(1))
        .timeouts(waits)
        .runtime(Runtime::Tokio1)
        .build();
    pool.map_err(|error| OpenPostgresError::Database(error.to_string()))
}

fn pool_error(error: deadpool_postgres::PoolError) -> StoreError {
    StoreError::Unavailable(Arc::new(error))
}

/// What an error means to whoever asked: a question is never asked again by itself.
fn read_error(error: tokio_postgres::Error) -> StoreError {
    let error = tx::store_error(error);
    if let StoreError::Again(cause) = error { StoreError::Unavailable(cause) } else { error }
}

/// Runs something to its end on a runtime of its own, wherever this is called.
fn in_short<T, F>(work: F) -> Result<T, OpenPostgresError>
where
    T: Send,
    F: Future<Output = Result<T, OpenPostgresError>> + Send,
{
    let failed = |error: std::io::Error| OpenPostgresError::Database(error.to_string());
    std::thread::scope(|scope| {
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(failed)?.block_on(work)
        };
        let ran = scope.spawn(run).join();
        ran.unwrap_or_else(|_| Err(OpenPostgresError::Database("a check failed".to_owned())))
    })
}
