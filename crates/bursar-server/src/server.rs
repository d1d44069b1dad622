//! Starts the server from a configuration, runs it, and shuts it down.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_core::Timestamp;
use bursar_store::{
    Clock, Clocks, Ledger, Observer, OpenError, OpenPostgresError, PostgresOptions, PostgresStore,
    SqliteStore, Store, Swept, WriterConnection, system_boot,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::app::{App, Parts};
use crate::auth::authenticator::Authenticator;
use crate::auth::failed_logins::FailedLogins;
use crate::auth::key_cache::KeyCache;
use crate::auth::oidc::Issuers;
use crate::auth::onboarding::Onboarding;
use crate::auth::secret::{Secret, SecretKey, is_strong};
use crate::cli::dev;
use crate::config::data_dir;
use crate::config::data_dir::{ADDRESS, OPERATOR_TOKEN, SECRET_KEY};
use crate::config::database::{Database, PasswordError, PostgresDatabase};
use crate::config::sections::listener::ListenerSettings;
use crate::config::sections::memory::MemorySettings;
use crate::config::sections::oidc::OidcSettings;
use crate::config::sections::secrets::SecretSettings;
use crate::config::sections::storage::StorageSettings;
use crate::config::settings::Config;
use crate::config::values::BearerToken;
use crate::credentials::raw_key;
use crate::http::answer_memory::LargeAnswers;
use crate::http::export::export_budget;
use crate::http::memory_budget::{AnswerBudgets, BodyLimits, ByteBudget};
use crate::http::outbound;
use crate::http::outbound::Outbound;
use crate::http::request_extensions::ListenerKind;
use crate::http::tls::{Certificates, TlsError};
use crate::http::work_pool::WorkPool;
use crate::http::{Listener, connectable_address, listen, serve, shutdown_requested};
use crate::jobs::background::{RESTART_AFTER, keep_running};
use crate::jobs::database_probe;
use crate::jobs::database_probe::DatabaseProbe;
use crate::jobs::decision_log::decision_log;
use crate::jobs::key_uses::KeyUses;
use crate::jobs::monotonic_clock::MonotonicClock;
use crate::jobs::write_probe;
use crate::observe::metrics::Metrics;
use crate::openapi;
use crate::protection::Protector;
use crate::router::{API, operator_router, public_router, router};
use crate::wire::body::{BATCH_RECORDS_MAX, BodyReader};
use crate::wire::timestamps;

/// How often expired reservations are swept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often the last use of keys is written.
const KEY_USES_EVERY: Duration = Duration::from_secs(30);

/// How often the store's statistics are read, if that is fast.
const STORE_STATS_EVERY: Duration = Duration::from_secs(15);
/// The memory of large responses to the operator, and to unauthenticated callers.
const OPERATOR_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
const ANONYMOUS_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The connections of a command to a shared database.
const COMMAND_WRITERS: usize = 1;
const COMMAND_READERS: usize = 2;
/// The first bytes of every SQLite database.
const SQLITE_HEAD: &[u8; 16] = b"SQLite format 3\0";

/// Why the server does not start, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] data_dir::DataDirError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The shared database cannot be used.
    #[error(transparent)]
    Postgres(#[from] OpenPostgresError),
    /// The password of the database cannot be read.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The secret key of a node is missing.
    #[error(
        "on PostgreSQL the secret key is required: give every node the same BURSAR_SECRET_KEY, at \
         least 32 bytes (openssl rand -hex 32), and keep it as safe as the database"
    )]
    NoSecretKey,
    /// The operator token of a node is missing.
    #[error(
        "on PostgreSQL the operator's token is required: give every node the same \
         BURSAR_OPERATOR_TOKEN (echo \"bur_operator_$(openssl rand -hex 24)\")"
    )]
    NoOperatorToken,
    /// The secret key is invalid.
    #[error("{0}")]
    SecretKey(&'static str),
    /// The database exists, but its secret key is missing.
    #[error(
        "{0} is missing, without which no key of {1} works: put it back, or give its text as \
         BURSAR_SECRET_KEY"
    )]
    SecretKeyLost(PathBuf, PathBuf),
    /// The file with the operator token is invalid.
    #[error("{0} must hold at least 16 characters; delete it, and a new one is made")]
    OperatorToken(PathBuf),
    /// The writer stopped, which only a bug can cause.
    #[error("the writer stopped; start again, and report what the log says before this")]
    WriterEnded,
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server cannot listen on the address.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        address: String,
        /// The error of the system.
        cause: io::Error,
    },
    /// A metric is malformed, which only a bug can cause.
    #[error("the metrics cannot be made: {0}")]
    Metrics(#[from] prometheus::Error),
    /// TLS for outbound requests does not work, which only a faulty build can cause.
    #[error("requests to others cannot be made: {0}")]
    Outbound(#[from] rustls::Error),
    /// The system refused a thread or a signal handler.
    #[error("cannot start: {0}")]
    System(io::Error),
}

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
    Ok(App::new(Parts {
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

/// Serves an app until shutdown. Returns when everything that was accepted is stored.
///
/// # Errors
/// [`StartError`].
pub(crate) async fn run(
    config: &Config,
    app: App,
    ready: impl FnOnce(&str),
) -> Result<(), StartError> {
    let end = shutdown_requested().map_err(StartError::System)?;
    warn_of_open_files(config);
    warn_of_unknown_token(&app);
    let certificates = config.tls.files().map(Certificates::load).transpose()?.map(Arc::new);
    let (listeners, address) = bind_listeners(&config.listener, &app).await?;
    let scheme = if certificates.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}");
    let address_file = write_address_file(config, &url);
    if let Some(certificates) = &certificates {
        let hangup = signal(SignalKind::hangup()).map_err(StartError::System)?;
        tokio::spawn(Arc::clone(certificates).follow(hangup));
    }
    let background = [
        run_beside("database probe", &app, probe_database),
        run_beside("write probe", &app, probe_writes),
        run_beside("store stats", &app, read_store_stats),
        run_beside("keys", &app, save_key_uses_periodically),
    ];
    let sweeper = run_beside("sweep", &app, sweep);
    let trusting = app.clone();
    tokio::spawn(async move { trusting.issuers.fetch_keys(trusting.store.now()).await });
    tracing::info!(%address, database = %config.database(), "bursar listens");
    if config.secrets.operator_token.is_none() {
        let file = config.storage.data_dir.join(OPERATOR_TOKEN);
        tracing::info!(file = %file.display(), "the operator's token is in this file");
    }
    ready(&url);
    let until = async {
        tokio::select! {
            () = end => {}
            () = app.ledger.ended() => {}
        }
    };
    serve(listeners, config.server.limits(), certificates, until).await;
    if app.ledger.has_ended() {
        return Err(StartError::WriterEnded);
    }
    tracing::info!("draining");
    sweeper.abort();
    app.failed_logins.log_all();
    for job in background {
        job.abort();
    }
    if is_database_unavailable(&app) {
        // All waiting requests were answered 503. Waiting for the database would outlast the
        // supervisor.
        tracing::warn!("the database is away: what waited for it was answered 503");
    } else {
        save_decisions(&app).await;
        save_key_uses(&app).await;
        app.ledger.close().await;
    }
    // The next server writes its own. A stale file only costs a failed connection.
    if let Some(file) = address_file {
        let _ = std::fs::remove_file(file);
    }
    tracing::info!("stopped");
    Ok(())
}

/// Runs a background job until the server ends.
fn run_beside<Job>(name: &'static str, app: &App, job: fn(App) -> Job) -> JoinHandle<()>
where
    Job: Future<Output = ()> + Send + 'static,
{
    let app = app.clone();
    tokio::spawn(keep_running(name, RESTART_AFTER, move || job(app.clone())))
}

/// Warns about files that other users can read or change, with a command that fixes it.
///
/// The permissions are not changed, because they may be intended.
fn warn_of_open_files(config: &Config) {
    let folder = &config.storage.data_dir;
    let secrets = [OPERATOR_TOKEN, SECRET_KEY, dev::FILE].map(|name| folder.join(name));
    let store = config.database().file().map(SqliteStore::files).unwrap_or_default();
    let paths = [folder.clone()].into_iter().chain(secrets).chain(store);
    let open = data_dir::open_to_others(paths);
    if !open.is_empty() {
        let words: Vec<String> = open.iter().map(|path| data_dir::shell_word(path)).collect();
        let command = format!("chmod go-rwx {}", words.join(" "));
        tracing::warn!(%command, "others on this machine can read the data; this command ends it");
    }
}

/// Warns about an operator token that Bursar would not recognise in the wrong place.
fn warn_of_unknown_token(app: &App) {
    if !raw_key::is_operator_token(app.operator_token.expose()) {
        tracing::warn!(
            "the operator's token is good, but has not the form by which it is refused in fields \
             and taken out of error messages; this makes one that has: \
             echo \"bur_operator_$(openssl rand -hex 24)\""
        );
    }
}

/// Writes the address of the server to the data folder, where the command line finds it.
///
/// A node on PostgreSQL needs no data folder; if it has one, the address is written there.
fn write_address_file(config: &Config, url: &str) -> Option<PathBuf> {
    if config.database().file().is_none() && !config.storage.data_dir.is_dir() {
        return None;
    }
    let file = config.storage.data_dir.join(ADDRESS);
    if let Err(error) = data_dir::write_private(&file, url) {
        tracing::warn!(%error, "the command line will not find this server by itself");
    }
    Some(file)
}

/// Binds the configured addresses. Returns the listeners and the public address.
async fn bind_listeners(
    settings: &ListenerSettings,
    app: &App,
) -> Result<(Vec<Listener>, std::net::SocketAddr), StartError> {
    let bind = async |address: &String| {
        let refused = |cause| StartError::Listen { address: address.clone(), cause };
        let listener = listen(address).await.map_err(refused)?;
        let at = connectable_address(listener.local_addr().map_err(refused)?);
        Ok::<_, StartError>((listener, at))
    };
    let (listener, address) = bind(&settings.listen).await?;
    let Some(operator_listen) = &settings.operator_listen else {
        let router = router(app.clone());
        return Ok((
            vec![Listener { socket: listener, router, kind: ListenerKind::Public }],
            address,
        ));
    };
    let router = public_router(app.clone());
    let public = Listener { socket: listener, router, kind: ListenerKind::Public };
    let (listener, at) = bind(operator_listen).await?;
    tracing::info!(address = %at, "the operator's routes are here only");
    let router = operator_router(app.clone());
    let operator = Listener { socket: listener, router, kind: ListenerKind::Operator };
    Ok((vec![public, operator], address))
}

async fn probe_database(app: App) {
    if let Some(database_probe) = &app.database_probe {
        database_probe::run(&app.store, database_probe).await;
    }
}

async fn probe_writes(app: App) {
    write_probe::run(app.store.as_ref(), &app.ledger, app.database_probe.as_ref()).await;
}

async fn sweep(app: App) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut swept = Swept::All;
    loop {
        if swept == Swept::All {
            ticks.tick().await;
        }
        app.failed_logins.log_due(app.monotonic_clock.elapsed());
        if is_paused(&app) {
            swept = Swept::All;
            continue;
        }
        swept = end_due_reservations(&app).await;
        if app.store.check_clock().is_err() {
            // All writes are refused. What was collected waits.
            continue;
        }
        save_decisions(&app).await;
    }
}

/// Sweeps expired reservations for up to a second. Other writes pass in between.
async fn end_due_reservations(app: &App) -> Swept {
    let began = Instant::now();
    while !is_paused(app) && began.elapsed() < SWEEP_EVERY {
        match app.ledger.sweep().await {
            Ok(Swept::More) => {}
            Ok(Swept::All) => return Swept::All,
            Err(error) => {
                tracing::warn!(%error, "reservations were not swept; they count no more anyway");
                return Swept::All;
            }
        }
    }
    Swept::More
}

/// Whether the database is unavailable. The probe logs it; other jobs stay silent.
fn is_database_unavailable(app: &App) -> bool {
    app.database_probe.as_ref().is_some_and(DatabaseProbe::is_unavailable)
}

/// Whether background writes must wait, because they would fail.
fn is_paused(app: &App) -> bool {
    is_database_unavailable(app) || app.ledger.check_writable().is_err()
}

async fn save_decisions(app: &App) {
    if let Err(error) = app.decision_log.write(&app.ledger).await {
        tracing::warn!(%error, "refusals and warnings of the last second were not kept");
    }
    if let Err(error) = app.protection.write(&app.ledger).await {
        tracing::warn!(%error, "what protection did in the last second was not kept");
    }
}

async fn save_key_uses(app: &App) {
    if let Err(error) = app.key_uses.write(&app.ledger).await {
        tracing::warn!(%error, "it was not written down when keys were used last");
    }
}

/// Saves the last use of keys periodically, as long as the server runs.
async fn save_key_uses_periodically(app: App) {
    let mut ticks = tokio::time::interval(KEY_USES_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !is_paused(&app) && app.store.check_clock().is_ok() {
            save_key_uses(&app).await;
        }
    }
}

/// Reads the store's statistics periodically, as long as the server runs.
async fn read_store_stats(app: App) {
    loop {
        let began = Instant::now();
        if !is_database_unavailable(&app)
            && let Err(error) = app.metrics.read_store_stats(app.store.as_ref()).await
        {
            tracing::warn!(%error, "the metrics of what is stored were not read");
        }
        // A large store, on which this takes long, is read less often.
        tokio::time::sleep(STORE_STATS_EVERY.max(began.elapsed() * 20)).await;
    }
}
