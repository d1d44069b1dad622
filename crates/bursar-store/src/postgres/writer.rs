//! The implementation of [`WriterConnection`] for PostgreSQL.

use std::sync::Arc;

use bursar_core::Book;

use super::tx::{params, store_error};
use super::writer_state::PostgresWriter;
use super::{audit, clock, load, save};
use crate::clock::ClockConfirmed;
use crate::error::StoreError;
use crate::write::writable::WRITE_PROBE_BYTES;
use crate::write::writer_connection::{Grouping, LoadRequest, SweepWork, WriterConnection};

/// A truncated table begins a new file, so that the probe needs free disk space instead of space
/// that the database has already allocated. The commit deletes the old file.
const EMPTY_PROBE: &str = "truncate write_probe";
const WRITE_PROBE: &str = "insert into write_probe (filler) select $1 from generate_series(1, $2)";
/// The size of a probe row: four fit into a page, and rows of this size are not compressed.
const PROBE_ROW_BYTES: u32 = 2_000;

impl WriterConnection for PostgresWriter {
    fn grouping(&self) -> Grouping {
        Grouping::OneTenant
    }

    fn sweep_work(&mut self, limit: usize) -> Result<SweepWork, StoreError> {
        let (sweep, messages) = (Arc::clone(&self.sweep), self.messages);
        let clock = (self.clock.state(), self.clock.stored());
        let work =
            self.query(async |client| sweep.sweep_work(client, messages, clock, limit).await);
        if work.is_err() {
            // The connection may be inside a transaction.
            self.disconnect();
        }
        work
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        self.claims.clear();
        self.reservations_max = None;
        self.audits.clear();
        self.known.forget_staged();
        self.now = self.clock.to_decide()?;
        self.begin_deferred_with_numbers()
    }

    fn load<'a>(&mut self, request: &LoadRequest<'a>) -> Result<Book<'a>, StoreError> {
        load::book(self, request)
    }

    fn save(&mut self, book: Book<'_>) -> Result<(), StoreError> {
        save::book(self, &book)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        audit::write(self)?;
        self.commit_open()?;
        self.known.keep_staged();
        self.extra_integrations.clear();
        self.locks_all_values = false;
        Ok(())
    }

    fn abandon(&mut self) {
        self.disconnect();
        self.rollback();
        self.extra_integrations.clear();
        self.locks_all_values = false;
        self.reservations_max = None;
    }

    fn write_probe(&mut self) -> Result<(), StoreError> {
        self.query_in_tx(None, async |client| {
            let filler = "x".repeat(PROBE_ROW_BYTES as usize);
            let rows = i64::from(WRITE_PROBE_BYTES / PROBE_ROW_BYTES);
            client.batch_execute(EMPTY_PROBE).await.map_err(store_error)?;
            let filled = client.execute_typed(WRITE_PROBE, params![filler, rows]).await;
            filled.map(|_| ()).map_err(store_error)
        })
    }

    fn confirm_clock(&mut self) -> Result<ClockConfirmed, StoreError> {
        let before = self.clock.now();
        let injected = self.clock.injected();
        self.begin_deferred();
        let confirmed = self
            .query_in_tx(None, async |client| clock::confirm(client, injected).await)
            .and_then(|confirmed| self.commit().map(|()| confirmed));
        if confirmed.is_err() {
            self.rollback();
        }
        let (wall, confirmations) = confirmed?;
        // Another connection of this server may have read the new clock first.
        let now = self.clock.observe_database(wall, confirmations).now;
        Ok(ClockConfirmed { now, changed_micros: now.micros() - before.micros() })
    }

    fn rollback(&mut self) {
        self.claims.clear();
        self.audits.clear();
        self.known.forget_staged();
        self.rollback_open();
    }
}
