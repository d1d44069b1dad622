//! The implementation of [`WriterConnection`] for SQLite.

use bursar_core::{Book, LoadedLimits, TenantId};
use rusqlite::params;

use super::error::store_error;
use super::writer_state::{SqliteWriter, Staged};
use super::{load, save};
use crate::clock::ClockConfirmed;
use crate::error::StoreError;
use crate::rows::columns::Columns;
use crate::rows::decode;
use crate::write::writable::WRITE_PROBE_BYTES;
use crate::write::writer_connection::{LoadRequest, SweepWork, WriterConnection};

const SELECT_DUE: &str = "select call_key, estimated_cost_nanos, estimated_tokens, reserved_at, \
     expires_at, integration_id, postings, tenant_id \
     from reservations indexed by reservations_due where state = 1 and expires_at <= ?1 order by expires_at limit ?2";

/// Replaces the filler of the last probe, so that the file does not grow.
const WRITE_PROBE: &str = "insert into write_probe (id, filler) values (1, zeroblob(?1)) \
     on conflict (id) do update set filler = excluded.filler";

impl WriterConnection for SqliteWriter {
    fn sweep_work(&mut self, limit: usize) -> Result<SweepWork, StoreError> {
        self.reopen_if_broken()?;
        self.accounts.apply_requested_clears();
        self.limits.apply_requested_clears();
        self.saved_clock.save_if_due(&self.connection, &self.clock, self.next_number)?;
        let Ok(now) = self.clock.to_decide() else { return Ok(SweepWork::default()) };
        let mut statement = self.connection.prepare_cached(SELECT_DUE).map_err(store_error)?;
        let rows_max = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![now.micros(), rows_max]).map_err(store_error)?;
        let mut holds = Vec::new();
        while let Some(row) = rows.next().map_err(store_error)? {
            holds.push(decode::posted_hold(row, row.id(7, TenantId::from_number)?)?);
        }
        let missed = self.accounts.take_missed().into_iter().collect();
        Ok(SweepWork { more: holds.len() >= limit, holds, missed })
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.reopen_if_broken()?;
        self.checkpointer.between_transactions(&self.connection);
        self.claims.clear();
        self.staged = Staged::default();
        self.accounts.apply_requested_clears();
        self.limits.apply_requested_clears();
        self.now = self.clock.to_decide()?;
        self.connection.execute_batch("begin immediate").map_err(store_error)
    }

    fn load<'a>(&mut self, request: &LoadRequest<'a>) -> Result<Book<'a>, StoreError> {
        load::book(self, request)
    }

    fn save(&mut self, book: Book<'_>) -> Result<(), StoreError> {
        save::book(self, &book)?;
        let (accounts, limits, changes) = book.into_published();
        self.staged.accounts = accounts;
        self.staged.changes = changes;
        let LoadedLimits { sets, accounts, values } = limits.into_published();
        let staged = &mut self.staged.limits;
        (staged.sets, staged.accounts, staged.values) = (sets, accounts, values);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        if let Err(error) = self.connection.execute_batch("commit") {
            self.broken = true;
            self.clear_caches();
            return Err(store_error(error).into_group_error());
        }
        let staged = std::mem::take(&mut self.staged);
        let Staged { accounts, loaded_holds, changes, limits, .. } = staged;
        let published = self.accounts.publish(self.now, accounts, loaded_holds, &changes);
        if published.and_then(|()| self.limits.publish(self.now, limits, &changes)).is_err() {
            // The stored accounts are correct, and are loaded again.
            self.clear_caches();
        }
        for (integration_id, rules) in staged.changed_integrations {
            self.accounts.change(integration_id, rules);
        }
        for (tenant_id, lifecycle) in staged.changed_tenants {
            self.accounts.change_tenant(tenant_id, lifecycle);
        }
        Ok(())
    }

    fn abandon(&mut self) {
        // Set first, in case the rollback panics as well.
        self.broken = true;
        self.clear_caches();
        self.rollback();
    }

    fn write_probe(&mut self) -> Result<(), StoreError> {
        let written = self.connection.execute(WRITE_PROBE, [WRITE_PROBE_BYTES]);
        self.probed = written.is_ok();
        written.map(|_| ()).map_err(store_error)
    }

    fn confirm_clock(&mut self) -> Result<ClockConfirmed, StoreError> {
        self.reopen_if_broken()?;
        self.saved_clock.confirm(&self.connection, &self.clock, self.next_number)
    }

    fn idle(&mut self) {
        // On a nearly full disk, a probe must not keep the free space. A failed one left nothing in
        // the log.
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
