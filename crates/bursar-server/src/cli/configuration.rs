//! The configuration of a command: a file, overridden by the environment and then by flags.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::command_error::CommandError;
use crate::config::settings::Config;

/// Settings given on the command line.
pub(super) struct Flags {
    pub(super) listen: Option<String>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) database: Option<String>,
}

impl Flags {
    /// Flags that name the store only.
    pub(super) fn store(data_dir: &Option<PathBuf>, database: &Option<String>) -> Self {
        Self { listen: None, data_dir: data_dir.clone(), database: database.clone() }
    }
}

/// Loads the configuration with these flags.
pub(super) fn configuration(file: Option<&Path>, flags: &Flags) -> Result<Config, CommandError> {
    let Flags { listen, data_dir, database } = flags;
    let data_dir = data_dir.as_ref().map(|folder| folder.to_string_lossy().into_owned());
    let named = [
        ("BURSAR_LISTEN", listen.clone()),
        ("BURSAR_DATA_DIR", data_dir),
        ("BURSAR_DATABASE", database.clone()),
    ];
    let given = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    // Later entries win, so flags override the environment.
    Ok(Config::load(file, environment().chain(given))?)
}

/// Environment variables whose values are valid Unicode.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    let plain = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(plain)
}
