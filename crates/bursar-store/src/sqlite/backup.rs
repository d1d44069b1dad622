//! Backups: copies of the data file while a server writes to it.
//!
//! A copy is one snapshot, with everything that was committed before it began. It is a single file
//! without a log, so that no companion file can be lost or mixed up.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ffi};

use super::connect::open_reader;
use super::error::OpenError;
use super::files::{beside, sync_folder};
use super::open::SqliteStore;
use super::schema;

/// Pages to copy between two calls of [`CopyProgress`]: 4 MiB.
const PAGES: i32 = 1_024;
/// The suffixes of the files that SQLite creates beside a database.
pub(super) const COMPANIONS: &[&str] = &["-wal", "-shm", "-journal"];

const COUNT_ENTRIES: &str = "select count(*) from usage_entries";
const BEGIN_SNAPSHOT: &str = "select count(*) from sqlite_schema";

/// Called with the copied and the total bytes; returns whether to continue.
pub type CopyProgress<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;

/// What to do if the target file already exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExistingTarget {
    /// Keep the file, and fail.
    Keep,
    /// Replace the file.
    Replace,
}

/// A finished and checked copy.
#[derive(Debug)]
pub struct BackupInfo {
    pub bytes: u64,
    /// The entries of the ledger in the copy.
    pub entries: u64,
    /// The fingerprint of the secret key with which the copy's keys are hashed.
    pub secret_fingerprint: Option<String>,
}

/// Why a copy failed. The operator sees the texts.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A data file cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file is no database of Bursar.
    #[error("{0} is not a database of bursar")]
    NotBursar(PathBuf),
    /// The file is damaged.
    #[error("{path} is damaged: {what}")]
    Damaged {
        path: PathBuf,
        /// SQLite's description of the damage.
        what: String,
    },
    /// The target file already exists.
    #[error("{0} already exists; add --force to replace it")]
    Exists(PathBuf),
    /// The target is one of the database's own files.
    #[error("{0} is a file of the database itself; choose another file")]
    Own(PathBuf),
    /// The target has a log beside it, which SQLite would apply to the new file.
    #[error("{0} belongs to another database file; move it to another folder first")]
    LeftOver(PathBuf),
    /// The log of the existing database cannot be moved into its file.
    #[error(
        "the log of {path} cannot be moved into the file ({cause}); nothing was changed. End the \
         process that uses it, or move {path}, {path}-wal and {path}-shm away together, and try \
         again",
        path = .path.display()
    )]
    NotWhole { path: PathBuf, cause: String },
    /// The caller stopped the copy.
    #[error("stopped; nothing was changed")]
    Stopped,
}

impl CopyError {
    pub(super) fn database(path: &Path, cause: rusqlite::Error) -> Self {
        OpenError::Database { path: path.to_owned(), cause }.into()
    }

    pub(super) fn file(path: &Path, cause: io::Error) -> Self {
        OpenError::File { path: path.to_owned(), cause }.into()
    }
}

impl SqliteStore {
    /// Copies a data file, while a server may be writing to it, and checks the copy.
    ///
    /// The copy has every record that was acknowledged before it began. The target file appears
    /// only when the copy is complete and on stable storage; a failed copy leaves nothing behind.
    /// The server continues to write, and its log grows until the copy is finished.
    ///
    /// # Errors
    /// [`CopyError`].
    pub fn backup(
        from: &Path,
        to: &Path,
        existing: ExistingTarget,
        progress: CopyProgress<'_>,
    ) -> Result<BackupInfo, CopyError> {
        check_target(from, to, existing)?;
        let partial = Partial::beside(to);
        let info = copy(from, &partial, progress)?;
        partial.publish(to, existing)?;
        Ok(info)
    }
}

/// Refuses harmful target names before any work is done.
fn check_target(from: &Path, to: &Path, existing: ExistingTarget) -> Result<(), CopyError> {
    let from = from.canonicalize().map_err(|cause| CopyError::file(from, cause))?;
    let whole = resolve(to)?;
    let own = COMPANIONS.iter().copied().chain(["", ".lock"]);
    if own.into_iter().any(|ending| beside(&from, ending) == whole) {
        return Err(CopyError::Own(to.to_owned()));
    }
    if whole.is_dir() {
        return Err(CopyError::file(to, io::ErrorKind::IsADirectory.into()));
    }
    if existing == ExistingTarget::Keep && whole.exists() {
        return Err(CopyError::Exists(to.to_owned()));
    }
    refuse_companions(&whole)
}

/// Refuses a target beside which SQLite would find the log of another file.
///
/// An empty log and a log's index (`-shm`) are harmless: readers leave them, and SQLite creates new
/// ones.
pub(super) fn refuse_companions(path: &Path) -> Result<(), CopyError> {
    let logs = ["-wal", "-journal"].map(|ending| beside(path, ending));
    let found = logs.into_iter().find(|log| log.metadata().is_ok_and(|file| file.len() > 0));
    found.map_or(Ok(()), |path| Err(CopyError::LeftOver(path)))
}

/// The canonical path of a file that need not exist.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, CopyError> {
    let missing = match path.canonicalize() {
        Ok(whole) => return Ok(whole),
        Err(missing) => missing,
    };
    let failed = |cause| CopyError::file(path, cause);
    // A dangling link may lead to a disk that is not mounted, so no file is created there.
    if missing.kind() != io::ErrorKind::NotFound || path.symlink_metadata().is_ok() {
        return Err(failed(missing));
    }
    let Some(name) = path.file_name() else { return Err(failed(missing)) };
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new(".")).canonicalize().map_err(failed)?;
    Ok(folder.join(name))
}

/// Copies one snapshot and checks the copy, which is durable afterwards.
pub(super) fn copy(
    from: &Path,
    partial: &Partial,
    progress: CopyProgress<'_>,
) -> Result<BackupInfo, CopyError> {
    let to = partial.path.as_path();
    create_new(to).map_err(|cause| CopyError::file(to, cause))?;
    let bytes = copy_snapshot(from, to, progress)?;
    let copied = |cause| CopyError::database(to, cause);
    let connection = Connection::open(to).map_err(copied)?;
    // The copied header selects the WAL mode. A backup is one file, so a reader of it must not
    // create a log.
    set_mode(&connection, "delete").map_err(copied)?;
    let info = check_copy(&connection, from, bytes)?;
    connection.close().map_err(|(_, cause)| copied(cause))?;
    if progress(bytes, bytes).is_break() {
        return Err(CopyError::Stopped);
    }
    let sync = File::open(to).and_then(|file| file.sync_all());
    sync.map_err(|cause| CopyError::file(to, cause))?;
    Ok(info)
}

fn create_new(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create_new(true).write(true).mode(0o600).open(path).map(|_| ())
}

/// Copies the pages of one snapshot, and returns their size in bytes.
fn copy_snapshot(from: &Path, to: &Path, progress: CopyProgress<'_>) -> Result<u64, CopyError> {
    let read = |cause| CopyError::database(from, cause);
    let written = |cause| CopyError::database(to, cause);
    let source = open_reader(from).map_err(read)?;
    // While this transaction is open, other commits neither change the copied pages nor restart the
    // copy. It does not block writers.
    let snapshot = source.unchecked_transaction().map_err(read)?;
    snapshot.query_row(BEGIN_SNAPSHOT, [], |_| Ok(())).map_err(read)?;
    let page_bytes: u32 =
        snapshot.query_row("pragma page_size", [], |row| row.get(0)).map_err(read)?;
    let bytes = |pages: i32| u64::try_from(pages).unwrap_or_default() * u64::from(page_bytes);
    let mut target = Connection::open(to).map_err(written)?;
    // The file has no final name yet, and is synced once it is complete.
    set_mode(&target, "off").map_err(written)?;
    target.pragma_update(None, "synchronous", "off").map_err(written)?;
    let backup = Backup::new(&source, &mut target).map_err(written)?;
    loop {
        let step = backup.step(PAGES).map_err(written)?;
        let pages = backup.progress();
        let total = bytes(pages.pagecount);
        if step == StepResult::Done {
            return Ok(total);
        }
        if step != StepResult::More {
            let what = "another process locks it".to_owned();
            return Err(CopyError::NotWhole { path: from.to_owned(), cause: what });
        }
        if progress(bytes(pages.pagecount - pages.remaining), total).is_break() {
            return Err(CopyError::Stopped);
        }
    }
}

/// Sets the journal mode of a connection, and checks that it is set.
pub(super) fn set_mode(connection: &Connection, mode: &str) -> rusqlite::Result<()> {
    let found: String =
        connection.pragma_update_and_check(None, "journal_mode", mode, |row| row.get(0))?;
    if found == mode {
        return Ok(());
    }
    let cause = format!("the journal mode stays {found}");
    Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), Some(cause)))
}

/// Checks that a copy is intact and a database of Bursar. Errors name the source `from`.
fn check_copy(copy: &Connection, from: &Path, bytes: u64) -> Result<BackupInfo, CopyError> {
    let read = |cause| CopyError::database(from, cause);
    let not_bursar = |_| CopyError::NotBursar(from.to_owned());
    let found: String =
        copy.query_row("pragma quick_check(1)", [], |row| row.get(0)).map_err(read)?;
    if found != "ok" {
        return Err(CopyError::Damaged { path: from.to_owned(), what: found });
    }
    let entries: i64 = copy.query_row(COUNT_ENTRIES, [], |row| row.get(0)).map_err(not_bursar)?;
    let entries = u64::try_from(entries).unwrap_or_default();
    let secret_fingerprint = schema::secret_fingerprint(copy, from)?;
    Ok(BackupInfo { bytes, entries, secret_fingerprint })
}

/// An unfinished file, which is removed on drop unless it is published.
pub(super) struct Partial {
    pub(super) path: PathBuf,
}

impl Partial {
    pub(super) fn beside(to: &Path) -> Self {
        Self { path: beside(to, &format!(".partial-{}", std::process::id())) }
    }

    /// Gives the file its name.
    pub(super) fn publish(self, to: &Path, existing: ExistingTarget) -> Result<(), CopyError> {
        let failed = |cause| CopyError::file(to, cause);
        match existing {
            ExistingTarget::Replace => fs::rename(&self.path, to).map_err(failed)?,
            // Unlike a rename, a link fails if the file was created meanwhile.
            ExistingTarget::Keep => match fs::hard_link(&self.path, to) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(CopyError::Exists(to.to_owned()));
                }
                // Some file systems have no links.
                Err(_) if !to.exists() => fs::rename(&self.path, to).map_err(failed)?,
                Err(cause) => return Err(failed(cause)),
            },
        }
        drop(self);
        Ok(sync_folder(to)?)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let endings = COMPANIONS.iter().copied().chain([""]);
        for path in endings.map(|ending| beside(&self.path, ending)) {
            // Most of them do not exist.
            let _ = fs::remove_file(path);
        }
    }
}
