//! Whether the database takes writes, by what the writers saw last.
//!
//! A write that fails because of the disk, or because the database is read-only, puts that in doubt;
//! only a write that is made for it ([`crate::Ledger::probe_writes`]) ends the doubt. Other writes do
//! not: on a full disk a group that changes nothing succeeds, and so does one that fits into room
//! which the database has already.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{NotWritable, StoreError};
use crate::write::queue::GROUP_BYTES_MAX;

/// What a probe writes: as much as the records of a group, so that a disk that takes a probe takes
/// a group.
pub(crate) const WRITE_PROBE_BYTES: u32 = 8 * 1024 * 1024;
const _: () = assert!(WRITE_PROBE_BYTES as usize >= 2 * GROUP_BYTES_MAX, "facts and batches");

/// What the writers of a ledger saw.
#[derive(Default)]
pub(crate) struct Writable(Mutex<Option<NotWritable>>);

impl Writable {
    /// Why the database takes no writes, if it takes none.
    pub(crate) fn doubt(&self) -> Option<NotWritable> {
        *self.0.lock()
    }

    /// Takes note of what a transaction failed with.
    pub(crate) fn failed(&self, error: &StoreError) {
        let StoreError::NotWritable { reason, cause } = error else { return };
        if self.0.lock().replace(*reason) != Some(*reason) {
            let (reason, error) = (reason.as_str(), cause.as_ref() as &dyn std::error::Error);
            tracing::error!(reason, error, "the database takes no writes: they are answered 503");
        }
    }

    /// Takes note of a write that was made to learn this.
    pub(crate) fn succeeded(&self) {
        if self.0.lock().take().is_some() {
            tracing::info!("the database takes writes again");
        }
    }

    /// The error of whoever asks while there is a doubt.
    ///
    /// # Errors
    /// [`StoreError::NotWritable`].
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let Some(reason) = self.doubt() else { return Ok(()) };
        let cause = Arc::new(std::io::Error::other("the last write failed"));
        Err(StoreError::NotWritable { reason, cause })
    }
}
