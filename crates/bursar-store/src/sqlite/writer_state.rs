//! The state of the writer: its connection, and the transaction so far.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use bursar_core::{
    Account, Calendar, CallKey, EntryId, Hold, HoldChange, Integration, IntegrationId, TenantId,
    TenantLifecycle, Timestamp,
};
use rusqlite::Connection;

use super::account_cache::AccountCache;
use super::checkpoint::Checkpointer;
use super::clock::{SavedClock, StartClock};
use super::error::store_error;
use super::holds::Holds;
use super::limit_cache::{LimitCache, StagedLimits};
use super::log_copier::keep_log;
use super::writer_connection::open_writer;
use crate::audit::chain::AuditKey;
use crate::calendar::ZonedCalendar;
use crate::clock::StoreClock;
use crate::cost_guard::CostGuard;
use crate::error::StoreError;

pub(super) struct SqliteWriter {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) checkpointer: Checkpointer,
    /// Closed after the connection; see [`super::checkpoint`].
    _data_file: Arc<File>,
    /// Refuses a second server on the file.
    _lock: File,
    pub(super) accounts: Arc<AccountCache>,
    pub(super) limits: Arc<LimitCache>,
    pub(super) calendar: Arc<dyn Calendar>,
    pub(super) guard: Arc<CostGuard>,
    pub(super) clock: StoreClock,
    pub(super) audit_key: AuditKey,
    pub(super) now: Timestamp,
    pub(super) next_number: i64,
    pub(super) saved_clock: SavedClock,
    /// Call ids that this transaction claimed, with the entries they were claimed for.
    pub(super) claims: HashMap<(TenantId, CallKey), Option<EntryId>>,
    pub(super) staged: Staged,
    /// Whether the connection must be reopened before the next transaction.
    pub(super) broken: bool,
    /// Whether the log holds the pages of a write probe.
    pub(super) probed: bool,
}

/// Changes of the account cache, applied once the transaction is durable.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) accounts: HashMap<IntegrationId, Account>,
    pub(super) loaded_holds: HashMap<IntegrationId, Holds>,
    pub(super) changes: Vec<HoldChange>,
    pub(super) changed_integrations: Vec<(IntegrationId, Integration)>,
    pub(super) changed_tenants: Vec<(TenantId, TenantLifecycle)>,
    pub(super) limits: StagedLimits,
}

impl SqliteWriter {
    pub(super) fn new(
        connection: Connection,
        path: PathBuf,
        (lock, data_file): (File, Arc<File>),
        checkpointer: Checkpointer,
        (accounts, limits, guard): (Arc<AccountCache>, Arc<LimitCache>, Arc<CostGuard>),
        (clock, found): (StoreClock, StartClock),
        audit_key: AuditKey,
    ) -> Self {
        let StartClock { mark: _, floor: _, next_number, saved: saved_clock } = found;
        Self {
            connection,
            path,
            checkpointer,
            _data_file: data_file,
            _lock: lock,
            accounts,
            limits,
            calendar: Arc::new(ZonedCalendar::default()),
            guard,
            now: clock.now(),
            clock,
            audit_key,
            next_number,
            saved_clock,
            claims: HashMap::new(),
            staged: Staged::default(),
            broken: false,
            probed: false,
        }
    }

    /// Reopens a broken connection.
    pub(super) fn reopen_if_broken(&mut self) -> Result<(), StoreError> {
        if self.broken {
            let connection = open_writer(&self.path).map_err(store_error)?;
            self.checkpointer.try_empty(&connection).map_err(store_error)?;
            self.connection = connection;
            self.broken = false;
        }
        Ok(())
    }

    /// Clears the memory of accounts, after a commit with an unknown result.
    pub(super) fn clear_caches(&self) {
        self.accounts.clear();
        self.limits.clear();
    }

    /// Whether a hold of a loaded account is due and still open.
    pub(super) fn is_due(&self, hold: &Hold) -> bool {
        let is_open = || match self.staged.loaded_holds.get(&hold.integration_id) {
            Some(holds) => holds.contains(hold),
            None => self.accounts.is_open(hold).unwrap_or(false),
        };
        hold.expires_at <= self.now && is_open()
    }

    /// The first of `count` id numbers: instants in microseconds, so that ids sort by time.
    pub(super) fn allocate_numbers(&mut self, count: usize) -> i64 {
        let first = self.next_number.max(self.clock.now().micros());
        self.next_number = first.saturating_add(i64::try_from(count).unwrap_or(i64::MAX));
        first
    }
}

impl Drop for SqliteWriter {
    /// Moves the log into the file, so that the file alone can be copied.
    fn drop(&mut self) {
        if self.checkpointer.stop() {
            self.checkpointer.empty(&self.connection);
            self.checkpointer.close();
            return;
        }
        tracing::error!(
            "the data file may lack records that are stored in its log: start the server again \
             before anything copies the file"
        );
        if let Err(error) = keep_log(&self.connection) {
            tracing::error!(%error, "the log of the data file cannot be protected, and may be \
                 deleted when the file is closed");
        }
    }
}
