//! Metrics of the process, read from Linux. On other systems they stay at zero.

use prometheus::{Counter, IntGauge, Registry, Result};

use super::table;
use crate::observe::log;
use crate::wire::timestamps;

/// The clock ticks per second in which Linux reports processor time.
const TICKS_A_SECOND: f64 = 100.0;

/// The metrics of the process.
pub(super) struct ProcessMetrics {
    cpu: Counter,
    memory: IntGauge,
    open_fds: IntGauge,
    log_dropped: Counter,
}

impl ProcessMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let version = env!("CARGO_PKG_VERSION");
        table::BUILD_INFO.gauges(registry)?.with_label_values(&[version]).set(1);
        table::PROCESS_START.gauge(registry)?.set(timestamps::system_now().micros() / 1_000_000);
        Ok(Self {
            cpu: table::PROCESS_CPU.counter(registry)?,
            memory: table::PROCESS_MEMORY.gauge(registry)?,
            open_fds: table::PROCESS_FDS.gauge(registry)?,
            log_dropped: table::LOG_DROPPED.counter(registry)?,
        })
    }

    /// Updates the metrics.
    pub(super) fn refresh(&self) {
        let dropped = log::dropped() as f64;
        self.log_dropped.inc_by((dropped - self.log_dropped.get()).max(0.0));
        if let Some(seconds) = read("/proc/self/stat").as_deref().and_then(cpu_seconds) {
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
        if let Some(bytes) = read("/proc/self/status").as_deref().and_then(resident_bytes) {
            self.memory.set(bytes);
        }
        if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            let open = descriptors.count().saturating_sub(1);
            self.open_fds.set(i64::try_from(open).unwrap_or(i64::MAX));
        }
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The processor time in user and kernel mode: fields 14 and 15.
///
/// Field 2 is a name in parentheses that can contain anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut ticks = after_name.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = ticks.next()?.ok()? + ticks.next()?.ok()?;
    Some(ticks as f64 / TICKS_A_SECOND)
}

fn resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_texts_are_read() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(cpu_seconds(stat).map(|seconds| (seconds * 10.0) as i64), Some(20));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t   12 kB\nVmData:\t9 kB\n"), Some(12_288));
        assert_eq!(cpu_seconds("nonsense"), None);
        assert_eq!(resident_bytes("VmRSS: many kB"), None);
    }
}
