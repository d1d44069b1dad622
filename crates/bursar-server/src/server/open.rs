//! Opens the store and assembles the services of an app.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bursar_core::Timestamp;
use bursar_store::{
    Clock, Clocks, Ledger, Observer, PostgresOptions, PostgresStore, SqliteStore, Store,
    WriterConnection, system_boot,
};

use super::start_error::StartError;
use crate::app::{App, Services};
use crate::auth::authenticator::Authenticator;
use crate::auth::failed_logins::FailedLogins;
use crate::auth::key_cache::KeyCache;
use crate::auth::oidc::Issuers;
use crate::auth::onboarding::Onboarding;
use crate::auth::secret::{Secret, SecretKey, is_strong};
use crate::config::data_dir;
use crate::config::data_dir::{OPERATOR_TOKEN, SECRET_KEY};
use crate::config::database::{Database, PostgresDatabase};
use crate::config::sections::memory::MemorySettings;
use crate::config::sections::oidc::OidcSettings;
use crate::config::sections::secrets::SecretSettings;
use crate::config::sections::storage::StorageSettings;
use crate::config::settings::Config;
use crate::config::values::BearerToken;
use crate::http::answer_memory::LargeAnswers;
use crate::http::export::export_budget;
use crate::http::memory_budget::{AnswerBudgets, BodyLimits, ByteBudget};
use crate::http::outbound;
use crate::http::outbound::Outbound;
use crate::http::work_pool::WorkPool;
use crate::jobs::database_probe::DatabaseProbe;
use crate::jobs::decision_log::decision_log;
use crate::jobs::key_uses::KeyUses;
use crate::jobs::monotonic_clock::MonotonicClock;
use crate::observe::metrics::Metrics;
use crate::openapi;
use crate::protection::protector::Protector;
use crate::router::API;
use crate::wire::body::{BATCH_RECORDS_MAX, BodyReader};
use crate::wire::timestamps;

/// The memory of large responses to the operator, and to unauthenticated callers.
const OPERATOR_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
const ANONYMOUS_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The connections of a command to a shared database.
const COMMAND_WRITERS: usize = 1;
const COMMAND_READERS: usize = 2;
/// The first bytes of every SQLite database.
const SQLITE_HEAD: &[u8; 16] = b"SQLite format 3\0";

/// Opens the store and starts its writers.
///
/// `clock` replaces the store's own clock, which is that of this machine or of the shared database.
/// It must advance and never jump.
///
/// # Errors
/// [`StartError`].
pub fn open(config: &Config, clock: Option<Clock>) -> Result<App, StartError> {
    open_with(config, clock.map(Clocks::from), MonotonicClock::system())
}

/// Like [`open`], with clocks that may jump and a monotonic clock that a test moves.
///
/// # Errors
/// [`StartError`].
pub fn open_with(
    config: &Config,
    clocks: Option<Clocks>,
    monotonic_clock: MonotonicClock,
) -> Result<App, StartError> {
    let opened = match &config.database() {
        Database::File(path) => open_file(config, path, clocks)?,
        Database::Postgres(database) => {
            let token =
                config.secrets.operator_token.as_ref().ok_or(StartError::NoOperatorToken)?;
            open_postgres(config, database, token.secret().clone(), clocks)?
        }
    };
    assemble(config, opened, monotonic_clock)
}

/// Like [`open`], for a command that uses the store itself.
///
/// # Errors
/// [`StartError`].
pub(crate) fn open_for_command(config: &Config, clocks: Option<Clocks>) -> Result<App, StartError> {
    let opened = match &config.database() {
        Database::File(path) => open_file(config, path, clocks)?,
        Database::Postgres(database) => {
            // The token proves nothing here: the command already has the database and the secret
            // key, and no one else can reach this process.
            let configured = config.secrets.operator_token.as_ref();
            let token = configured
                .map_or_else(data_dir::new_operator_token, |token| Ok(token.secret().clone()));
            let token = token.map_err(|error| StartError::System(io::Error::other(error)))?;
            let few = database.with_connections(COMMAND_WRITERS, COMMAND_READERS);
            open_postgres(config, &few, token, clocks)?
        }
    };
    assemble(config, opened, MonotonicClock::system())
}

/// Opens a SQLite file. The first start creates the secrets.
fn open_file(config: &Config, path: &Path, clocks: Option<Clocks>) -> Result<Opened, StartError> {
    let StorageSettings { data_dir: folder, .. } = &config.storage;
    let SecretSettings { operator_token, secret_key } = &config.secrets;
    data_dir::create(folder)?;
    let configured = |secret: Option<&Secret>, file: &str| match secret {
        Some(secret) => Ok(secret.clone()),
        None => data_dir::secret(folder, file),
    };
    refuse_lost_secret(folder, secret_key.as_ref(), path)?;
    let secret_key = SecretKey::derive(&configured(secret_key.as_ref(), SECRET_KEY)?)
        .map_err(StartError::SecretKey)?;
    let operator_token = operator_token.as_ref().map(BearerToken::secret);
    let operator_token = configured(operator_token, OPERATOR_TOKEN)?;
    if !is_strong(&operator_token) {
        return Err(StartError::OperatorToken(folder.join(OPERATOR_TOKEN)));
    }
    let clocks = clocks.unwrap_or_else(Clocks::system);
    let (store, writer) =
        SqliteStore::open(path, clocks, secret_key.fingerprint(), secret_key.audit_key())?;
    store.limit_reads(config.server.read_seconds.seconds());
    store.guard_cost(config.protection.cost_cents_per_day());
    let secrets = Secrets { secret_key, operator_token };
    Ok(Opened { secrets, store, writers: vec![writer], database_probe: None })
}

/// Opens a shared database.
///
/// No secrets are created: the other nodes would not have them.
fn open_postgres(
    config: &Config,
    database: &PostgresDatabase,
    operator_token: Secret,
    clock: Option<Clocks>,
) -> Result<Opened, StartError> {
    let secret_key = config.secrets.secret_key.as_ref().ok_or(StartError::NoSecretKey)?;
    let secret_key = SecretKey::derive(secret_key).map_err(StartError::SecretKey)?;
    let options = PostgresOptions {
        writers: database.writers,
        readers: database.readers,
        secret_fingerprint: secret_key.fingerprint().to_owned(),
        audit_key: secret_key.audit_key(),
        clock,
    };
    let (store, writers) = PostgresStore::open(database.url()?.expose(), &options)?;
    store.limit_reads(config.server.read_seconds.seconds());
    store.guard_cost(config.protection.cost_cents_per_day());
    let secrets = Secrets { secret_key, operator_token };
    Ok(Opened { secrets, store, writers, database_probe: Some(DatabaseProbe::default()) })
}

/// The secrets that hash keys and authenticate the operator.
struct Secrets {
    secret_key: SecretKey,
    operator_token: Secret,
}

/// An open store.
struct Opened {
    secrets: Secrets,
    store: Arc<dyn Store>,
    writers: Vec<Box<dyn WriterConnection>>,
    database_probe: Option<DatabaseProbe>,
}

fn assemble(
    config: &Config,
    opened: Opened,
    monotonic_clock: MonotonicClock,
) -> Result<App, StartError> {
    let Opened { secrets, store, writers, database_probe } = opened;
    let Secrets { secret_key, operator_token } = secrets;
    let metrics = Arc::new(Metrics::new()?);
    let observer = Arc::clone(&metrics) as Arc<dyn Observer>;
    let ledger =
        Ledger::start(writers, observer, config.caps.caps()).map_err(StartError::System)?;
    let (secret_key, operator_token) = (Arc::new(secret_key), Arc::new(operator_token));
    let (key_cache, key_uses) = (Arc::<KeyCache>::default(), Arc::<KeyUses>::default());
    let failed_logins = Arc::<FailedLogins>::default();
    let issuers = Arc::new(issuers(&config.oidc)?);
    let onboarding = Arc::new(Onboarding::new(ledger.clone(), Arc::clone(&key_cache)));
    let authenticator = Authenticator {
        store: Arc::clone(&store),
        secret_key: Arc::clone(&secret_key),
        operator_token: Arc::clone(&operator_token),
        metrics_token: config.metrics.metrics_token.as_ref().map(|token| token.secret().clone()),
        issuers: Arc::clone(&issuers),
        key_cache: Arc::clone(&key_cache),
        key_uses: Arc::clone(&key_uses),
        failed_logins: Arc::clone(&failed_logins),
        onboarding: Arc::clone(&onboarding),
        clock: monotonic_clock.clone(),
        metrics: Arc::clone(&metrics),
    };
    let protection = Protector::new(
        (config.protection.thresholds(), API.table().protected_routes()),
        Arc::clone(&store),
        monotonic_clock.clone(),
        Arc::clone(&metrics),
    );
    let answers = large_answers(&config.memory, Arc::clone(&store));
    let bodies = Arc::new(body_reader(config, ledger.clone()));
    Ok(App::new(Services {
        store,
        ledger,
        monotonic_clock,
        secret_key,
        operator_token,
        authenticator: Arc::new(authenticator),
        metrics,
        allowed_prefixes: config.credentials.allowed_prefixes(),
        tenant_caps: config.tenant.caps(),
        key_cache,
        failed_logins,
        issuers,
        onboarding,
        key_uses,
        decision_log: decision_log(),
        protection,
        database_probe,
        bodies,
        answers,
        documents: &openapi::DOCUMENTS,
        export_budget: export_budget(),
    }))
}

/// The reader of request bodies. It takes a batch only if the ledger has room for its records.
fn body_reader(config: &Config, ledger: Ledger) -> BodyReader {
    let has_room = move |tenant_id, bytes| ledger.has_room(tenant_id, bytes, BATCH_RECORDS_MAX);
    BodyReader {
        limits: BodyLimits {
            deadline: config.server.body_seconds.seconds(),
            budget: ByteBudget::new(config.memory.body_bytes_max_total.to_usize()),
        },
        pool: WorkPool::default(),
        has_room: Box::new(has_room),
    }
}

fn large_answers(memory: &MemorySettings, store: Arc<dyn Store>) -> LargeAnswers {
    let budgets = AnswerBudgets {
        tenants: ByteBudget::new(memory.answer_bytes_max_total.to_usize()),
        operator: ByteBudget::undivided(OPERATOR_ANSWER_BYTES_MAX),
        anonymous: ByteBudget::undivided(ANONYMOUS_ANSWER_BYTES_MAX),
    };
    LargeAnswers { store, pool: WorkPool::default(), budgets }
}

/// The configured issuers. The machine's certificate authorities are loaded only if needed.
fn issuers(oidc: &OidcSettings) -> Result<Issuers, StartError> {
    if oidc.issuers.is_empty() {
        return Ok(Issuers::default());
    }
    let outbound = Outbound::new(outbound::native_roots(), outbound::DEADLINE)?;
    Ok(Issuers::new(oidc.issuers.clone(), oidc.token_seconds_max.to_u32(), outbound))
}

/// Refuses to create a secret key for an existing database.
///
/// The first start creates the key before the database.
fn refuse_lost_secret(
    folder: &Path,
    configured: Option<&Secret>,
    path: &Path,
) -> Result<(), StartError> {
    let file = folder.join(SECRET_KEY);
    let mut head = [0; SQLITE_HEAD.len()];
    let read = std::fs::File::open(path).and_then(|mut db| db.read_exact(&mut head));
    let is_made = read.is_ok() && head == *SQLITE_HEAD;
    if is_made && configured.is_none() && !file.exists() {
        return Err(StartError::SecretKeyLost(file, path.to_owned()));
    }
    Ok(())
}

/// The clock for tests of the real process. `None` in production.
///
/// `BURSAR_TEST_CLOCK_FILE` names a file with the seconds to add to this machine's clock.
pub(crate) fn test_clocks() -> Option<Clocks> {
    let path = std::env::var_os("BURSAR_TEST_CLOCK_FILE").filter(|path| !path.is_empty())?;
    Some(Clocks::new(Arc::new(move || shifted_now(Path::new(&path))), system_boot()))
}

fn shifted_now(path: &Path) -> Timestamp {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let seconds: i64 = text.trim().parse().unwrap_or(0);
    let micros = timestamps::system_now().micros() + seconds * 1_000_000;
    Timestamp::from_micros(micros).unwrap_or_else(timestamps::system_now)
}
