//! `bursar clock`: compare Bursar's time with the clock, and confirm the clock.

use clap::{Args, Subcommand};

use super::command_error::CommandError;
use super::output::Printer;
use crate::cli::client::{ApiClient, ClientError, ServerArgs, operator_url};
use crate::config::settings::Config;
use crate::wire::error_code::ErrorCode;

#[derive(Args)]
pub(super) struct ClockArguments {
    #[command(flatten)]
    pub(super) access: ServerArgs,
    #[command(flatten)]
    printer: Printer,
    #[command(subcommand)]
    command: ClockCommand,
}

#[derive(Subcommand)]
enum ClockCommand {
    /// Show Bursar's time, the clock, and whether writes are refused because they differ
    Status,
    /// Confirm that the clock is right. Bursar's time takes its value at once, forward or back
    Confirm,
}

pub(super) fn run(config: &Config, arguments: ClockArguments) -> Result<(), CommandError> {
    let ClockArguments { mut access, printer, command } = arguments;
    let (method, path) = match command {
        ClockCommand::Status => ("GET", "/fdr/clock"),
        ClockCommand::Confirm => ("POST", "/fdr/clock/confirm"),
    };
    let ask = |access: &ServerArgs| {
        ApiClient::with(config, access, |client| client.ask_outside(method, path))
    };
    let answer = match ask(&access) {
        Err(ClientError::Refused { code, .. }) if is_elsewhere(config, &access, &code) => {
            access.url = operator_url(config);
            ask(&access)
        }
        answer => answer,
    };
    printer.one(&answer?)
}

/// Whether the operator's routes are served by another listener than the one asked.
fn is_elsewhere(config: &Config, access: &ServerArgs, code: &str) -> bool {
    let is_named = access.url.is_some();
    !is_named
        && config.listener.operator_listen.is_some()
        && code == ErrorCode::RouteNotFound.as_str()
}
