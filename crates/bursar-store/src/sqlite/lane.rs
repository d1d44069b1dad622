//! The writer of the embedded store.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use bursar_core::{
    Account, Book, CallKey, EntryId, Hold, HoldChange, Integration, IntegrationId, TenantId,
    TenantLifecycle, Timestamp,
};
use rusqlite::{Connection, params};

use super::checkpoint::{Checkpointer, keep_log};
use super::clock::{Found, Noted};
use super::holds::Holds;
use super::view::View;
use super::{load, open_writer, save, store_error};
use crate::audit::chain::AuditKey;
use crate::clock::{ClockConfirmed, StoreClock};
use crate::error::StoreError;
use crate::rows::decode;
use crate::write::lane::{Due, Lane, Wanted};
use crate::write::writable::WRITE_PROBE_BYTES;

const SELECT_DUE: &str = "select call_key, estimated_cost_nanos, estimated_tokens, reserved_at, \
     expires_at, tenant_id, integration_id from calls indexed by calls_due \
     where reservation_state = 1 and expires_at <= ?1 order by expires_at limit ?2";

/// Replaces the filler, so that the file keeps the room for one.
const WRITE_PROBE: &str = "insert into write_probe (id, filler) values (1, zeroblob(?1)) \
     on conflict (id) do update set filler = excluded.filler";

pub(super) struct SqliteLane {
    pub(super) connection: Connection,
    path: PathBuf,
    checkpointer: Checkpointer,
    /// Closed after the connection; see [`super::checkpoint`].
    _data_file: Arc<File>,
    /// Held as long as the lane lives.
    _lock: File,
    view: Arc<View>,
    pub(super) clock: StoreClock,
    pub(super) audit_key: AuditKey,
    pub(super) now: Timestamp,
    pub(super) next_number: i64,
    pub(super) noted: Noted,
    /// Call ids that this transaction claimed, with the entries they were claimed for.
    pub(super) claims: HashMap<(TenantId, CallKey), Option<EntryId>>,
    pub(super) staged: Staged,
    /// Whether the connection failed in a way after which it must be opened anew.
    broken: bool,
    /// Whether the log has something that was written only to learn whether it can be.
    probed: bool,
}

/// What memory takes over when the transaction is durable.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) accounts: HashMap<IntegrationId, Account>,
    pub(super) loaded_holds: HashMap<IntegrationId, Holds>,
    pub(super) changes: Vec<HoldChange>,
    pub(super) changed_integrations: Vec<(IntegrationId, Integration)>,
    pub(super) changed_tenants: Vec<(TenantId, TenantLifecycle)>,
}

impl SqliteLane {
    pub(super) fn new(
        connection: Connection,
        path: PathBuf,
        (lock, data_file): (File, Arc<File>),
        checkpointer: Checkpointer,
        view: Arc<View>,
        (clock, found): (StoreClock, Found),
        audit_key: AuditKey,
    ) -> Self {
        let Found { mark: _, floor: _, next_number, noted } = found;
        Self {
            connection,
            path,
            checkpointer,
            _data_file: data_file,
            _lock: lock,
            view,
            now: clock.now(),
            clock,
            audit_key,
            next_number,
            noted,
            claims: HashMap::new(),
            staged: Staged::default(),
            broken: false,
            probed: false,
        }
    }

    /// Opens the connection anew after it failed in a way that asks for it.
    pub(super) fn mend(&mut self) -> Result<(), StoreError> {
        if self.broken {
            let connection = open_writer(&self.path).map_err(store_error)?;
            self.checkpointer.try_empty(&connection).map_err(store_error)?;
            self.connection = connection;
            self.broken = false;
        }
        Ok(())
    }

    /// The view's copy of an account, or the stored one.
    pub(super) fn account(
        &mut self,
        tenant_id: TenantId,
        integration_id: IntegrationId,
    ) -> Result<Option<Account>, StoreError> {
        if let Some(account) = self.view.borrow(integration_id, self.now)? {
            return Ok((account.tenant_id == tenant_id).then_some(account));
        }
        let Some(mut account) =
            load::account(&self.connection, tenant_id, integration_id, self.now)?
        else {
            return Ok(None);
        };
        let holds = load::open_holds(&self.connection, tenant_id, integration_id)?;
        account.restore_due(holds.due(self.now)?);
        account.restore_open(holds.count());
        self.staged.loaded_holds.insert(integration_id, holds);
        Ok(Some(account))
    }

    /// Whether a hold of an account that is loaded is due and still open.
    pub(super) fn is_due(&self, hold: &Hold) -> bool {
        let is_open = || match self.staged.loaded_holds.get(&hold.integration_id) {
            Some(holds) => holds.contains(hold),
            None => self.view.is_open(hold).unwrap_or(false),
        };
        hold.expires_at <= self.now && is_open()
    }
}

impl Lane for SqliteLane {
    fn due(&mut self, limit: usize) -> Result<Due, StoreError> {
        self.mend()?;
        self.view.clear_asked();
        self.note_clock()?;
        let Ok(now) = self.clock.to_decide() else { return Ok(Due::default()) };
        let mut statement = self.connection.prepare_cached(SELECT_DUE).map_err(store_error)?;
        let rows_max = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![now.micros(), rows_max]).map_err(store_error)?;
        let mut holds = Vec::new();
        while let Some(row) = rows.next().map_err(store_error)? {
            let (tenant_id, integration_id) = decode::integration_ref(row, 5)?;
            holds.push(decode::hold(row, tenant_id, integration_id)?);
        }
        let missed = self.view.take_missed().into_iter().collect();
        Ok(Due { more: holds.len() >= limit, holds, missed })
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.mend()?;
        self.checkpointer.tend(&self.connection);
        self.claims.clear();
        self.staged = Staged::default();
        self.view.clear_asked();
        self.now = self.clock.to_decide()?;
        self.connection.execute_batch("begin immediate").map_err(store_error)
    }

    fn load<'a>(&mut self, wanted: &Wanted<'a>) -> Result<Book<'a>, StoreError> {
        load::book(self, wanted)
    }

    fn save(&mut self, book: Book<'_>) -> Result<(), StoreError> {
        save::book(self, &book)?;
        let (accounts, changes) = book.into_published();
        self.staged.accounts = accounts;
        self.staged.changes = changes;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        if let Err(error) = self.connection.execute_batch("commit") {
            self.broken = true;
            self.view.clear();
            return Err(store_error(error).of_no_command());
        }
        let staged = std::mem::take(&mut self.staged);
        let Staged { accounts, loaded_holds, changes, .. } = staged;
        if self.view.publish(self.now, accounts, loaded_holds, changes).is_err() {
            // What is stored is right; it is read again.
            self.view.clear();
        }
        for (integration_id, rules) in staged.changed_integrations {
            self.view.change(integration_id, rules);
        }
        for (tenant_id, lifecycle) in staged.changed_tenants {
            self.view.change_tenant(tenant_id, lifecycle);
        }
        Ok(())
    }

    fn abandon(&mut self) {
        // First, in case the rollback panics as well.
        self.broken = true;
        self.view.clear();
        self.rollback();
    }

    fn write_probe(&mut self) -> Result<(), StoreError> {
        let written = self.connection.execute(WRITE_PROBE, [WRITE_PROBE_BYTES]);
        self.probed = written.is_ok();
        written.map(|_| ()).map_err(store_error)
    }

    fn confirm_clock(&mut self) -> Result<ClockConfirmed, StoreError> {
        self.confirm()
    }

    fn idle(&mut self) {
        // On a disk with hardly any room, a probe must not keep what is left. One that failed left
        // nothing in the log.
        if std::mem::take(&mut self.probed) {
            self.checkpointer.empty(&self.connection);
        } else {
            self.checkpointer.idle(&self.connection);
        }
    }

    fn rollback(&mut self) {
        self.probed = false;
        self.staged = Staged::default();
        self.claims.clear();
        if !self.connection.is_autocommit() && self.connection.execute_batch("rollback").is_err() {
            self.broken = true;
        }
    }
}

impl Drop for SqliteLane {
    /// Leaves the whole of the data in the file, for whoever copies it.
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
            tracing::error!(%error, "the log may be deleted");
        }
    }
}

impl SqliteLane {
    /// The first of `count` numbers: instants in microseconds, so that ids sort by time.
    pub(super) fn allot_numbers(&mut self, count: usize) -> i64 {
        let first = self.next_number.max(self.clock.now().micros());
        self.next_number = first.saturating_add(i64::try_from(count).unwrap_or(i64::MAX));
        first
    }
}
