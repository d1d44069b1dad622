//! What a server does under load: a crowd of hostile clients, one caller who takes all it can, and
//! ten times what the server can do.
//!
//! These tests measure time and memory. So they have a binary of their own, and wait for each
//! other. With `BURSAR_PROVE=1` they take longer and keep to the figures that are promised.

#![expect(clippy::expect_used, reason = "a proof stops at the first thing that does not hold")]
#![expect(clippy::indexing_slicing, reason = "a proof stops at the first thing that does not hold")]

mod crowd;
mod hostile;
mod line;
mod memory;
mod overload;

use parking_lot::{Mutex, MutexGuard};

/// Lets one measurement run at a time, for as long as the guard lives.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock()
}
