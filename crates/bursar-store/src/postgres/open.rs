//! Opening a database, and what can be asked of one beside its servers.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use super::connect::Address;
use super::error::OpenPostgresError;
use super::readers::Readers;
use super::store_stats::Walks;
use super::sweep::Sweep;
use super::writer_state::PostgresWriter;
use super::{clock, schema, settings, verify};
use crate::audit::chain::AuditKey;
use crate::clock::{Clocks, StoreClock};
use crate::error::StoreError;
use crate::read::read_context::ReadContext;
use crate::schema::SchemaStatus;
use crate::verify::recount::Verified;
use crate::write::writer_connection::WriterConnection;

/// How a node uses its database.
#[derive(Clone)]
pub struct PostgresOptions {
    /// Writers, each a thread with a connection.
    pub writers: usize,
    /// Connections for reading.
    pub readers: usize,
    /// Tells which secret key this node hashes keys with.
    pub secret_fingerprint: String,
    /// Seals the heads of the audit log; the same on every node.
    pub audit_key: AuditKey,
    /// What stands in the place of the database's clock in tests.
    pub clock: Option<Clocks>,
}

/// An open store, and the writers that write to it.
pub type OpenedPostgres = (Arc<PostgresStore>, Vec<Box<dyn WriterConnection>>);

/// The store of several nodes.
#[derive(Clone)]
pub struct PostgresStore {
    pub(super) readers: Arc<Readers>,
    pub(super) clock: StoreClock,
    /// Where the questions about all tenants are.
    pub(super) walks: Arc<Walks>,
    pub(super) context: ReadContext,
}

impl PostgresStore {
    /// Checks a database, and opens it with its writers. Blocks until that is done.
    ///
    /// # Errors
    /// [`OpenPostgresError`], in words for the operator.
    pub fn open(url: &str, options: &PostgresOptions) -> Result<OpenedPostgres, OpenPostgresError> {
        let address = Address::parse(url)?;
        let (checked, injected) = (address.clone(), options.clock.clone());
        let fingerprint = options.secret_fingerprint.clone();
        let (clock, messages) = in_short(async move {
            let client = checked.connect().await?;
            settings::check(&client).await?;
            check_schema(&client).await?;
            schema::check_secret(&client, &fingerprint).await?;
            let failed = |error: StoreError| OpenPostgresError::Database(error.to_string());
            let (wall, stored) = clock::read(&client).await.map_err(failed)?;
            let clock = StoreClock::of_database(injected, wall, stored);
            clock::note(&client, clock.stored()).await.map_err(failed)?;
            Ok((clock, settings::messages(&client).await?))
        })?;
        let sweep = Arc::new(Sweep::new());
        let writers = (0..options.writers.max(1)).map(|_| {
            let (address, sweep) = (address.clone(), Arc::clone(&sweep));
            let audit_key = options.audit_key.clone();
            let writer = PostgresWriter::new(address, messages, clock.clone(), sweep, audit_key);
            writer.map(|writer| Box::new(writer) as Box<dyn WriterConnection>)
        });
        let writers = writers
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|error| OpenPostgresError::Database(error.to_string()))?;
        let readers = Arc::new(Readers::new(address, messages, options.readers)?);
        let (walks, context) = (Arc::default(), ReadContext::default());
        Ok((Arc::new(Self { readers, clock, walks, context }), writers))
    }

    /// Sets how long a read of a tenant may run, and wait for its turn; 10 seconds if not set.
    pub fn limit_reads(&self, time_max: Duration) {
        self.readers.limit(time_max);
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

    /// Counts a database a second time, beside servers that may be running on it; as a role that
    /// may read its tables. Blocks until that is done.
    ///
    /// # Errors
    /// [`OpenPostgresError`] when it cannot be opened, [`StoreError`] when it cannot be read.
    pub fn verify(url: &str) -> Result<Result<Verified, StoreError>, OpenPostgresError> {
        let address = Address::parse(url)?;
        in_short(async move { Ok(verify::verify(&address.connect().await?).await) })
    }
}

/// Refuses a schema that this binary cannot use as it is.
pub(super) async fn check_schema(client: &Client) -> Result<(), OpenPostgresError> {
    let status = schema::status(client).await?;
    let SchemaStatus { found, known, oldest_known: _ } = status;
    if status.is_usable() {
        Ok(())
    } else if found > known {
        Err(OpenPostgresError::NewerSchema { found, known })
    } else {
        Err(OpenPostgresError::OlderSchema { found, known })
    }
}

/// Runs something to its end on a runtime of its own, wherever this is called.
pub(super) fn in_short<T, F>(work: F) -> Result<T, OpenPostgresError>
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
