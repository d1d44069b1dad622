//! The sizes of the store's caches, derived from the memory of the machine or the container.

use std::fs;
use std::path::Path;

const KIB: i64 = 1024;
const MIB: i64 = 1024 * KIB;
/// The memory that is assumed if the system does not report it.
const UNKNOWN: i64 = 1024 * MIB;
/// The size of a page of the data file.
pub(crate) const PAGE: i64 = 4 * KIB;

/// The sizes of the store's caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caches {
    /// The writer's page cache.
    pub(crate) writer_kib: i64,
    /// The page cache of each reader.
    pub(crate) reader_kib: i64,
    /// The pages of the log at which it should restart.
    ///
    /// With few (SQLite's default is 1,000), pages of the dedupe index are copied often. With many,
    /// the log displaces the data file from the system's cache if there is little memory.
    pub(crate) log_pages: i64,
}

impl Caches {
    /// The sizes for the memory of this process.
    pub(crate) fn fitting() -> Self {
        Self::of(memory_bytes())
    }

    fn of(memory_bytes: i64) -> Self {
        let part = |of_all: i64, bytes_max: i64| (memory_bytes / of_all).clamp(MIB, bytes_max);
        Self {
            writer_kib: part(8, 64 * MIB) / KIB,
            reader_kib: part(64, 8 * MIB) / KIB,
            log_pages: part(16, 64 * MIB) / PAGE,
        }
    }
}

/// The memory of the machine, or of the control group that this process is in.
fn memory_bytes() -> i64 {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let of_machine = read(Path::new("/proc/meminfo")).and_then(|text| total_bytes(&text));
    let memberships = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let of_group = group_limit(&memberships, read);
    of_machine.into_iter().chain(of_group).min().unwrap_or(UNKNOWN)
}

fn total_bytes(meminfo: &str) -> Option<i64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.parse::<i64>().ok()?.checked_mul(KIB)
}

/// The smallest memory limit of the control groups of this process, from `/proc/self/cgroup`.
///
/// In a container, the process's own group is often mounted as the root.
fn group_limit(memberships: &str, read: impl Fn(&Path) -> Option<String>) -> Option<i64> {
    let limits = memberships.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return None;
        };
        let root = Path::new(root);
        let own = root.join(path.trim_start_matches('/'));
        let around = own.ancestors().take_while(|folder| folder.starts_with(root));
        // No limit is the word max, or a number above the memory of any machine.
        around.filter_map(|folder| read(&folder.join(file))?.trim().parse::<i64>().ok()).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_parts_of_the_memory_up_to_a_limit() {
        let of_a_small_container = Caches::of(256 * MIB);
        let expected = Caches { writer_kib: 32 * KIB, reader_kib: 4 * KIB, log_pages: 4_096 };
        assert_eq!(of_a_small_container, expected);
        let expected = Caches { writer_kib: 64 * KIB, reader_kib: 8 * KIB, log_pages: 16_384 };
        assert_eq!(Caches::of(1024 * MIB), expected);
        assert_eq!(Caches::of(i64::MAX), expected);
        assert_eq!(Caches::of(0).reader_kib, KIB);
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        let text = "MemFree: 12 kB\nMemTotal:       24684068 kB\n";
        assert_eq!(total_bytes(text), Some(24_684_068 * 1024));
        assert_eq!(total_bytes("MemTotal: much"), None);
    }

    #[track_caller]
    fn check(memberships: &str, files: &[(&str, &str)], expected: Option<i64>) {
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| format!("{text}\n"))
        };
        assert_eq!(group_limit(memberships, read), expected, "{memberships}");
    }

    #[test]
    fn the_smallest_limit_around_the_process_counts() {
        let one = "4:cpu,memory:/a/b\n1:cpu:/c\n";
        let limit = |folder: &str| format!("/sys/fs/cgroup/memory{folder}/memory.limit_in_bytes");
        let (own, outer, root) = (limit("/a/b"), limit("/a"), limit(""));
        let unlimited = "9223372036854771712";
        check(one, &[(&own, unlimited), (&outer, "7"), (&root, unlimited)], Some(7));
        check(one, &[(&root, "8")], Some(8));
        check(one, &[], None);
        check("0::/x\n", &[("/sys/fs/cgroup/x/memory.max", "9")], Some(9));
        check("0::/x\n", &[("/sys/fs/cgroup/x/memory.max", "max")], None);
        check("0::/\n", &[("/sys/fs/cgroup/memory.max", "10")], Some(10));
        check("", &[("/sys/fs/cgroup/memory.max", "10")], None);
    }
}
