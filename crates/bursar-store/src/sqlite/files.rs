//! The data file and what stands beside it: names, modes and the lock.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::error::OpenError;

/// Holds the file's lock, which the system takes back when the process ends, however it ends.
pub(super) fn lock_beside(path: &Path) -> Result<File, OpenError> {
    let whole = |cause| OpenError::File { path: path.to_owned(), cause };
    // Whichever way leads to the file: its lock stands beside the file itself.
    lock_of(path, &path.canonicalize().map_err(whole)?)
}

/// Holds the lock of a file that need not be there, whose path has no links in it.
pub(super) fn lock_of(path: &Path, canonical: &Path) -> Result<File, OpenError> {
    let lock_path = beside(canonical, ".lock");
    let file = |cause| OpenError::File { path: lock_path.clone(), cause };
    // Whoever can open it could hold it, and keep the server from starting.
    let lock = open_private(&lock_path).map_err(file)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(cause)) => Err(file(cause)),
    }
}

/// A path with something added to its name.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Makes the file, for its owner only; SQLite gives its log the same mode.
pub(super) fn create_private(path: &Path) -> Result<(), OpenError> {
    let made = open_private(path);
    made.map(|_| ()).map_err(|cause| OpenError::File { path: path.to_owned(), cause })
}

/// Opens a file, and makes it for its owner only when it is not there.
pub(super) fn open_private(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// Makes the names of new files as durable as what is in them.
pub(super) fn sync_folder(path: &Path) -> Result<(), OpenError> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|cause| OpenError::File { path: folder.to_owned(), cause })
}
