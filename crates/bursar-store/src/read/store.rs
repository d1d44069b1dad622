//! The trait [`Store`] and the types of its reads. Reads never wait for a writer.

use std::sync::Arc;

use async_trait::async_trait;
use bursar_core::{ClockState, Timestamp};

use crate::audit::reads::AuditReads;
use crate::cache::Cache;
use crate::clock::decidable;
use crate::error::StoreError;
use crate::read::accounts::AccountReads;
use crate::read::breakdown::SeriesReads;
use crate::read::days::DayReads;
use crate::read::entries::HistoryReads;
use crate::read::near_limit::NearLimit;
use crate::read::read_context::ReadContext;
use crate::read::summaries::SummaryReads;
use crate::tables::TableReads;

/// Statistics of a store, for monitoring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Tenants in any lifecycle state.
    pub tenants: i64,
    /// Open reservations that are not due.
    pub open_reservations: i64,
    /// The size of the data on disk; 0 if it is unknown.
    pub data_bytes: u64,
    /// The size of the write-ahead log on disk; 0 if it is unknown.
    pub log_bytes: u64,
    /// Whether the log is kept until the next start, because the data file was not synced.
    pub is_log_kept: bool,
}

/// The reads of a store, which every database implements, by noun.
///
/// A method about a tenant takes the tenant id first, and never returns rows of another tenant. A
/// list or a sum fails with [`StoreError::Overloaded`] if too many reads of the tenant wait, and
/// with [`StoreError::ReadTooLarge`] if it takes too long or finds too much.
#[async_trait]
pub trait Store:
    AccountReads
    + AuditReads
    + DayReads
    + HistoryReads
    + SeriesReads
    + SummaryReads
    + TableReads
    + 'static
{
    /// Bursar's time, which all decisions use; the wall clock can differ from it.
    fn now(&self) -> Timestamp {
        self.clock().now
    }

    /// Bursar's time and the wall clock, read now.
    fn clock(&self) -> ClockState;

    /// Checks that the clock permits writes and decisions.
    ///
    /// # Errors
    /// [`StoreError::ClockJumped`] while the wall clock is ahead and not trusted.
    fn check_clock(&self) -> Result<(), StoreError> {
        decidable(&self.clock()).map(|_| ())
    }

    /// Checks that the database responds and accepts writes, on a connection of its own.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Whether the next write may fail because the disk is full, as far as a cheap check can tell.
    ///
    /// If it may, a write probe decides.
    fn doubts_writes(&self) -> bool {
        false
    }

    /// The same store, whose reads use `context`.
    fn with_context(&self, context: ReadContext) -> Arc<dyn Store>;

    /// The caches of the store, for the operator.
    fn caches(&self) -> Vec<&dyn Cache> {
        Vec::new()
    }

    /// The integrations of all tenants that are nearest to a monthly limit, the nearest first.
    ///
    /// A tenant gets more than a quarter of the `limit` rows only if no other tenant needs them.
    /// For the operator only: besides `tenants`, no other read crosses tenants.
    async fn near_limits(&self, limit: usize) -> Result<Vec<NearLimit>, StoreError>;

    /// Statistics over all tenants.
    async fn stats(&self) -> Result<StoreStats, StoreError>;
}
