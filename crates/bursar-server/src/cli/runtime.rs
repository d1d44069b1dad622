//! The async runtime of a command.

use tokio::runtime::{Builder, Runtime};

pub(super) fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}
