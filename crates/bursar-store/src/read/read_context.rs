//! For whom a store reads, and how much memory what it finds may take.
//!
//! A store's rows become an answer piece by piece. Each piece takes its memory from a [`Room`]
//! before it is kept, so that many answers in the making cannot take more than was set aside for
//! them. Absent: how much that is, which the server decides.

use std::fmt;
use std::sync::Arc;

use crate::error::StoreError;

/// About what a row of a list takes beside its texts: as it is read, as it is shown, and as JSON.
const ROW_BYTES: usize = 1_024;
/// About what one set of sums takes: as it is added up, and as JSON.
pub(crate) const SUMS_BYTES: usize = 700;

/// For whom a store reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The tenant that a method names: it shares readers with other tenants.
    Tenant,
    /// The operator, who has readers that no tenant can use up.
    Operator,
}

/// Why there is no memory for a piece of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// Other answers have it now.
    Now,
    /// This answer alone is larger than one may be.
    Ever,
}

/// The memory that an answer may take while it is built.
pub trait Room: Send + Sync {
    /// Takes so many bytes.
    ///
    /// # Errors
    /// [`NoRoom`]; then nothing was taken.
    fn take(&self, bytes: usize) -> Result<(), NoRoom>;

    /// Gives bytes back that were taken for what is no longer kept.
    fn give_back(&self, bytes: usize);
}

/// Memory without a bound, for what is small whatever is stored.
#[derive(Clone, Copy, Debug)]
pub struct Unbounded;

impl Room for Unbounded {
    fn take(&self, _: usize) -> Result<(), NoRoom> {
        Ok(())
    }

    fn give_back(&self, _: usize) {}
}

/// For whom a store reads, and where the memory of the answer comes from.
#[derive(Clone)]
pub struct Reading {
    pub asker: Asker,
    pub room: Arc<dyn Room>,
}

impl Reading {
    /// Reads for whoever asks, without a bound on what is kept.
    pub fn unbounded(asker: Asker) -> Self {
        Self { asker, room: Arc::new(Unbounded) }
    }
}

impl Default for Reading {
    fn default() -> Self {
        Self::unbounded(Asker::Tenant)
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("asker", &self.asker).finish_non_exhaustive()
    }
}

/// Takes memory for a row of a list whose texts have so many bytes.
pub(crate) fn take_row(room: &dyn Room, text_bytes: usize) -> Result<(), StoreError> {
    // Texts are kept as they are read, and once more as JSON.
    Ok(room.take(ROW_BYTES + 2 * text_bytes)?)
}

/// Memory of what is kept for a part of a question only.
pub(crate) struct Lent<'a> {
    room: &'a dyn Room,
    bytes: usize,
}

impl<'a> Lent<'a> {
    pub(crate) fn new(room: &'a dyn Room) -> Self {
        Self { room, bytes: 0 }
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.room.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}

impl From<NoRoom> for StoreError {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::Now => Self::Overloaded,
            NoRoom::Ever => Self::ReadTooLarge,
        }
    }
}
