//! Why a command of the command line ends, in words for the person at the terminal.

/// Any error: it is printed once, before the process ends with failure.
pub(super) type CommandError = Box<dyn std::error::Error>;
