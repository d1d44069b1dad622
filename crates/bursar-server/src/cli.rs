//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use bursar_store::SqliteStore;
use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::import::ImportArguments;
use crate::{dev, import, start};

/// Meters, budgets and guards the model calls that software makes with its customers' keys.
#[derive(Parser)]
#[command(name = "bursar", version)]
struct Arguments {
    /// A configuration file (TOML); the environment overrides it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until asked to stop (SIGTERM, Ctrl-C).
    Serve {
        /// Address and port to listen on, over BURSAR_LISTEN.
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<String>,
        /// The data folder, over BURSAR_DATA_DIR.
        #[arg(long, value_name = "FOLDER")]
        data_dir: Option<PathBuf>,
        /// sqlite:<path>, over BURSAR_DATABASE.
        #[arg(long, value_name = "URL")]
        database: Option<String>,
    },
    /// Serve with a tenant, an integration and keys made once, and print how to try them.
    Dev {
        /// Address and port to listen on, over BURSAR_LISTEN.
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<String>,
        /// The data folder, over BURSAR_DATA_DIR.
        #[arg(long, value_name = "FOLDER")]
        data_dir: Option<PathBuf>,
    },
    /// Usage records in bulk.
    #[command(subcommand)]
    Usage(Usage),
    /// The store's file.
    #[command(subcommand)]
    Db(Db),
}

#[derive(Subcommand)]
enum Db {
    /// Count counters and rollups again from the entries, and report every difference.
    Verify {
        /// The data folder, over BURSAR_DATA_DIR.
        #[arg(long, value_name = "FOLDER")]
        data_dir: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum Usage {
    /// Import usage records from CSV with a header, or NDJSON; importing twice changes nothing.
    Import(Box<ImportArguments>),
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bursar: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let flags = |listen: Option<String>, data_dir: Option<PathBuf>, database: Option<String>| {
        let data_dir = data_dir.map(|folder| folder.to_string_lossy().into_owned());
        let named = [
            ("BURSAR_LISTEN", listen),
            ("BURSAR_DATA_DIR", data_dir),
            ("BURSAR_DATABASE", database),
        ];
        let given = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        // Later ones win, so the command line overrides the environment.
        let plain = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let environment = std::env::vars_os().filter_map(plain).chain(given);
        Config::load(arguments.config.as_deref(), environment)
    };
    match arguments.command {
        Command::Serve { listen, data_dir, database } => {
            serve(&flags(listen, data_dir, database)?)?;
        }
        Command::Dev { listen, data_dir } => serve_dev(&flags(listen, data_dir, None)?)?,
        Command::Usage(Usage::Import(import)) => {
            let config = flags(None, import.data_dir.clone(), None)?;
            return Ok(import::run(&config, *import)?);
        }
        Command::Db(Db::Verify { data_dir }) => return verify(&flags(None, data_dir, None)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(config: &Config) -> Result<(), Failure> {
    log_to_stderr(&config.log)?;
    runtime()?.block_on(async {
        let app = start::open(config, start::clock())?;
        start::run(config, app, |_| {}).await.map_err(Failure::from)
    })
}

fn serve_dev(config: &Config) -> Result<(), Failure> {
    log_to_stderr(&config.log)?;
    runtime()?.block_on(async {
        let app = start::open(config, start::clock())?;
        let made = dev::prepare(config, &app).await?;
        start::run(config, app, |address| made.print(address)).await.map_err(Failure::from)
    })
}

fn verify(config: &Config) -> Result<ExitCode, Failure> {
    let verified = SqliteStore::verify(&config.database)??;
    for sentence in &verified.told {
        println!("{sentence}");
    }
    println!(
        "{} entries, {} open reservations, {} counters, {} rollups: {} differences",
        verified.entries,
        verified.open_reservations,
        verified.counters,
        verified.rollups,
        verified.differences
    );
    Ok(if verified.differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn log_to_stderr(filter: &str) -> Result<(), Failure> {
    // What clients do wrong is said at their pace: an attack must not fill the log.
    let quiet = format!("h2=error,{filter}");
    let filter = tracing_subscriber::EnvFilter::try_new(quiet)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}
