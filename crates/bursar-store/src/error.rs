//! What can go wrong with storage, as far as a caller acts on it.

use bursar_core::{Overflow, TenantId};

/// Why storage did not do what was asked. Nothing of the command is stored, unless it says so.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, the file or the database does not answer, or a commit's fate is unknown.
    ///
    /// A write may have been stored: repeat it with the same call id.
    #[error("storage is not available")]
    Unavailable(#[source] Cause),
    /// Nothing was stored, and the same transaction may well succeed: a deadlock, a serialization
    /// failure, a connection lost before its commit was sent. The writer tries again by itself.
    #[error("storage asks to try again")]
    Retry(#[source] Cause),
    /// More is waiting, or in memory, than there is room for; nothing was stored.
    #[error("too much is waiting")]
    Overloaded,
    /// A read takes longer than one may, or its answer more memory: less must be asked for.
    #[error("the read takes too long or finds too much")]
    ReadTooLarge,
    /// The server takes nothing any more; nothing was stored.
    #[error("the server is shutting down")]
    Closed,
    /// The wall clock jumped forward and is not believed yet; nothing was stored or decided.
    #[error("the clock jumped {ahead_seconds} seconds ahead")]
    ClockJumped {
        /// By how much.
        ahead_seconds: i64,
        /// When it will be believed, if it stays ahead.
        adopted_in_seconds: u32,
    },
    /// A statement was refused for what it said: only its own command is at fault.
    #[error("storage refused a statement")]
    Statement(#[source] Cause),
    /// A unique constraint spoke against it.
    #[error("something of that key exists already")]
    Exists(#[source] Cause),
    /// A sum leaves the range of its integer. Nothing was stored, and the sum is not told.
    #[error("{0} leaves the range of its integer")]
    TotalsOverflow(String),
    /// The work panicked, and nothing of it was stored. The log has the panic.
    #[error("the work panicked")]
    Panicked,
    /// The database takes no writes, and will not take the next one either.
    ///
    /// A write may have been stored: repeat it with the same call id.
    #[error("the database takes no writes ({})", reason.as_str())]
    NotWritable {
        reason: NotWritable,
        /// What the database said.
        #[source]
        cause: Cause,
    },
    /// What is stored cannot be read.
    #[error("stored data is not understood: {0}")]
    Corrupt(String),
}

/// Why a database takes no writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWritable {
    /// Its disk has no room.
    DiskFull,
    /// Its file, file system or sessions are read-only.
    ReadOnly,
    /// It is a standby.
    Standby,
    /// Its disk does not do what it is told.
    DiskFailing,
}

impl NotWritable {
    /// The word by which operators are told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DiskFull => "disk_full",
            Self::ReadOnly => "read_only",
            Self::Standby => "standby",
            Self::DiskFailing => "disk_failing",
        }
    }
}

/// What a database driver said; for operators, not for callers.
pub type Cause = std::sync::Arc<dyn std::error::Error + Send + Sync>;

impl StoreError {
    /// Whether only the command itself is at fault, so that its neighbours may be tried again.
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
    /// What it means of a row of the audit log: that its place is taken is no fault of the change.
    pub(crate) fn of_chain(self, tenant_id: TenantId) -> Self {
        match self {
            Self::Exists(_) => {
                Self::Corrupt(format!("the audit log of tenant {tenant_id} goes on after its head"))
            }
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
    /// What it means of something that no single command is at fault for: its fate is unknown, or the
    /// database takes no writes.
    pub(crate) fn of_no_command(self) -> Self {
        if matches!(self, Self::NotWritable { .. }) {
            return self;
        }
        Self::Unavailable(std::sync::Arc::new(self))
    }
}

impl StoreError {
    /// What it means of a read: that says nothing of whether the database takes writes.
    pub(crate) fn of_read(self) -> Self {
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
    /// What it means when a row or two were asked for: nobody could have asked for less.
    pub(crate) fn of_look_up(self) -> Self {
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
