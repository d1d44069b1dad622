//! `bursar config`: an example file, and the configuration in force.

use std::fmt::Write;
use std::path::Path;

use clap::Subcommand;

use super::command_error::CommandError;
use super::configuration::environment;
use crate::cli::terminal;
use crate::cli::terminal::print_lines;
use crate::config::given::Origin;
use crate::config::listing::example;
use crate::config::settings::{Config, InForce, settings};

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Print a configuration file with every setting, its default and its environment variable
    Example,
    /// Read the configuration and print the values in force and where they come from
    Check,
}

pub(super) fn run(file: Option<&Path>, command: &ConfigCommand) -> Result<(), CommandError> {
    let text = match command {
        ConfigCommand::Example => example(&settings()),
        ConfigCommand::Check => check(file)?,
    };
    Ok(print_lines(&text)?)
}

fn check(file: Option<&Path>) -> Result<String, CommandError> {
    // Errors come before any output.
    Config::load(file, environment())?;
    let mut lines = String::new();
    for InForce { setting, text, origin } in Config::in_force(file, environment())? {
        let value = match text.as_str() {
            "" => "(nothing)".to_owned(),
            text => (setting.shown)(text),
        };
        let origin = match origin {
            Origin::Default => "default".to_owned(),
            Origin::File { .. } => "file".to_owned(),
            Origin::Environment => setting.env(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{} = {}  # {origin}", setting.key, terminal::line(&value));
    }
    Ok(lines)
}
