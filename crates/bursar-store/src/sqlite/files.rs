//! The data file and the files beside it: names, permissions and the lock.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::error::OpenError;

/// Takes the lock of an existing data file. The system releases it when the process ends.
pub(super) fn lock_beside(path: &Path) -> Result<File, OpenError> {
    let failed = |cause| OpenError::File { path: path.to_owned(), cause };
    // The lock is beside the file itself, whichever links `path` has.
    lock_of(path, &path.canonicalize().map_err(failed)?)
}

/// Takes the lock of a data file that need not exist, from its canonical path.
pub(super) fn lock_of(path: &Path, canonical: &Path) -> Result<File, OpenError> {
    let lock_path = beside(canonical, ".lock");
    let file = |cause| OpenError::File { path: lock_path.clone(), cause };
    // A user who can open the lock file could take the lock, and prevent a start of the server.
    let lock = open_private(&lock_path).map_err(file)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(cause)) => Err(file(cause)),
    }
}

/// A path with a suffix added to its file name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Creates the file for its owner only. SQLite gives the log the same permissions.
pub(super) fn create_private(path: &Path) -> Result<(), OpenError> {
    let made = open_private(path);
    made.map(|_| ()).map_err(|cause| OpenError::File { path: path.to_owned(), cause })
}

/// Opens a file, or creates it for its owner only.
pub(super) fn open_private(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// Syncs the folder of a file, so that the name of a new file is durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), OpenError> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|cause| OpenError::File { path: folder.to_owned(), cause })
}
