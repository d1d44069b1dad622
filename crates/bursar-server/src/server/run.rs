//! Runs an app: its listeners and its background jobs, from start to shutdown.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_store::{SqliteStore, SweepOutcome};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::start_error::StartError;
use crate::app::App;
use crate::cli::dev;
use crate::config::data_dir;
use crate::config::data_dir::{ADDRESS, OPERATOR_TOKEN, SECRET_KEY};
use crate::config::sections::listener::ListenerSettings;
use crate::config::settings::Config;
use crate::credentials::raw_key;
use crate::http::request_extensions::ListenerKind;
use crate::http::tls::Certificates;
use crate::http::{Listener, connectable_address, listen, serve, shutdown_requested};
use crate::jobs::background::{RESTART_AFTER, keep_running};
use crate::jobs::database_probe::DatabaseProbe;
use crate::jobs::{database_probe, write_probe};
use crate::router::{operator_router, public_router, router};

/// How often expired reservations are swept.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often the last use of keys is written.
const KEY_USES_EVERY: Duration = Duration::from_secs(30);
/// How often the store's statistics are read, if that is fast.
const STORE_STATS_EVERY: Duration = Duration::from_secs(15);

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
    tracing::info!("shutting down: no new connections are accepted");
    sweeper.abort();
    app.failed_logins.log_all();
    for job in background {
        job.abort();
    }
    if is_database_unavailable(&app) {
        // All waiting requests were answered 503. Waiting for the database would outlast the
        // supervisor.
        tracing::warn!("the database is unavailable; requests that were waiting for it got 503");
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
        tracing::warn!(
            %command,
            "other users of this machine can read the data; run this command to prevent it"
        );
    }
}

/// Warns about an operator token that Bursar would not recognise in the wrong place.
fn warn_of_unknown_token(app: &App) {
    if !raw_key::is_operator_token(app.operator_token.expose()) {
        tracing::warn!(
            "the operator's token does not have the form bur_operator_..., so Bursar cannot \
             recognise it in fields and error messages; create one with: echo \
             \"bur_operator_$(openssl rand -hex 24)\""
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
        tracing::warn!(
            %error,
            "the address file was not written; commands find this server only with --url"
        );
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
    tracing::info!(address = %at, "the operator's routes are served on this address only");
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
    let mut swept = SweepOutcome::Complete;
    loop {
        if swept == SweepOutcome::Complete {
            ticks.tick().await;
        }
        app.failed_logins.log_due(app.monotonic_clock.elapsed());
        if is_paused(&app) {
            swept = SweepOutcome::Complete;
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
async fn end_due_reservations(app: &App) -> SweepOutcome {
    let began = Instant::now();
    while !is_paused(app) && began.elapsed() < SWEEP_EVERY {
        match app.ledger.sweep().await {
            Ok(SweepOutcome::Partial) => {}
            Ok(SweepOutcome::Complete) => return SweepOutcome::Complete,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "expired reservations were not removed; they do not count, and the sweep is \
                     repeated"
                );
                return SweepOutcome::Complete;
            }
        }
    }
    SweepOutcome::Partial
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
        tracing::warn!(%error, "recent decisions could not be saved");
    }
    if let Err(error) = app.protection.write(&app.ledger).await {
        tracing::warn!(%error, "recent protection signals could not be saved");
    }
}

async fn save_key_uses(app: &App) {
    if let Err(error) = app.key_uses.write(&app.ledger).await {
        tracing::warn!(%error, "the last use of keys could not be saved");
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
            tracing::warn!(%error, "the store's statistics for the metrics could not be read");
        }
        // A large store, on which this takes long, is read less often.
        tokio::time::sleep(STORE_STATS_EVERY.max(began.elapsed() * 20)).await;
    }
}
