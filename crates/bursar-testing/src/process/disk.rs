//! Disks that become full.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::folder::Folder;
use super::strace::runs;
use crate::machine::Need;

/// A disk of a few megabytes in memory, which is unmounted when it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one, if this process may: it takes root and a system that lets root mount.
    #[track_caller]
    pub fn mount(at: PathBuf, megabytes: u32) -> Option<Self> {
        std::fs::create_dir(&at).expect("a folder to mount on");
        let size = format!("size={megabytes}m");
        let mounted = runs("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &at.to_string_lossy()]);
        Need::Mounts.met_by(mounted.then_some(Self(at)))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes room, as an operator would.
    pub fn grow(&self, megabytes: u32) {
        let options = format!("remount,size={megabytes}m");
        assert!(runs("mount", &["-o", &options, &self.0.to_string_lossy()]), "no room was made");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because on a failure the server may be a moment behind its guard.
        let _ = runs("umount", &["-l", &self.0.to_string_lossy()]);
    }
}

/// A server none of whose files may grow beyond a size. It needs no rights.
pub fn serve_with_small_files(folder: &Folder, kilobytes: u32) -> Command {
    // The shell counts in blocks of 512 bytes. The signal is ignored so that the write fails, as
    // it does on a full disk, instead of ending the process.
    let limit = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kilobytes * 2);
    folder.serve_under("sh", &["-c", &limit])
}
