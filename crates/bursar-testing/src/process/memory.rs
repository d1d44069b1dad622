//! Memory of a process.

/// The resident memory of a process in KiB.
///
/// # Panics
/// If the process has exited.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
    resident.expect("the resident memory of a running process")
}
