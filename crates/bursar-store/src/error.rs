//! Errors of storage. A variant exists only if a caller branches on it.

use bursar_core::{Overflow, TenantId};

/// An error of storage. Nothing was stored, unless the variant says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, the file or the database does not answer, or the result of a commit is unknown.
    ///
    /// A write may have been stored. Repeat it with the same call id.
    #[error("storage is not available")]
    Unavailable(#[source] Cause),
    /// The same transaction may succeed when it is run again.
    ///
    /// Examples are a deadlock, a serialization failure, or a connection lost before its commit was
    /// sent. The writer retries such transactions.
    #[error("the transaction must be retried")]
    Retry(#[source] Cause),
    /// A queue or a memory budget is full.
    #[error("the server is overloaded")]
    Overloaded,
    /// The read exceeds the limit on its time or memory. The caller must ask for less.
    #[error("the read takes too long or returns too much")]
    ReadTooLarge,
    /// The server accepts no more work.
    #[error("the server is shutting down")]
    Closed,
    /// The wall clock jumped forward and is not trusted yet, so nothing was decided.
    #[error("the clock jumped {ahead_seconds} seconds ahead")]
    ClockJumped {
        ahead_seconds: i64,
        /// Seconds until Bursar adopts the wall clock's time, if it stays ahead.
        adopted_in_seconds: u32,
    },
    /// The database refused the content of a statement: only its own command is at fault.
    #[error("the database refused a statement")]
    Statement(#[source] Cause),
    /// A unique constraint was violated.
    #[error("a row with this key already exists")]
    Exists(#[source] Cause),
    /// A sum, which the text names, does not fit its integer.
    #[error("{0} does not fit its integer")]
    TotalsOverflow(String),
    /// The work panicked. The log has the panic.
    #[error("the work panicked")]
    Panicked,
    /// The database does not accept writes, and the next write would fail too.
    ///
    /// A write may have been stored. Repeat it with the same call id.
    #[error("the database accepts no writes ({})", reason.as_str())]
    NotWritable {
        reason: NotWritable,
        #[source]
        cause: Cause,
    },
    /// A stored value cannot be decoded.
    #[error("stored data cannot be decoded: {0}")]
    Corrupt(String),
}

/// Why a database does not accept writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWritable {
    DiskFull,
    /// The file, the file system or the session is read-only.
    ReadOnly,
    /// The database is a standby.
    Standby,
    /// The disk reports errors.
    DiskFailing,
}

impl NotWritable {
    /// The value in logs, metrics and readiness checks.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DiskFull => "disk_full",
            Self::ReadOnly => "read_only",
            Self::Standby => "standby",
            Self::DiskFailing => "disk_failing",
        }
    }
}

/// The error of a database driver, for operators and never for clients.
pub type Cause = std::sync::Arc<dyn std::error::Error + Send + Sync>;

impl StoreError {
    /// Whether the command itself is at fault, so that the rest of its group can be retried.
    pub const fn is_definite(&self) -> bool {
        match self {
            Self::Statement(_)
            | Self::Exists(_)
            | Self::TotalsOverflow(_)
            | Self::Panicked
            | Self::Corrupt(_) => true,
            Self::Unavailable(_)
            | Self::NotWritable { .. }
            | Self::Retry(_)
            | Self::Overloaded
            | Self::ReadTooLarge
            | Self::Closed
            | Self::ClockJumped { .. } => false,
        }
    }
}

impl StoreError {
    /// The error of writing a row of the audit log.
    ///
    /// If the row's sequence number is already taken, the chain is corrupt; the change is not at
    /// fault.
    pub(crate) fn into_chain_error(self, tenant_id: TenantId) -> Self {
        match self {
            Self::Exists(_) => Self::Corrupt(format!(
                "the audit log of tenant {tenant_id} has rows after its head"
            )),
            other @ (Self::Unavailable(_)
            | Self::Retry(_)
            | Self::Overloaded
            | Self::ReadTooLarge
            | Self::Closed
            | Self::ClockJumped { .. }
            | Self::Statement(_)
            | Self::TotalsOverflow(_)
            | Self::Panicked
            | Self::NotWritable { .. }
            | Self::Corrupt(_)) => other,
        }
    }
}

impl StoreError {
    /// The error of work that concerns a whole group, such as a commit.
    ///
    /// Its result is unknown, or the database does not accept writes. No command is at fault.
    pub(crate) fn into_group_error(self) -> Self {
        if matches!(self, Self::NotWritable { .. }) {
            return self;
        }
        Self::Unavailable(std::sync::Arc::new(self))
    }
}

impl StoreError {
    /// The error of a read, which says nothing about whether the database accepts writes.
    pub(crate) fn into_read_error(self) -> Self {
        match self {
            Self::NotWritable { cause, .. } => Self::Unavailable(cause),
            other @ (Self::Unavailable(_)
            | Self::Retry(_)
            | Self::Overloaded
            | Self::ReadTooLarge
            | Self::Closed
            | Self::ClockJumped { .. }
            | Self::Statement(_)
            | Self::Exists(_)
            | Self::TotalsOverflow(_)
            | Self::Panicked
            | Self::Corrupt(_)) => other,
        }
    }
}

impl StoreError {
    /// The error of a single-row read: the caller cannot ask for less, so a timeout is an outage.
    pub(crate) fn into_lookup_error(self) -> Self {
        match self {
            Self::ReadTooLarge => {
                let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                Self::Unavailable(std::sync::Arc::new(late))
            }
            other @ (Self::Unavailable(_)
            | Self::Retry(_)
            | Self::Overloaded
            | Self::Closed
            | Self::ClockJumped { .. }
            | Self::Statement(_)
            | Self::Exists(_)
            | Self::TotalsOverflow(_)
            | Self::Panicked
            | Self::NotWritable { .. }
            | Self::Corrupt(_)) => other,
        }
    }
}

impl From<Overflow> for StoreError {
    fn from(overflow: Overflow) -> Self {
        Self::Statement(std::sync::Arc::new(overflow))
    }
}
