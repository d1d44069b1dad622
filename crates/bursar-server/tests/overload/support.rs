//! The server under test and its clients.

#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/clock.rs"]
pub(crate) mod clock;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/folder.rs"]
pub(crate) mod folder;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/http.rs"]
pub(crate) mod http;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/server.rs"]
pub(crate) mod server;
#[path = "../process/support/tenant.rs"]
pub(crate) mod tenant;

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How long to wait between two looks at something that takes its own time.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Lets this process and the server have as many descriptors as the load needs.
pub(crate) fn raise_descriptors(needed: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return;
    }
    let raised = Rlimit { current: Some(needed), maximum };
    setrlimit(Resource::Nofile, raised).expect("the system gives as many descriptors as needed");
}

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

/// The value below which so many percent of some are.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}
