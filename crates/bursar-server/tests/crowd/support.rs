//! The server under test and what it uses of the machine.

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
#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/server.rs"]
pub(crate) mod server;
#[path = "../process/support/tenant.rs"]
pub(crate) mod tenant;

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How long to wait between two looks at something that takes its own time.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What a process uses of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resources {
    pub(crate) descriptors: usize,
    pub(crate) memory_kib: u64,
}

impl Resources {
    pub(crate) fn of(pid: u32) -> Self {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
        Self { descriptors, memory_kib: memory.expect("its memory") }
    }
}

/// Lets this process and the server have as many descriptors as the crowd needs.
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
