//! The server under test and what it uses of the machine.

#[expect(dead_code, reason = "the proofs of storage use more of it")]
#[path = "../process/support/clock.rs"]
pub(crate) mod clock;
#[path = "../process/support/descriptors.rs"]
pub(crate) mod descriptors;
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
#[path = "../process/support/waiting.rs"]
pub(crate) mod waiting;

pub(crate) use descriptors::raise_descriptors;
pub(crate) use waiting::{scale, within};

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
