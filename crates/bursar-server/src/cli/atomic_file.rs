//! Writes a file atomically and readable by its owner only.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use indicatif::HumanBytes;

use super::command_error::CommandError;
use crate::cli::client::ApiClient;
use crate::cli::terminal::{EscapedWriter, print_error_line};

/// Refuses to overwrite an existing file unless `force` is set.
pub(super) fn check_free(path: Option<&Path>, force: bool) -> Result<(), CommandError> {
    match path.filter(|path| path.exists() && !force) {
        Some(path) => {
            Err(format!("{} already exists; add --force to replace it", path.display()).into())
        }
        None => Ok(()),
    }
}

/// Saves the response of a route to a file, or prints it to the standard output.
pub(super) fn fetch(
    client: &ApiClient,
    path: &str,
    output: Option<&Path>,
) -> Result<(), CommandError> {
    let Some(output) = output else {
        let out = io::stdout().lock();
        let is_terminal = out.is_terminal();
        let mut out = BufWriter::new(out);
        if is_terminal {
            client.fetch(path, &mut EscapedWriter::on(&mut out))?;
        } else {
            client.fetch(path, &mut out)?;
        }
        return Ok(out.flush()?);
    };
    let bytes = write(output, |file| Ok(client.fetch(path, file)?))?;
    print_error_line(&format!("{}: {}", output.display(), HumanBytes(bytes)));
    Ok(())
}

/// Writes a file through a temporary one. Returns the number of bytes that `write` reports.
fn write(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<u64, CommandError>,
) -> Result<u64, CommandError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(name);
    let told = |error: io::Error| format!("cannot write {}: {error}", path.display());
    // A leftover of an earlier process with the same id is incomplete and may be readable by
    // others.
    let _ = fs::remove_file(&partial);
    let created = File::options().write(true).create_new(true).mode(0o600).open(&partial);
    let mut file = BufWriter::new(created.map_err(told)?);
    let written = write(&mut file).and_then(|bytes| {
        file.flush().map_err(told)?;
        file.get_ref().sync_all().map_err(told)?;
        fs::rename(&partial, path).map_err(told)?;
        Ok(bytes)
    });
    if written.is_err() {
        // An incomplete file is useless. A failure to remove it changes nothing.
        let _ = fs::remove_file(&partial);
    }
    written
}
