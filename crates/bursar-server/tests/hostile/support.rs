//! The server under test, honest clients of it, and raw connections.

#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/clock.rs"]
pub(crate) mod clock;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/folder.rs"]
pub(crate) mod folder;
#[expect(dead_code, reason = "the proofs of the front door use more of it")]
#[path = "../front/support/frames.rs"]
pub(crate) mod frames;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/http.rs"]
pub(crate) mod http;
#[expect(dead_code, reason = "the proof of overload uses more of it")]
#[path = "../overload/line.rs"]
pub(crate) mod line;
#[path = "../overload/memory.rs"]
pub(crate) mod memory;
#[expect(dead_code, reason = "the tests of the store use more of it")]
#[path = "../../../bursar-store/tests/support/postgres/mod.rs"]
pub(crate) mod postgres;
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/server.rs"]
pub(crate) mod server;
#[path = "../process/support/tenant.rs"]
pub(crate) mod tenant;

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How long to wait between two looks at a condition that takes its own time.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Lets this process and the server have as many descriptors as the attacks need.
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

/// Looks until a condition holds, but not for ever.
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
