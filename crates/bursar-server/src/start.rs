//! From a configuration to a running server, and back.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_core::Timestamp;
use bursar_store::{Clock, Ledger, Observer, OpenError, SqliteStore};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{App, Parts};
use crate::config::{Config, is_strong};
use crate::data_dir::{self, ADDRESS, OPERATOR_TOKEN, SECRET_KEY};
use crate::doorway::Listener;
use crate::instant;
use crate::metrics::Metrics;
use crate::router::{operator_router, public_router, router};
use crate::secret::{Secret, SecretKey};
use crate::serve::tls::{Certificates, TlsError};
use crate::serve::{Entrance, end_asked, listen, reachable, serve};

/// How often reservations whose time is over are ended.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How often the gauges that come from the store are read, when that is quickly done.
const STOCK_EVERY: Duration = Duration::from_secs(15);
/// How every database of SQLite begins.
const SQLITE_HEAD: &[u8; 16] = b"SQLite format 3\0";

/// Why the server does not start, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] data_dir::DataDirError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The secret key is not good.
    #[error("{0}")]
    SecretKey(&'static str),
    /// The database is there, and the secret key that it was made with is not.
    #[error(
        "{0} is missing, without which no key of {1} works: put it back, or give its text as \
         BURSAR_SECRET_KEY"
    )]
    SecretKeyLost(std::path::PathBuf, std::path::PathBuf),
    /// The file of the operator's token does not hold one.
    #[error("{0} must hold at least 16 characters; delete it, and a new one is made")]
    OperatorToken(std::path::PathBuf),
    /// The writer ended by itself, which only a fault in it can bring about.
    #[error("the writer stopped; start again, and report what the log says before this")]
    WriterEnded,
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Which address.
        address: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A metric is not well formed, which only a fault in their table can bring about.
    #[error("the metrics cannot be made: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The system refused a thread or a signal.
    #[error("cannot start: {0}")]
    System(std::io::Error),
}

/// Opens the store and starts its writer.
///
/// # Errors
/// [`StartError`].
pub fn open(config: &Config, clock: Clock) -> Result<App, StartError> {
    data_dir::create(&config.data_dir)?;
    let configured = |secret: &Option<Secret>, file: &str| match secret {
        Some(secret) => Ok(copied(secret)),
        None => data_dir::secret(&config.data_dir, file),
    };
    refuse_lost_secret(config)?;
    let secret_key = SecretKey::derive(&configured(&config.secret_key, SECRET_KEY)?)
        .map_err(StartError::SecretKey)?;
    let operator_token = configured(&config.operator_token, OPERATOR_TOKEN)?;
    if !is_strong(&operator_token) {
        return Err(StartError::OperatorToken(config.data_dir.join(OPERATOR_TOKEN)));
    }
    let (store, lane) = SqliteStore::open(&config.database, clock, secret_key.fingerprint())?;
    let metrics = Arc::new(Metrics::new()?);
    let observer = Arc::clone(&metrics) as Arc<dyn Observer>;
    let ledger = Ledger::start(vec![lane], observer).map_err(StartError::System)?;
    Ok(App::new(Parts {
        store,
        ledger,
        secret_key,
        operator_token,
        metrics_token: config.metrics_token.as_ref().map(copied),
        metrics,
        allowed_prefixes: config.allowed_prefixes.clone(),
        key_cache: crate::auth::KeyCache::default(),
        decision_log: crate::decision_log::DecisionLog::default(),
        body_limits: config.body_limits.clone(),
        answer_budget: config.answer_budget.clone(),
    }))
}

fn copied(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_owned())
}

/// Refuses to make a secret key for a database that was made with another: the first start makes
/// the key before the database.
fn refuse_lost_secret(config: &Config) -> Result<(), StartError> {
    let file = config.data_dir.join(SECRET_KEY);
    let mut head = [0; SQLITE_HEAD.len()];
    let read = std::fs::File::open(&config.database).and_then(|mut db| db.read_exact(&mut head));
    let is_made = read.is_ok() && head == *SQLITE_HEAD;
    if is_made && config.secret_key.is_none() && !file.exists() {
        return Err(StartError::SecretKeyLost(file, config.database.clone()));
    }
    Ok(())
}

/// The clock of a server: the system's.
///
/// For tests of the real process, `BURSAR_TEST_CLOCK_FILE` names a file with seconds to add.
pub fn clock() -> Clock {
    match std::env::var_os("BURSAR_TEST_CLOCK_FILE") {
        None => Arc::new(instant::system_now),
        Some(path) => Arc::new(move || shifted(Path::new(&path))),
    }
}

fn shifted(path: &Path) -> Timestamp {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let seconds: i64 = text.trim().parse().unwrap_or(0);
    let micros = instant::system_now().micros() + seconds * 1_000_000;
    Timestamp::from_micros(micros).unwrap_or_else(instant::system_now)
}

/// Serves an app until the process is asked to end; then drains, and returns when all that was
/// taken is stored.
///
/// # Errors
/// [`StartError`].
pub async fn run(config: &Config, app: App, ready: impl FnOnce(&str)) -> Result<(), StartError> {
    let end = end_asked().map_err(StartError::System)?;
    let certificates = config.tls_files.clone().map(Certificates::load).transpose()?.map(Arc::new);
    let (entrances, address) = enter(config, &app).await?;
    let scheme = if certificates.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}");
    let address_file = config.data_dir.join(ADDRESS);
    if let Err(error) = data_dir::write_private(&address_file, &url) {
        tracing::warn!(%error, "the command line will not find this server by itself");
    }
    if let Some(certificates) = &certificates {
        let hangup = signal(SignalKind::hangup()).map_err(StartError::System)?;
        tokio::spawn(Arc::clone(certificates).follow(hangup));
    }
    let sweeper = tokio::spawn(sweep(app.clone()));
    let watcher = tokio::spawn(watch_stock(app.clone()));
    tracing::info!(%address, database = %config.database.display(), "bursar listens");
    if config.operator_token.is_none() {
        let file = config.data_dir.join(OPERATOR_TOKEN);
        tracing::info!(file = %file.display(), "the operator's token is in this file");
    }
    ready(&url);
    let until = async {
        tokio::select! {
            () = end => {}
            () = app.ledger.ended() => {}
        }
    };
    serve(entrances, config.limits.clone(), certificates, until).await;
    if app.ledger.has_ended() {
        return Err(StartError::WriterEnded);
    }
    tracing::info!("draining");
    sweeper.abort();
    watcher.abort();
    keep_decisions(&app).await;
    app.ledger.close().await;
    // The next server writes its own; a stale one only costs a failed connection.
    let _ = std::fs::remove_file(address_file);
    tracing::info!("stopped");
    Ok(())
}

/// Listens where the configuration says, and tells under which address tenants reach it.
async fn enter(
    config: &Config,
    app: &App,
) -> Result<(Vec<Entrance>, std::net::SocketAddr), StartError> {
    let bind = async |address: &String| {
        let refused = |cause| StartError::Listen { address: address.clone(), cause };
        let listener = listen(address).await.map_err(refused)?;
        let at = reachable(listener.local_addr().map_err(refused)?);
        Ok::<_, StartError>((listener, at))
    };
    let (listener, address) = bind(&config.listen).await?;
    let Some(operator_listen) = &config.operator_listen else {
        let router = router(app.clone());
        return Ok((vec![Entrance { listener, router, kind: Listener::Public }], address));
    };
    let router = public_router(app.clone());
    let public = Entrance { listener, router, kind: Listener::Public };
    let (listener, at) = bind(operator_listen).await?;
    tracing::info!(address = %at, "the operator's routes are here only");
    let router = operator_router(app.clone());
    let operator = Entrance { listener, router, kind: Listener::Operator };
    Ok((vec![public, operator], address))
}

async fn sweep(app: App) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = app.ledger.sweep().await {
            tracing::warn!(%error, "reservations were not swept; they count no more all the same");
        }
        keep_decisions(&app).await;
    }
}

async fn keep_decisions(app: &App) {
    if let Err(error) = app.decision_log.write(&app.ledger).await {
        tracing::warn!(%error, "refusals and warnings of the last second were not kept");
    }
}

/// Reads the gauges of the store now and then, for as long as the server lives.
async fn watch_stock(app: App) {
    loop {
        let began = Instant::now();
        if let Err(error) = app.metrics.read_stock(app.store.as_ref()).await {
            tracing::warn!(%error, "the metrics of what is stored were not read");
        }
        // A store that is so large that it takes long is asked less often.
        tokio::time::sleep(STOCK_EVERY.max(began.elapsed() * 20)).await;
    }
}
