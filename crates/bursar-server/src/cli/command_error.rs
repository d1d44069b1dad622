//! The error of a command.

/// Any error, for the person at the terminal. It is printed once, before the process exits.
pub(super) type CommandError = Box<dyn std::error::Error>;
