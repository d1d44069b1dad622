//! A server in a folder of its own, clients that remember what they were told, and the sums that
//! must agree with it.

pub(crate) mod books;
pub(crate) mod canary;
pub(crate) mod chance;
pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod folder;
pub(crate) mod http;
pub(crate) mod server;
pub(crate) mod strace;
pub(crate) mod tenant;
pub(crate) mod through;
pub(crate) mod writer;

use std::time::{Duration, Instant};

/// How long to wait between two looks at something that takes its own time.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// One figure for an ordinary run, another for a long proof.
pub(crate) fn scale<T>(ordinary: T, proving: T) -> T {
    let proves = std::env::var_os("BURSAR_PROVE").is_some_and(|value| value == "1");
    if proves { proving } else { ordinary }
}

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
