//! `bursar db`: verify and migrate the store; back up and restore its file.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bursar_store::{
    BackupInfo, ExistingTarget, OpenError, PostgresStore, SqliteStore, VerifyReport,
};
use clap::{Args, Subcommand};
use indicatif::{HumanBytes, ProgressBar};

use super::command_error::CommandError;
use super::output::Printer;
use super::runtime::runtime;
use super::schema;
use crate::auth::secret::{Secret, SecretKey};
use crate::cli::progress::progress;
use crate::cli::terminal;
use crate::cli::terminal::{print_error_line, print_line, print_lines};
use crate::config::data_dir;
use crate::config::data_dir::{SECRET_KEY, read_secret, write_private};
use crate::config::database::Database;
use crate::config::settings::Config;
use crate::http::shutdown_requested;
use crate::wire::timestamps;

#[derive(Args)]
pub(super) struct DbArguments {
    /// The data folder. Overrides BURSAR_DATA_DIR
    #[arg(long, value_name = "FOLDER", global = true)]
    pub(super) data_dir: Option<PathBuf>,
    /// sqlite:PATH or postgres://... Overrides BURSAR_DATABASE
    #[arg(long, value_name = "URL", global = true)]
    pub(super) database: Option<String>,
    #[command(subcommand)]
    command: DbCommand,
}

#[derive(Subcommand)]
enum DbCommand {
    /// Recompute counters and rollups from the entries and report every difference. To check the
    /// audit log, which needs the secret key, use `bursar audit verify`
    Verify {
        /// Verify this backup instead of the store
        file: Option<PathBuf>,
    },
    /// Migrate the schema of PostgreSQL. Run it as the role that owns the tables. A SQLite file is
    /// migrated by each start
    Migrate {
        /// Grant the use of the tables to this role of the servers, which must not own them
        #[arg(long, value_name = "NAME")]
        app_role: Option<String>,
    },
    /// Show the version of the schema and what to do. Exits with 0 if this binary can use it
    Status(Printer),
    /// Copy the store to a file as of one instant, even while the server writes
    Backup(BackupArguments),
    /// Replace the store with a backup. Stop the server first
    Restore(RestoreArguments),
}

#[derive(Args)]
struct BackupArguments {
    /// The file to write
    file: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
    /// Verify the whole backup as `bursar db verify` does
    #[arg(long)]
    verify: bool,
    /// Write the secret key to FILE.secret-key. Keep both safe: together they allow guessing keys
    /// offline
    #[arg(long)]
    with_secret_key: bool,
}

#[derive(Args)]
struct RestoreArguments {
    file: PathBuf,
    /// Replace an existing store. It is kept as bursar.db.before-restore-TIME
    #[arg(long)]
    force: bool,
    /// The secret key of the backup, if the data folder has none or another one
    #[arg(long, value_name = "FILE")]
    secret_key: Option<PathBuf>,
}

pub(super) fn run(config: &Config, arguments: DbArguments) -> Result<ExitCode, CommandError> {
    match arguments.command {
        DbCommand::Verify { file } => match (&file, &config.database()) {
            (Some(file), _) | (None, Database::File(file)) => verify(file),
            (None, Database::Postgres(database)) => {
                print_verified(&PostgresStore::verify(database.url()?.expose())??)
            }
        },
        DbCommand::Migrate { app_role } => {
            schema::migrate(config, app_role.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
        DbCommand::Status(printer) => schema::status(config, printer),
        DbCommand::Backup(arguments) => backup(config, &own_file(config)?, &arguments),
        DbCommand::Restore(arguments) => {
            restore(config, &own_file(config)?, &arguments)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The file of the embedded store. This binary copies no other database.
fn own_file(config: &Config) -> Result<PathBuf, CommandError> {
    Ok(config.database().file().map(Path::to_owned).ok_or(
        "bursar does not back up or restore PostgreSQL. Use pg_basebackup with an archive of the \
         log, which restores any instant, or pg_dump as a superuser or a role with BYPASSRLS (see \
         docs/operating.md). Keep BURSAR_SECRET_KEY too",
    )?)
}

fn verify(file: &Path) -> Result<ExitCode, CommandError> {
    print_verified(&SqliteStore::verify(file)??)
}

fn print_verified(verified: &VerifyReport) -> Result<ExitCode, CommandError> {
    let mut text = String::new();
    for sentence in &verified.differences.listed {
        text.push_str(&terminal::line(sentence));
        text.push('\n');
    }
    print_lines(&format!(
        "{text}{} entries, {} open reservations, {} counters, {} rollups: {} differences\n",
        verified.entries,
        verified.open_reservations,
        verified.counters,
        verified.rollups,
        verified.differences.count
    ))?;
    Ok(if verified.differences.count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn backup(
    config: &Config,
    store: &Path,
    arguments: &BackupArguments,
) -> Result<ExitCode, CommandError> {
    let BackupArguments { file, force, verify: then_verify, with_secret_key } = arguments;
    let secret_key = with_secret_key.then(|| known_secret(config)).transpose()?;
    let secret_file = with_ending(file, ".secret-key");
    if secret_key.is_some() && !force && secret_file.exists() {
        return Err(already_there(&secret_file));
    }
    let existing = if *force { ExistingTarget::Replace } else { ExistingTarget::Keep };
    let (since, instant) = (Instant::now(), timestamps::text(timestamps::system_now()));
    let made = watched(|watch| {
        SqliteStore::backup(store, file, existing, watch).map_err(CommandError::from)
    })?;
    let BackupInfo { bytes, entries, .. } = made;
    print_line(&format!(
        "{}: {}, {entries} entries, as of {instant}, in {:.1} s",
        file.display(),
        HumanBytes(bytes),
        since.elapsed().as_secs_f64()
    ))?;
    match secret_key {
        Some(secret) => {
            write_private(&secret_file, secret.expose())?;
            print_line(&format!("{}: secret key", secret_file.display()))?;
        }
        None => print_error_line(&format!(
            "The backup does not contain the secret key. Keep {} (or BURSAR_SECRET_KEY) too: \
             without it no key in the backup works.",
            config.storage.data_dir.join(SECRET_KEY).display()
        )),
    }
    if *then_verify { verify(file) } else { Ok(ExitCode::SUCCESS) }
}

fn restore(
    config: &Config,
    store: &Path,
    arguments: &RestoreArguments,
) -> Result<(), CommandError> {
    let RestoreArguments { file, force, secret_key } = arguments;
    data_dir::create(&config.storage.data_dir)?;
    let existing = if *force { ExistingTarget::Replace } else { ExistingTarget::Keep };
    let since = Instant::now();
    let restore = watched(|watch| {
        SqliteStore::restore(file, store, existing, watch).map_err(CommandError::from)
    })?;
    let new_secret = check_secret(config, secret_key.as_deref(), existing, |fingerprint| {
        restore.check_secret(file, fingerprint)
    })?;
    let ending = format!(".before-restore-{}", file_timestamp());
    // Everything that leaves the old store usable comes first, then the key, then one rename.
    let aside = restore.set_aside(&with_ending(store, &ending))?;
    if let Some(secret) = new_secret {
        let path = config.storage.data_dir.join(SECRET_KEY);
        if let Some(known) = read_secret(&config.storage.data_dir, SECRET_KEY)? {
            write_private(&with_ending(&path, &ending), known.expose())?;
        }
        write_private(&path, secret.expose())?;
    }
    let BackupInfo { bytes, entries, .. } = restore.publish()?;
    print_line(&format!(
        "{} restored: {}, {entries} entries, in {:.1} s",
        store.display(),
        HumanBytes(bytes),
        since.elapsed().as_secs_f64()
    ))?;
    if let Some(aside) = aside {
        print_line(&format!("The previous store is kept as {}", aside.display()))?;
    }
    Ok(())
}

/// Finds the secret key that fits the backup. Returns it if it must be written to the folder.
fn check_secret(
    config: &Config,
    brought: Option<&Path>,
    existing: ExistingTarget,
    fits: impl Fn(&str) -> Result<(), OpenError>,
) -> Result<Option<Secret>, CommandError> {
    let check = |secret: &Secret| -> Result<(), CommandError> {
        Ok(fits(SecretKey::derive(secret)?.fingerprint())?)
    };
    if let Some(configured) = &config.secrets.secret_key {
        if brought.is_some() {
            return Err(
                "--secret-key has no effect, because BURSAR_SECRET_KEY is set: change that instead"
                    .into(),
            );
        }
        check(configured)?;
        return Ok(None);
    }
    let known = read_secret(&config.storage.data_dir, SECRET_KEY)?;
    let Some(path) = brought else {
        let path = config.storage.data_dir.join(SECRET_KEY);
        let known = known.ok_or_else(|| {
            let path = path.display();
            format!(
                "{path} does not exist: give the secret key of the backup with --secret-key FILE"
            )
        })?;
        check(&known).map_err(|error| format!("{error}; or give it with --secret-key FILE"))?;
        return Ok(None);
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let secret = Secret::new(text.trim().to_owned());
    check(&secret)?;
    match known {
        Some(known) if known.expose() == secret.expose() => Ok(None),
        Some(_) if existing == ExistingTarget::Keep => {
            Err(already_there(&config.storage.data_dir.join(SECRET_KEY)))
        }
        Some(_) | None => Ok(Some(secret)),
    }
}

/// The secret key of a folder, found as the server finds it.
pub(super) fn known_secret(config: &Config) -> Result<Secret, CommandError> {
    if let Some(secret) = &config.secrets.secret_key {
        return Ok(secret.clone());
    }
    let path = config.storage.data_dir.join(SECRET_KEY);
    let missing =
        || format!("{} does not exist: restore it, or set BURSAR_SECRET_KEY", path.display());
    Ok(read_secret(&config.storage.data_dir, SECRET_KEY)?.ok_or_else(missing)?)
}

/// Runs a long copy with a progress bar. Stops when a signal asks for it.
fn watched<T>(
    work: impl FnOnce(bursar_store::CopyProgress<'_>) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let asked = Arc::new(AtomicBool::new(false));
    let runtime = runtime()?;
    let (end, told) = (
        {
            let _in = runtime.enter();
            shutdown_requested()?
        },
        Arc::clone(&asked),
    );
    runtime.spawn(async move {
        end.await;
        told.store(true, Ordering::Relaxed);
    });
    let bar: ProgressBar = progress(0);
    let done = work(&mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        if asked.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    bar.finish_and_clear();
    done
}

fn already_there(path: &Path) -> CommandError {
    format!("{} already exists; add --force to replace it", path.display()).into()
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The current time for a file name: 20261120T130039.123456Z.
fn file_timestamp() -> String {
    let text = timestamps::text(timestamps::system_now());
    text.chars().filter(|letter| !"-:".contains(*letter)).collect()
}
