//! Restores: replacing the data file with a copy.
//!
//! SQLite would apply a log to any file beside it. So the log of the old file is first moved into it
//! and deleted, and then one rename replaces the file. At every moment, the path leads to the old
//! file with its log, or to the new file without one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::backup::{
    BackupInfo, CopyError, CopyProgress, ExistingTarget, Partial, copy, refuse_companions, resolve,
    set_mode,
};
use super::error::OpenError;
use super::files::{beside, lock_of, sync_folder};
use super::open::SqliteStore;

/// A checked copy of a backup beside the data file, ready to replace it.
///
/// It holds the lock of the data file, so that no server can start. Dropping it changes nothing.
pub struct Restore {
    partial: Partial,
    /// The data file, without links.
    database: PathBuf,
    info: BackupInfo,
    _lock: File,
}

impl SqliteStore {
    /// Copies a backup beside a data file that no server uses, and checks the copy.
    ///
    /// # Errors
    /// [`CopyError`].
    pub fn restore(
        from: &Path,
        database: &Path,
        existing: ExistingTarget,
        progress: CopyProgress<'_>,
    ) -> Result<Restore, CopyError> {
        let whole = resolve(database)?;
        let source = from.canonicalize().map_err(|cause| CopyError::file(from, cause))?;
        if source == whole {
            return Err(CopyError::Own(from.to_owned()));
        }
        let lock = lock_of(database, &whole)?;
        if has_data(&whole) {
            if existing == ExistingTarget::Keep {
                return Err(CopyError::Exists(database.to_owned()));
            }
        } else {
            refuse_companions(&whole)?;
        }
        let partial = Partial::beside(&whole);
        let info = copy(from, &partial, progress)?;
        give_to_owner(&partial.path, &whole).map_err(|cause| CopyError::file(&whole, cause))?;
        Ok(Restore { partial, database: whole, info, _lock: lock })
    }
}

/// Whether a data file exists and is not empty.
fn has_data(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.len() > 0)
}

/// Gives the new files to the owner of the folder; a restore may run as another user.
fn give_to_owner(path: &Path, database: &Path) -> io::Result<()> {
    let folder = database.parent().unwrap_or(Path::new("/")).metadata()?;
    for path in [path, &beside(database, ".lock")] {
        if path.metadata()?.uid() != folder.uid() {
            chown(path, Some(folder.uid()), Some(folder.gid()))?;
        }
    }
    Ok(())
}

impl Restore {
    /// The contents of the backup.
    pub fn info(&self) -> &BackupInfo {
        &self.info
    }

    /// Checks that a secret key is the one with which the backup's keys were hashed.
    ///
    /// # Errors
    /// [`OpenError::OtherSecretKey`].
    pub fn check_secret(&self, from: &Path, fingerprint: &str) -> Result<(), OpenError> {
        match &self.info.secret_fingerprint {
            Some(known) if known != fingerprint => Err(OpenError::OtherSecretKey(from.to_owned())),
            Some(_) | None => Ok(()),
        }
    }

    /// Gives the existing data file a second name, after moving its log into it.
    ///
    /// Returns `None` if there is no data file.
    ///
    /// # Errors
    /// [`CopyError`]; the data file is unchanged.
    pub fn set_aside(&self, aside: &Path) -> Result<Option<PathBuf>, CopyError> {
        if !has_data(&self.database) {
            return Ok(None);
        }
        make_whole(&self.database)?;
        let failed = |cause| CopyError::file(aside, cause);
        match fs::hard_link(&self.database, aside) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(CopyError::Exists(aside.to_owned()));
            }
            // Some file systems have no links.
            Err(_) => {
                fs::copy(&self.database, aside).map_err(failed)?;
                File::open(aside).and_then(|file| file.sync_all()).map_err(failed)?;
            }
        }
        sync_folder(aside)?;
        Ok(Some(aside.to_owned()))
    }

    /// Replaces the data file with the backup, by one rename.
    ///
    /// # Errors
    /// [`CopyError`]; the data file is unchanged, unless only the final sync failed.
    pub fn publish(self) -> Result<BackupInfo, CopyError> {
        refuse_companions(&self.database)?;
        self.partial.publish(&self.database, ExistingTarget::Replace)?;
        Ok(self.info)
    }
}

/// Moves the log of a data file into it and deletes the log.
fn make_whole(path: &Path) -> Result<(), CopyError> {
    let made = || -> rusqlite::Result<bool> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::ZERO)?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "fullfsync", "on")?;
        connection.pragma_update(None, "checkpoint_fullfsync", "on")?;
        let busy: i64 =
            connection.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get(0))?;
        set_mode(&connection, "delete")?;
        connection.close().map_err(|(_, cause)| cause)?;
        Ok(busy == 0)
    };
    let not_whole = |cause: String| CopyError::NotWhole { path: path.to_owned(), cause };
    match made() {
        Ok(true) => Ok(()),
        Ok(false) => Err(not_whole("another process reads it".to_owned())),
        Err(cause) => Err(not_whole(cause.to_string())),
    }
}
