//! The resources of the server under test.

use bursar_testing::process::memory::resident_kib;

/// The resources of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resources {
    pub(crate) descriptors: usize,
    pub(crate) memory_kib: u64,
}

impl Resources {
    pub(crate) fn of(pid: u32) -> Self {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count();
        Self { descriptors, memory_kib: resident_kib(pid) }
    }
}
