//! Starts the server from a configuration, runs it, and shuts it down.

mod open;
mod run;
mod start_error;

pub use self::open::{open, open_with};
pub(crate) use self::open::{open_for_command, test_clocks};
pub(crate) use self::run::run;
pub(crate) use self::start_error::StartError;
