//! Bytes that all requests share, so that memory stays bounded whoever sends or asks for much.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of bytes that may be held at once.
#[derive(Clone, Debug)]
pub struct ByteBudget(Arc<Semaphore>);

/// Bytes that are taken from a budget until this is dropped.
#[derive(Debug)]
pub struct ByteHold {
    permit: OwnedSemaphorePermit,
}

impl ByteBudget {
    /// A budget of so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes_max.min(Semaphore::MAX_PERMITS))))
    }

    /// Takes bytes at once or not at all: whoever waits for memory holds memory.
    pub fn take(&self, bytes: usize) -> Option<ByteHold> {
        let bytes = u32::try_from(bytes).ok()?;
        let permit = Arc::clone(&self.0).try_acquire_many_owned(bytes).ok()?;
        Some(ByteHold { permit })
    }
}

impl ByteHold {
    /// Holds what another one holds as well.
    pub fn join(&mut self, other: Self) {
        self.permit.merge(other.permit);
    }

    /// Ties the hold to bytes: it ends when the last copy of them is dropped.
    pub fn keep(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Kept { bytes, _hold: self })
    }
}

struct Kept {
    bytes: Bytes,
    _hold: ByteHold,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_held_as_long_as_any_copy_of_them() {
        let budget = ByteBudget::new(10);
        let mut hold = budget.take(4).expect("room");
        hold.join(budget.take(4).expect("room"));
        assert!(budget.take(3).is_none());
        let kept = hold.keep(Bytes::from_static(b"12345678"));
        let part = kept.slice(2..3);
        drop(kept);
        assert!(budget.take(3).is_none());
        drop(part);
        assert!(budget.take(10).is_some());
    }
}
