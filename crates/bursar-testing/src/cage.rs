//! A memory cgroup around the server: what it may use of the machine, the system's caches of its
//! files included.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::machine::Need;
use crate::waiting::within;

/// How long the system may take to let go of a cgroup whose last process has ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// A memory cgroup inside the one of this process. Dropping it removes it, if it is empty.
pub struct Cage {
    folder: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// Where the kernel shows the cgroup of this process, if its memory can be bounded there.
    fn own_folder(self, memberships: &str) -> Option<PathBuf> {
        let (controllers, root) = match self {
            Self::One => ("memory", "/sys/fs/cgroup/memory"),
            Self::Two => ("", "/sys/fs/cgroup"),
        };
        memberships.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (named, path) = rest.split_once(':')?;
            let of_it = named.split(',').any(|name| name == controllers);
            of_it.then(|| Path::new(root).join(path.trim_start_matches('/')))
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

impl Cage {
    /// A cgroup of so much memory, where this process may make one.
    #[track_caller]
    pub fn new(bytes_max: u64) -> Option<Self> {
        Need::Cgroups.met_by(Self::make(bytes_max))
    }

    fn make(bytes_max: u64) -> Option<Self> {
        let memberships = fs::read_to_string("/proc/self/cgroup").ok()?;
        [Version::Two, Version::One].into_iter().find_map(|version| {
            let own = version.own_folder(&memberships)?;
            let folder = own.join(format!("bursar-overload-{}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let cage = Self { folder, version };
            // Only the kernel makes these files; elsewhere it is an ordinary folder.
            if !cage.door().exists() || !cage.file(version.limit_file()).exists() {
                return None;
            }
            fs::write(cage.file(version.limit_file()), bytes_max.to_string()).ok()?;
            Some(cage)
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What a process writes its id to, to be inside.
    pub fn door(&self) -> PathBuf {
        self.file("cgroup.procs")
    }

    /// The processes inside that the system killed for want of memory.
    pub fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.file(self.version.kills_file())).expect("its events");
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.and_then(|kills| kills.trim().parse().ok()).expect("a count of kills")
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        if within(PATIENCE, || fs::remove_dir(&self.folder).ok()).is_none() {
            eprintln!("{} was not removed", self.folder.display());
        }
    }
}
