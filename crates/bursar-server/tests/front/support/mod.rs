//! A server, and clients that send any bytes they like.

#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../../process/support/clock.rs"]
pub(crate) mod clock;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../../process/support/folder.rs"]
pub(crate) mod folder;
pub(crate) mod frames;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../../process/support/http.rs"]
pub(crate) mod http;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../../process/support/server.rs"]
pub(crate) mod server;
#[path = "../../process/support/tenant.rs"]
pub(crate) mod tenant;
pub(crate) mod wire;

use std::time::{Duration, Instant};

/// How long to wait between two looks at something that takes its own time.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Looks until something is there, but not for ever.
pub(crate) fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
