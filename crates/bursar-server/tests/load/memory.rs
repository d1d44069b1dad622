//! What the server has in memory, looked at all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A thread that looks at the resident memory of a process.
pub(crate) struct MemoryWatch {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u64>>,
}

/// What was resident, in KiB, from the beginning to the end.
pub(crate) struct Residents(Vec<u64>);

impl MemoryWatch {
    pub(crate) fn start(pid: u32) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let mut kib = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                kib.push(resident_kib(pid));
                std::thread::sleep(LOOK_EVERY);
            }
            kib
        });
        Self { end, thread }
    }

    pub(crate) fn end(self) -> Residents {
        self.end.store(true, Ordering::Relaxed);
        Residents(self.thread.join().expect("the watch of the memory"))
    }
}

impl Residents {
    /// The most in the first and in the second half of the time.
    pub(crate) fn halves_kib(&self) -> (u64, u64) {
        let (first, second) = self.0.split_at(self.0.len() / 2);
        let most = |part: &[u64]| part.iter().copied().max().unwrap_or_default();
        (most(first), most(second))
    }

    /// The most in each tenth of the time, in MiB.
    pub(crate) fn curve_mib(&self) -> Vec<u64> {
        let part = self.0.len().div_ceil(10).max(1);
        self.0.chunks(part).map(|part| part.iter().max().unwrap_or(&0) / 1024).collect()
    }
}

/// What of a process is resident.
///
/// # Panics
/// When the process has ended.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
    resident.expect("the memory of a process that lives")
}
