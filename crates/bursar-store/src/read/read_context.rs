//! For whom a store reads, and how much memory what it finds may take.
//!
//! A store's rows become an answer piece by piece. Each piece takes its memory from a [`ReadMemory`]
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
pub enum Requester {
    /// The tenant that a method names: it shares readers with other tenants.
    Tenant,
    /// The operator, who has readers that no tenant can use up.
    Operator,
}

/// Why there is no memory for a piece of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMemoryError {
    /// Other answers have it now.
    InUse,
    /// This answer alone is larger than one may be.
    TooLarge,
}

/// The memory that an answer may take while it is built.
pub trait ReadMemory: Send + Sync {
    /// Takes so many bytes.
    ///
    /// # Errors
    /// [`ReadMemoryError`]; then nothing was taken.
    fn take(&self, bytes: usize) -> Result<(), ReadMemoryError>;

    /// Gives bytes back that were taken for what is no longer kept.
    fn give_back(&self, bytes: usize);
}

/// Memory without a bound, for what is small whatever is stored.
#[derive(Clone, Copy, Debug)]
pub struct UnlimitedReadMemory;

impl ReadMemory for UnlimitedReadMemory {
    fn take(&self, _: usize) -> Result<(), ReadMemoryError> {
        Ok(())
    }

    fn give_back(&self, _: usize) {}
}

/// For whom a store reads, and where the memory of the answer comes from.
#[derive(Clone)]
pub struct ReadContext {
    pub requester: Requester,
    pub memory: Arc<dyn ReadMemory>,
}

impl ReadContext {
    /// Reads for whoever asks, without a bound on what is kept.
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

/// Takes memory for a row of a list whose texts have so many bytes.
pub(crate) fn take_row(memory: &dyn ReadMemory, text_bytes: usize) -> Result<(), StoreError> {
    // Texts are kept as they are read, and once more as JSON.
    Ok(memory.take(ROW_BYTES + 2 * text_bytes)?)
}

/// Memory of what is kept for a part of a question only.
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
