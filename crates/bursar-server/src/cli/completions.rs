//! `bursar completions`: what makes a shell complete the command.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::{Arguments, Failure};
use crate::cli::terminal::say_verbatim;

#[derive(Args)]
pub(super) struct CompletionsArguments {
    /// The shell that is to read it.
    shell: Shell,
}

pub(super) fn run(arguments: &CompletionsArguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(arguments.shell, &mut Arguments::command(), "bursar", &mut script);
    Ok(say_verbatim(&String::from_utf8(script)?)?)
}
