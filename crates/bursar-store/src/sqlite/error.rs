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
    /// The file cannot be opened, read or created.
    #[error("cannot open {path}: {cause}")]
    File {
        path: PathBuf,
        /// The error of the system.
        cause: std::io::Error,
    },
    /// Another process reads the log that an earlier server left behind.
    #[error(
        "another process reads {0}, so its log cannot be moved into the file: end that process (for \
         example `bursar db backup` or `bursar db verify`), and start again"
    )]
    ReadByAnother(PathBuf),
    /// SQLite does not accept the file.
    #[error("cannot use {path} as a database: {cause}")]
    Database {
        path: PathBuf,
        /// The error of SQLite.
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
    /// No server was started with the file yet.
    #[error("{0} has no schema yet: start a server with it first")]
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
    let rusqlite::Error::SqliteFailure(_, message) = error else { return false };
    message.as_deref() == Some("integer overflow")
}

/// Converts an error of a statement that adds to a figure.
///
/// SQLite turns a sum beyond 64 bits into a floating-point number, which the column refuses. In any
/// other statement, a value of a wrong type is a fault in the server.
pub(super) fn sum_error(error: rusqlite::Error, figure: &'static str) -> StoreError {
    let code = error.sqlite_error().map(|error| error.extended_code);
    if code == Some(ffi::SQLITE_CONSTRAINT_DATATYPE) {
        return StoreError::TotalsOverflow(figure.to_owned());
    }
    store_error(error)
}

/// The I/O errors of writes. A disk that fails to read may still accept writes.
const WRITE_ERRORS: [i32; 8] = [
    ffi::SQLITE_IOERR_WRITE,
    ffi::SQLITE_IOERR_FSYNC,
    ffi::SQLITE_IOERR_DIR_FSYNC,
    ffi::SQLITE_IOERR_TRUNCATE,
    ffi::SQLITE_IOERR_SHMOPEN,
    ffi::SQLITE_IOERR_SHMSIZE,
    ffi::SQLITE_IOERR_SHMLOCK,
    ffi::SQLITE_IOERR_SHMMAP,
];

/// The reason for which the next write will fail too; `None` if it may succeed.
fn not_writable(code: ErrorCode, error: &rusqlite::Error) -> Option<NotWritable> {
    if code == ErrorCode::DiskFull {
        return Some(NotWritable::DiskFull);
    }
    if code == ErrorCode::ReadOnly {
        return Some(NotWritable::ReadOnly);
    }
    let is_of_write =
        error.sqlite_error().is_some_and(|of| WRITE_ERRORS.contains(&of.extended_code));
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
    fn only_a_failed_write_marks_the_disk_as_failing() {
        for code in WRITE_ERRORS {
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
    fn a_wrong_type_means_an_overflow_only_in_an_addition() {
        let wrong = ffi::Error::new(ffi::SQLITE_CONSTRAINT_DATATYPE);
        let error = || rusqlite::Error::SqliteFailure(wrong, None);
        let added = sum_error(error(), "calls");
        assert!(matches!(&added, StoreError::TotalsOverflow(figure) if figure == "calls"));
        let stored = store_error(error());
        assert!(matches!(stored, StoreError::Statement(_)), "{stored:?}");
    }

    #[test]
    fn an_error_of_a_read_says_nothing_about_writes() {
        let full = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None);
        let read = store_error(full).into_read_error();
        assert!(matches!(read, StoreError::Unavailable(_)), "{read:?}");
    }
}
