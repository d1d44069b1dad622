//! The embedded store: one SQLite file, one writer thread, a pool of readers.
//!
//! A lock file ensures that only one server uses the data file. Accounts are therefore cached in
//! memory ([`account_cache`]), and change only after a commit.

mod account_cache;
mod accounts;
mod audit;
mod backup;
mod checkpoint;
mod clock;
mod columns;
mod connect;
mod control;
mod days;
mod error;
mod files;
mod held_reads;
mod history;
mod holds;
mod keys;
mod labels;
mod limit_cache;
mod limits;
mod load;
mod log_copier;
mod open;
mod query;
mod readers;
mod restore;
mod save;
mod schema;
mod series;
mod snapshots;
mod statement;
mod store;
mod store_stats;
mod summaries;
mod verify;
mod writer;
mod writer_connection;
mod writer_state;

pub use backup::{BackupInfo, CopyError, CopyProgress, ExistingTarget};
pub use error::OpenError;
pub use open::SqliteStore;
pub use restore::Restore;
