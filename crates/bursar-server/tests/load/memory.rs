//! Samples of the resident memory of the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bursar_testing::process::memory::resident_kib;

/// The interval between two samples.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// A thread that samples the resident memory of a process.
pub(crate) struct MemoryWatch {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u64>>,
}

/// Samples of the resident memory in KiB, in order.
pub(crate) struct Residents(Vec<u64>);

impl MemoryWatch {
    pub(crate) fn start(pid: u32) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            let mut kib = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                kib.push(resident_kib(pid));
                std::thread::sleep(SAMPLE_EVERY);
            }
            kib
        });
        Self { end, thread }
    }

    pub(crate) fn end(self) -> Residents {
        self.end.store(true, Ordering::Relaxed);
        Residents(self.thread.join().expect("the sampling thread"))
    }
}

impl Residents {
    /// The maxima of the first and of the second half.
    pub(crate) fn halves_kib(&self) -> (u64, u64) {
        let (first, second) = self.0.split_at(self.0.len() / 2);
        let most = |part: &[u64]| part.iter().copied().max().unwrap_or_default();
        (most(first), most(second))
    }

    /// The maximum of each tenth, in MiB.
    pub(crate) fn curve_mib(&self) -> Vec<u64> {
        let part = self.0.len().div_ceil(10).max(1);
        self.0.chunks(part).map(|part| part.iter().max().unwrap_or(&0) / 1024).collect()
    }
}
