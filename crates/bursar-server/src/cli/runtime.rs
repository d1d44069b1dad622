//! The runtime on which a command does its asynchronous work.

use tokio::runtime::{Builder, Runtime};

/// A runtime with a thread for each core, a clock and sockets.
pub(super) fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}
