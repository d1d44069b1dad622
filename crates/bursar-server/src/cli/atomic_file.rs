//! A file that has its name only when it is whole, and is its owner's only.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use indicatif::HumanBytes;

use super::command_error::CommandError;
use crate::cli::client::ApiClient;
use crate::cli::terminal::{EscapedWriter, tell};

/// Refuses a name that is taken, unless that file is to be replaced.
pub(super) fn check_free(path: Option<&Path>, force: bool) -> Result<(), CommandError> {
    match path.filter(|path| path.exists() && !force) {
        Some(path) => Err(format!("{} exists; say --force to replace it", path.display()).into()),
        None => Ok(()),
    }
}

/// Fetches what a route answers into a file, or to the standard output.
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
    tell(&format!("{}: {}", output.display(), HumanBytes(bytes)));
    Ok(())
}

/// Writes a file, and answers what `write` does: how many bytes it has.
fn write(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<u64, CommandError>,
) -> Result<u64, CommandError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(name);
    let told = |error: io::Error| format!("cannot write {}: {error}", path.display());
    // What an earlier process of the same number left is of no use, and may be readable by others.
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
        // What is not whole is of no use; that it cannot be removed changes nothing.
        let _ = fs::remove_file(&partial);
    }
    written
}
