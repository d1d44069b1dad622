//! Whether the database accepts writes, from what the writers last saw.
//!
//! A write that fails because of the disk, or because the database is read-only, raises a doubt.
//! Only a successful write probe ([`crate::Ledger::probe_writes`]) ends it. Other writes do not: on
//! a full disk a group that changes nothing succeeds, and so does one that fits into space that the
//! database has already allocated.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{NotWritable, StoreError};
use crate::write::queue::GROUP_BYTES_MAX;

/// The size of a write probe: that of the records of a group, so that a disk with room for a probe
/// has room for a group.
pub(crate) const WRITE_PROBE_BYTES: u32 = 8 * 1024 * 1024;
const _: () = assert!(WRITE_PROBE_BYTES as usize >= 2 * GROUP_BYTES_MAX, "facts and batches");

/// The reason why the last write failed, shared by the writers of a ledger.
#[derive(Default)]
pub(crate) struct Writable(Mutex<Option<NotWritable>>);

impl Writable {
    /// Why the database does not accept writes; `None` if it does.
    pub(crate) fn doubt(&self) -> Option<NotWritable> {
        *self.0.lock()
    }

    /// Notes the error of a transaction.
    pub(crate) fn failed(&self, error: &StoreError) {
        let StoreError::NotWritable { reason, cause } = error else { return };
        if self.0.lock().replace(*reason) != Some(*reason) {
            let (reason, error) = (reason.as_str(), cause.as_ref() as &dyn std::error::Error);
            let message = "the database accepts no writes: write requests get 503 until it does";
            tracing::error!(reason, error, message);
        }
    }

    /// Notes a successful write probe.
    pub(crate) fn succeeded(&self) {
        if self.0.lock().take().is_some() {
            tracing::info!("the database accepts writes again");
        }
    }

    /// Checks that the database accepts writes.
    ///
    /// # Errors
    /// [`StoreError::NotWritable`] after a failed write, until a probe succeeds.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let Some(reason) = self.doubt() else { return Ok(()) };
        let cause = Arc::new(std::io::Error::other("the last write failed"));
        Err(StoreError::NotWritable { reason, cause })
    }
}
