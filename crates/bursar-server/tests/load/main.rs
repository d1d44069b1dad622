//! A server under load: many hostile connections, a caller that exhausts a resource, and ten times
//! the capacity of the server.
//!
//! The tests measure time and memory, so they have their own binary and run one at a time. With
//! `BURSAR_PROVE=1` they run longer and check the documented figures.

#![expect(clippy::expect_used, reason = "a proof stops at the first thing that does not hold")]
#![expect(clippy::indexing_slicing, reason = "a proof stops at the first thing that does not hold")]

mod background;
mod connection;
mod crowd;
mod hostile;
mod memory;
mod overload;
mod percentile;

use parking_lot::{Mutex, MutexGuard};

/// Waits until no other measurement runs; the guard keeps others out.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock()
}
