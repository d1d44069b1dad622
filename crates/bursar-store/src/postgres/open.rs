//! Opens a database for a server, and inspects one without a server.

use std::sync::Arc;
use std::time::Duration;

use bursar_core::Calendar;
use tokio_postgres::Client;

use super::connect::Address;
use super::error::OpenPostgresError;
use super::limits::KnownSets;
use super::readers::Readers;
use super::store_stats::TenantScans;
use super::sweep::Sweep;
use super::writer_state::PostgresWriter;
use super::{clock, schema, settings, verify};
use crate::audit::chain::AuditKey;
use crate::calendar::ZonedCalendar;
use crate::clock::{Clocks, StoreClock};
use crate::error::StoreError;
use crate::read::read_context::ReadContext;
use crate::schema::SchemaStatus;
use crate::verify::recount::VerifyReport;
use crate::write::writer_connection::WriterConnection;

/// How a node uses its database.
#[derive(Clone)]
pub struct PostgresOptions {
    /// Writers, each a thread with a connection.
    pub writers: usize,
    /// Connections for reading.
    pub readers: usize,
    /// The fingerprint of the secret key with which this node hashes keys.
    pub secret_fingerprint: String,
    /// Seals the heads of the audit log; the same on every node.
    pub audit_key: AuditKey,
    /// Replaces the database's clock in tests.
    pub clock: Option<Clocks>,
}

/// An open store and its writers.
pub type OpenedPostgres = (Arc<PostgresStore>, Vec<Box<dyn WriterConnection>>);

/// The store in a PostgreSQL database, which several nodes share.
#[derive(Clone)]
pub struct PostgresStore {
    pub(super) readers: Arc<Readers>,
    pub(super) clock: StoreClock,
    pub(super) scans: Arc<TenantScans>,
    pub(super) context: ReadContext,
    pub(super) limit_sets: Arc<KnownSets>,
    pub(super) calendar: Arc<dyn Calendar>,
}

impl PostgresStore {
    /// Checks a database and opens it, and blocks until that is done.
    ///
    /// # Errors
    /// [`OpenPostgresError`], whose texts are for the operator.
    pub fn open(url: &str, options: &PostgresOptions) -> Result<OpenedPostgres, OpenPostgresError> {
        let address = Address::parse(url)?;
        let (checked, injected) = (address.clone(), options.clock.clone());
        let fingerprint = options.secret_fingerprint.clone();
        let (clock, messages) = run_blocking(async move {
            let client = checked.connect().await?;
            settings::check(&client).await?;
            check_schema(&client).await?;
            schema::check_secret(&client, &fingerprint).await?;
            let failed = |error: StoreError| OpenPostgresError::Database(error.to_string());
            let (wall, stored) = clock::read(&client).await.map_err(failed)?;
            let clock = StoreClock::of_database(injected, wall, stored);
            clock::save(&client, clock.stored()).await.map_err(failed)?;
            Ok((clock, settings::messages(&client).await?))
        })?;
        let (sweep, limit_sets) = (Arc::new(Sweep::new()), Arc::new(KnownSets::default()));
        let writers = (0..options.writers.max(1)).map(|_| {
            let (sweep, sets) = (Arc::clone(&sweep), Arc::clone(&limit_sets));
            let (address, audit_key) = (address.clone(), options.audit_key.clone());
            let writer =
                PostgresWriter::new(address, messages, clock.clone(), sweep, sets, audit_key);
            writer.map(|writer| Box::new(writer) as Box<dyn WriterConnection>)
        });
        let writers = writers
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|error| OpenPostgresError::Database(error.to_string()))?;
        let readers = Arc::new(Readers::new(address, messages, options.readers)?);
        let (scans, context) = (Arc::default(), ReadContext::default());
        let calendar = Arc::new(ZonedCalendar::default());
        Ok((Arc::new(Self { readers, clock, scans, context, limit_sets, calendar }), writers))
    }

    /// Sets the limit on the run time of a tenant's read, and on its wait for a slot; by default 10
    /// seconds.
    pub fn limit_reads(&self, time_max: Duration) {
        self.readers.limit(time_max);
    }

    /// Sets what each tenant may spend on a UTC day, in cents; 0 means unlimited. Call it before the
    /// store is used.
    pub fn guard_cost(&self, cents_per_day: u32) {
        self.limit_sets.guard.set(cents_per_day);
    }

    /// The schema version of a database.
    ///
    /// # Errors
    /// [`OpenPostgresError`] if it cannot be read.
    pub fn schema_status(url: &str) -> Result<SchemaStatus, OpenPostgresError> {
        let address = Address::parse(url)?;
        run_blocking(async move { Ok(schema::status(&address.connect().await?).await?) })
    }

    /// Migrates the schema of a database, as the role that owns it, and grants the servers' role
    /// its rights.
    ///
    /// # Errors
    /// [`OpenPostgresError`]; nothing changed then.
    pub fn migrate(url: &str, app_role: &str) -> Result<SchemaStatus, OpenPostgresError> {
        let address = Address::parse(url)?;
        let app_role = app_role.to_owned();
        run_blocking(async move { schema::migrate(&address.connect().await?, &app_role).await })
    }

    /// Recomputes the sums of a database and compares them, and blocks until that is done.
    ///
    /// The role must be allowed to read the tables. Servers may be running on the database.
    ///
    /// # Errors
    /// [`OpenPostgresError`] if the database cannot be opened, [`StoreError`] if it cannot be read.
    pub fn verify(url: &str) -> Result<Result<VerifyReport, StoreError>, OpenPostgresError> {
        let address = Address::parse(url)?;
        run_blocking(async move { Ok(verify::verify(&address.connect().await?).await) })
    }
}

/// Refuses a schema that this binary does not support.
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

/// Blocks on a future, on a thread and runtime of its own, so that async code can call it too.
pub(super) fn run_blocking<T, F>(work: F) -> Result<T, OpenPostgresError>
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
        ran.unwrap_or_else(|_| Err(OpenPostgresError::Database("the check panicked".to_owned())))
    })
}
