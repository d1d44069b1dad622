//! A cgroup that limits the memory of the server, including the page cache of its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::machine::Capability;
use crate::waiting::within;

/// How long the kernel may take to release a cgroup whose last process has exited.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// A memory cgroup below the one of this process. Dropping it removes it, if it is empty.
pub struct MemoryCgroup {
    folder: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// The folder of the cgroup of this process, if it has a memory controller.
    fn own_folder(self, memberships: &str) -> Option<PathBuf> {
        let (controllers, root) = match self {
            Self::One => ("memory", "/sys/fs/cgroup/memory"),
            Self::Two => ("", "/sys/fs/cgroup"),
        };
        memberships.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (named, path) = rest.split_once(':')?;
            let is_listed = named.split(',').any(|name| name == controllers);
            is_listed.then(|| Path::new(root).join(path.trim_start_matches('/')))
        })
    }

    fn limit_file(self) -> &'static str {
        match self {
            Self::One => "memory.limit_in_bytes",
            Self::Two => "memory.max",
        }
    }

    fn kills_file(self) -> &'static str {
        match self {
            Self::One => "memory.oom_control",
            Self::Two => "memory.events",
        }
    }
}

impl MemoryCgroup {
    /// A cgroup with a memory limit; `None` if the machine does not allow one.
    #[track_caller]
    pub fn new(bytes_max: u64) -> Option<Self> {
        Capability::Cgroups.check(Self::make(bytes_max))
    }

    fn make(bytes_max: u64) -> Option<Self> {
        let memberships = fs::read_to_string("/proc/self/cgroup").ok()?;
        [Version::Two, Version::One].into_iter().find_map(|version| {
            let own = version.own_folder(&memberships)?;
            let folder = own.join(format!("bursar-overload-{}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let cgroup = Self { folder, version };
            // Only the kernel creates these files. Without them this is an ordinary folder.
            if !cgroup.procs_file().exists() || !cgroup.file(version.limit_file()).exists() {
                return None;
            }
            fs::write(cgroup.file(version.limit_file()), bytes_max.to_string()).ok()?;
            Some(cgroup)
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A process that writes its id into this file joins the cgroup.
    pub fn procs_file(&self) -> PathBuf {
        self.file("cgroup.procs")
    }

    /// The number of processes in the cgroup that the kernel killed for lack of memory.
    pub fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.file(self.version.kills_file()))
            .expect("the events of the cgroup");
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.and_then(|kills| kills.trim().parse().ok()).expect("a count of kills")
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        if within(RELEASE_MAX, || fs::remove_dir(&self.folder).ok()).is_none() {
            eprintln!("{} was not removed", self.folder.display());
        }
    }
}
