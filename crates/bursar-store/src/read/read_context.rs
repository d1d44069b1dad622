//! The context of a read: who requests it, and the memory that its result may use.
//!
//! Rows become a result piece by piece. Each piece takes its memory from a [`ReadMemory`] first, so
//! that concurrent reads cannot exceed the memory that is set aside for them.
//!
//! Deliberately absent: the size of that memory, which the server decides.

use std::fmt;
use std::sync::Arc;

use crate::error::StoreError;

/// The approximate memory of a list's row without its texts: as a row, as a view, and as JSON.
const ROW_BYTES: usize = 1_024;
/// The approximate memory of one set of sums: while it is added up, and as JSON.
pub(crate) const SUMS_BYTES: usize = 700;

/// Who requests a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requester {
    /// The tenant that the method names. Tenants share a pool of readers.
    Tenant,
    /// The operator, who has separate readers, so that no tenant can use them up.
    Operator,
}

/// Why there is no memory for a piece of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMemoryError {
    /// Other results use it now.
    InUse,
    /// This result alone exceeds the limit on one result.
    TooLarge,
}

/// The memory that a result may use while it is built.
pub trait ReadMemory: Send + Sync {
    /// Takes `bytes` of memory.
    ///
    /// # Errors
    /// [`ReadMemoryError`]; nothing is taken then.
    fn take(&self, bytes: usize) -> Result<(), ReadMemoryError>;

    /// Gives back memory that was taken before.
    fn give_back(&self, bytes: usize);
}

/// Unlimited memory, for results that are always small.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnlimitedReadMemory;

impl ReadMemory for UnlimitedReadMemory {
    fn take(&self, _: usize) -> Result<(), ReadMemoryError> {
        Ok(())
    }

    fn give_back(&self, _: usize) {}
}

/// Who requests a read, and the memory that its result may use.
#[derive(Clone)]
pub struct ReadContext {
    pub requester: Requester,
    pub memory: Arc<dyn ReadMemory>,
}

impl ReadContext {
    /// A context with unlimited memory.
    pub fn unlimited(requester: Requester) -> Self {
        Self { requester, memory: Arc::new(UnlimitedReadMemory) }
    }
}

impl Default for ReadContext {
    fn default() -> Self {
        Self::unlimited(Requester::Tenant)
    }
}

impl fmt::Debug for ReadContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadContext").field("requester", &self.requester).finish_non_exhaustive()
    }
}

/// Takes the memory of a list's row whose texts have `text_bytes` bytes.
pub(crate) fn take_row(memory: &dyn ReadMemory, text_bytes: usize) -> Result<(), StoreError> {
    // Texts are in memory twice: as they are read, and as JSON.
    Ok(memory.take(ROW_BYTES + 2 * text_bytes)?)
}

/// Memory that is needed for a part of a read only; dropping it gives the memory back.
pub(crate) struct ScratchMemory<'a> {
    memory: &'a dyn ReadMemory,
    bytes: usize,
}

impl<'a> ScratchMemory<'a> {
    pub(crate) fn new(memory: &'a dyn ReadMemory) -> Self {
        Self { memory, bytes: 0 }
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.memory.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for ScratchMemory<'_> {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

impl From<ReadMemoryError> for StoreError {
    fn from(error: ReadMemoryError) -> Self {
        match error {
            ReadMemoryError::InUse => Self::Overloaded,
            ReadMemoryError::TooLarge => Self::ReadTooLarge,
        }
    }
}
