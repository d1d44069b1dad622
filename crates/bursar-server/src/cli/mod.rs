//! The command line.

mod atomic_file;
mod audit;
mod cache;
pub(crate) mod client;
mod clock;
mod command_error;
mod completions;
mod configuration;
mod db;
pub(crate) mod dev;
mod health;
pub(crate) mod import;
mod integration;
mod integration_key;
mod key;
mod output;
mod progress;
mod runtime;
mod schema;
mod settings;
mod tenant;
pub mod terminal;
mod usage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::command_error::CommandError;
use self::configuration::{Flags, configuration};
use self::runtime::runtime;
use crate::cli::client::ServerArgs;
use crate::cli::terminal::print_error_line;
use crate::config::settings::Config;
use crate::jobs::monotonic_clock::MonotonicClock;
use crate::observe::log;
use crate::observe::log::LogFormat;
use crate::server;

/// Meters and budgets the model calls that software makes with its customers' keys
#[derive(Parser)]
#[command(name = "bursar", version)]
struct Arguments {
    /// A configuration file (TOML). The environment overrides it
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server until it gets SIGTERM or Ctrl-C
    Serve {
        /// The address and port to listen on. Overrides BURSAR_LISTEN
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<String>,
        /// The data folder. Overrides BURSAR_DATA_DIR
        #[arg(long, value_name = "FOLDER")]
        data_dir: Option<PathBuf>,
        /// sqlite:PATH or postgres://... Overrides BURSAR_DATABASE. Visible in the list of
        /// processes
        #[arg(long, value_name = "URL")]
        database: Option<String>,
    },
    /// Run the server with a tenant, an integration and keys, and print how to try them
    Dev {
        /// The address and port to listen on. Overrides BURSAR_LISTEN
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<String>,
        /// The data folder. Overrides BURSAR_DATA_DIR
        #[arg(long, value_name = "FOLDER")]
        data_dir: Option<PathBuf>,
    },
    /// Manage tenants
    Tenant(tenant::TenantArguments),
    /// Manage the API keys of a tenant
    Key(key::KeyArguments),
    /// List and clear the in-memory caches of the server
    Cache(cache::CacheArguments),
    /// Manage integrations, their limits and their keys
    Integration(Box<integration::IntegrationArguments>),
    /// Import and export usage records
    #[command(subcommand)]
    Usage(usage::UsageCommand),
    /// Verify and export the audit log
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Verify, migrate, back up and restore the store
    Db(db::DbArguments),
    /// Compare Bursar's time with the clock, and confirm the clock
    Clock(clock::ClockArguments),
    /// Check whether the server can work. Exits with 0 if it can
    Health(health::HealthArguments),
    /// Print an example configuration, or the one in force
    #[command(subcommand)]
    Config(settings::ConfigCommand),
    /// Print the completion script of a shell
    Completions(completions::CompletionsArguments),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return misspelt(&error),
    };
    let code = run(arguments).unwrap_or_else(|error| {
        log::write_line(&format!("bursar: {error}"));
        ExitCode::FAILURE
    });
    log::flush();
    code
}

/// Prints help or a usage error.
///
/// The error quotes arguments, which a script may have taken from elsewhere. They are parsed again
/// with invisible characters escaped.
fn misspelt(error: &clap::Error) -> ExitCode {
    let shown =
        std::env::args_os().map(|text| terminal::line(&text.to_string_lossy()).into_owned());
    if let Err(error) = Arguments::try_parse_from(shown) {
        error.exit();
    }
    error.render().to_string().lines().for_each(print_error_line);
    ExitCode::from(2)
}

fn run(arguments: Arguments) -> Result<ExitCode, CommandError> {
    let Arguments { config: file, command } = arguments;
    let file = file.as_deref();
    match command {
        Command::Serve { listen, data_dir, database } => {
            serve(&configuration(file, &Flags { listen, data_dir, database })?)?;
        }
        Command::Dev { listen, data_dir } => {
            serve_dev(&configuration(file, &Flags { listen, data_dir, database: None })?)?;
        }
        Command::Tenant(arguments) => {
            tenant::run(&for_client(file, &arguments.access)?, arguments)?;
        }
        Command::Cache(arguments) => {
            cache::run(&for_client(file, &arguments.access)?, arguments)?;
        }
        Command::Key(arguments) => key::run(&for_client(file, &arguments.access)?, arguments)?,
        Command::Integration(arguments) => {
            integration::run(&for_client(file, &arguments.access)?, *arguments)?;
        }
        Command::Usage(usage::UsageCommand::Import(import)) => {
            return Ok(import::run(&for_client(file, &import.access)?, *import)?);
        }
        Command::Usage(usage::UsageCommand::Export(export)) => {
            usage::export(&for_client(file, &export.access)?, &export)?;
        }
        Command::Audit(audit::AuditCommand::Verify(verify)) => {
            let flags = Flags::store(&verify.data_dir, &verify.database);
            return audit::verify(&configuration(file, &flags)?, &verify);
        }
        Command::Audit(audit::AuditCommand::Export(export)) => {
            audit::export(&for_client(file, &export.access)?, &export)?;
        }
        Command::Db(arguments) => {
            let flags = Flags::store(&arguments.data_dir, &arguments.database);
            return db::run(&configuration(file, &flags)?, arguments);
        }
        Command::Clock(arguments) => {
            clock::run(&for_client(file, &arguments.access)?, arguments)?;
        }
        Command::Health(arguments) => {
            let flags = Flags::store(&arguments.data_dir, &None);
            health::run(&configuration(file, &flags)?, arguments)?;
        }
        Command::Config(command) => settings::run(file, &command)?,
        Command::Completions(arguments) => completions::run(&arguments, Arguments::command())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration of a command that sends requests.
///
/// Warnings from inside the process are printed, and nothing else.
fn for_client(file: Option<&Path>, access: &ServerArgs) -> Result<Config, CommandError> {
    log::start(LogFormat::Human, "error")?;
    configuration(file, &Flags::store(&access.data_dir, &access.database))
}

fn serve(config: &Config) -> Result<(), CommandError> {
    log::start(config.log.log_format, &config.log.log)?;
    runtime()?.block_on(async {
        let app = server::open_with(config, server::test_clocks(), MonotonicClock::system())?;
        server::run(config, app, |_| {}).await.map_err(CommandError::from)
    })
}

fn serve_dev(config: &Config) -> Result<(), CommandError> {
    if config.database().file().is_none() {
        return Err(
            "`bursar dev` does not work with PostgreSQL: use `bursar serve`, and create a tenant, \
             an integration and keys with `bursar tenant`, `bursar integration` and `bursar key`"
                .into(),
        );
    }
    log::start(config.log.log_format, &config.log.log)?;
    runtime()?.block_on(async {
        let app = server::open_with(config, server::test_clocks(), MonotonicClock::system())?;
        let made = dev::prepare(config, &app).await?;
        server::run(config, app, |url| made.print(url)).await.map_err(CommandError::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
