//! A file that has its name only when it is whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::Failure;

/// Writes a file, and answers what `write` does: how many bytes it has.
pub(super) fn write(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<u64, Failure>,
) -> Result<u64, Failure> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(name);
    let told = |error: io::Error| format!("cannot write {}: {error}", path.display());
    let mut file = BufWriter::new(File::create(&partial).map_err(told)?);
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
