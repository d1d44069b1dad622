//! Errors of opening a data file, and the conversion of SQLite's errors.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{ErrorCode, ffi};

use crate::error::{NotWritable, StoreError};

/// Why a data file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the file.
    #[error("{0} is in use by another bursar process; stop it, or choose another data folder")]
    InUse(PathBuf),
    /// The file cannot be opened, read or made.
    #[error("cannot open {path}: {cause}")]
    File {
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Another process reads what an earlier server left in the log.
    #[error(
        "another process reads {0}, so its log cannot be moved into the file: end it (a backup or a \
         check, say), and start again"
    )]
    ReadByAnother(PathBuf),
    /// SQLite does not accept it.
    #[error("cannot use {path} as a database: {cause}")]
    Database {
        path: PathBuf,
        /// What SQLite said.
        cause: rusqlite::Error,
    },
    /// A newer server changed the schema in an incompatible way.
    #[error("{path} has schema {found}, which needs a newer bursar (this one knows {known})")]
    NewerSchema {
        path: PathBuf,
        /// The schema of the file.
        found: u32,
        /// The newest schema that this binary knows.
        known: u32,
    },
    /// No server was started on it.
    #[error("{0} has no schema: start a server on it once")]
    NoSchema(PathBuf),
    /// The keys in the file were hashed with another secret key.
    #[error(
        "{0} belongs to another secret key: start bursar with the BURSAR_SECRET_KEY (or the \
         secret-key file) with which its keys were made"
    )]
    OtherSecretKey(PathBuf),
}

/// Converts an error of SQLite.
pub(super) fn store_error(error: rusqlite::Error) -> StoreError {
    let Some(code) = error.sqlite_error_code() else {
        return StoreError::Statement(Arc::new(error));
    };
    let unique = [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_CONSTRAINT_PRIMARYKEY];
    if error.sqlite_error().is_some_and(|error| unique.contains(&error.extended_code)) {
        return StoreError::Exists(Arc::new(error));
    }
    if code == ErrorCode::OperationInterrupted {
        // Only reads are interrupted: by their time limit, or because the client stopped waiting.
        return StoreError::ReadTooLarge;
    }
    if is_overflow(&error) {
        return StoreError::TotalsOverflow("a stored sum".to_owned());
    }
    if let Some(reason) = not_writable(code, &error) {
        return StoreError::NotWritable { reason, cause: Arc::new(error) };
    }
    // All other errors concern the file, the disk or the memory, and not the command.
    let of_command = matches!(
        code,
        ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::TooBig
            | ErrorCode::ParameterOutOfRange
    );
    if of_command {
        StoreError::Statement(Arc::new(error))
    } else {
        StoreError::Unavailable(Arc::new(error))
    }
}

/// Whether a sum of an aggregate left 64 bits.
fn is_overflow(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(_, said) = error else { return false };
    said.as_deref() == Some("integer overflow")
}

/// What an error means of a statement that adds to a figure: a sum that leaves 64 bits becomes a
/// number with a point, which the column refuses. Of any other statement that is a fault in the
/// server.
pub(super) fn sum_error(error: rusqlite::Error, figure: &'static str) -> StoreError {
    let code = error.sqlite_error().map(|error| error.extended_code);
    if code == Some(ffi::SQLITE_CONSTRAINT_DATATYPE) {
        return StoreError::TotalsOverflow(figure.to_owned());
    }
    store_error(error)
}

/// The ways in which a disk fails to write. One that fails to read may take writes all the same.
const OF_WRITES: [i32; 8] = [
    ffi::SQLITE_IOERR_WRITE,
    ffi::SQLITE_IOERR_FSYNC,
    ffi::SQLITE_IOERR_DIR_FSYNC,
    ffi::SQLITE_IOERR_TRUNCATE,
    ffi::SQLITE_IOERR_SHMOPEN,
    ffi::SQLITE_IOERR_SHMSIZE,
    ffi::SQLITE_IOERR_SHMLOCK,
    ffi::SQLITE_IOERR_SHMMAP,
];

/// Why the next write will fail as well, if it will.
fn not_writable(code: ErrorCode, error: &rusqlite::Error) -> Option<NotWritable> {
    if code == ErrorCode::DiskFull {
        return Some(NotWritable::DiskFull);
    }
    if code == ErrorCode::ReadOnly {
        return Some(NotWritable::ReadOnly);
    }
    let is_of_write = error.sqlite_error().is_some_and(|of| OF_WRITES.contains(&of.extended_code));
    is_of_write.then_some(NotWritable::DiskFailing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(code: i32) -> Option<NotWritable> {
        let error = store_error(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        if let StoreError::NotWritable { reason, .. } = error {
            return Some(reason);
        }
        assert!(matches!(error, StoreError::Unavailable(_)), "{code}: {error:?}");
        None
    }

    #[test]
    fn a_disk_that_fails_to_write_is_in_doubt_and_one_that_fails_to_read_is_not() {
        for code in OF_WRITES {
            assert_eq!(reason(code), Some(NotWritable::DiskFailing), "{code}");
        }
        assert_eq!(reason(ffi::SQLITE_FULL), Some(NotWritable::DiskFull));
        assert_eq!(reason(ffi::SQLITE_READONLY_DBMOVED), Some(NotWritable::ReadOnly));
        let of_reads = [
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_IOERR_SHORT_READ,
            ffi::SQLITE_IOERR_FSTAT,
            ffi::SQLITE_IOERR_GETTEMPPATH,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_CORRUPT,
        ];
        for code in of_reads {
            assert_eq!(reason(code), None, "{code}");
        }
    }

    #[test]
    fn a_value_of_a_wrong_type_is_a_sum_that_is_too_large_only_where_something_is_added() {
        let wrong = ffi::Error::new(ffi::SQLITE_CONSTRAINT_DATATYPE);
        let error = || rusqlite::Error::SqliteFailure(wrong, None);
        let added = sum_error(error(), "calls");
        assert!(matches!(&added, StoreError::TotalsOverflow(figure) if figure == "calls"));
        let stored = store_error(error());
        assert!(matches!(stored, StoreError::Statement(_)), "{stored:?}");
    }

    #[test]
    fn an_error_of_a_read_does_not_doubt_writes() {
        let full = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None);
        let read = store_error(full).into_read_error();
        assert!(matches!(read, StoreError::Unavailable(_)), "{read:?}");
    }
}
