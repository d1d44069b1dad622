//! `bursar completions`: print the completion script of a shell.

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::command_error::CommandError;
use crate::cli::terminal::print_verbatim;

#[derive(Args)]
pub(super) struct CompletionsArguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(
    arguments: &CompletionsArguments,
    mut command: Command,
) -> Result<(), CommandError> {
    let mut script = Vec::new();
    generate(arguments.shell, &mut command, "bursar", &mut script);
    Ok(print_verbatim(&String::from_utf8(script)?)?)
}
