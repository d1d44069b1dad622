//! From a configuration to a running server, and back.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bursar_core::Timestamp;
use bursar_store::{Clock, Ledger, OpenError, SqliteStore};
use tokio::net::TcpListener;

use crate::app::{App, Parts};
use crate::config::{Config, is_strong};
use crate::data_dir::{self, ADDRESS, OPERATOR_TOKEN, SECRET_KEY};
use crate::instant;
use crate::router::router;
use crate::secret::SecretKey;
use crate::serve::{Listening, end_asked, reachable, serve};

/// How often reservations whose time is over are ended.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

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
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// Which address.
        address: String,
        /// What the system said.
        cause: std::io::Error,
    },
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
    let configured = |secret: &Option<crate::secret::Secret>, file: &str| match secret {
        Some(secret) => Ok(crate::secret::Secret::new(secret.expose().to_owned())),
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
    let ledger = Ledger::start(lane).map_err(StartError::System)?;
    Ok(App::new(Parts {
        store,
        ledger,
        secret_key,
        operator_token,
        allowed_prefixes: config.allowed_prefixes.clone(),
        key_cache: crate::auth::KeyCache::default(),
    }))
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
pub async fn run(
    config: &Config,
    app: App,
    ready: impl FnOnce(std::net::SocketAddr),
) -> Result<(), StartError> {
    let end = end_asked().map_err(StartError::System)?;
    let refused = |cause| StartError::Listen { address: config.listen.clone(), cause };
    let listener = TcpListener::bind(&config.listen).await.map_err(refused)?;
    let address = reachable(listener.local_addr().map_err(refused)?);
    let address_file = config.data_dir.join(ADDRESS);
    if let Err(error) = data_dir::write_private(&address_file, &format!("http://{address}")) {
        tracing::warn!(%error, "the command line will not find this server by itself");
    }
    let sweeper = tokio::spawn(sweep(app.clone()));
    tracing::info!(%address, database = %config.database.display(), "bursar listens");
    if config.operator_token.is_none() {
        let file = config.data_dir.join(OPERATOR_TOKEN);
        tracing::info!(file = %file.display(), "the operator's token is in this file");
    }
    ready(address);
    let listening = Listening {
        connections_max: config.connections_max,
        drain: Duration::from_secs(config.drain_seconds),
    };
    let until = async {
        tokio::select! {
            () = end => {}
            () = app.ledger.ended() => {}
        }
    };
    serve(listener, router(app.clone()), listening, until).await;
    if app.ledger.has_ended() {
        return Err(StartError::WriterEnded);
    }
    tracing::info!("draining");
    sweeper.abort();
    app.ledger.close().await;
    // The next server writes its own; a stale one only costs a failed connection.
    let _ = std::fs::remove_file(address_file);
    tracing::info!("stopped");
    Ok(())
}

async fn sweep(app: App) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = app.ledger.sweep().await {
            tracing::warn!(%error, "reservations were not swept; they count no more all the same");
        }
    }
}
