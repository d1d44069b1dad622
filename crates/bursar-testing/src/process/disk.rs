//! Disks that run full.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::folder::Folder;
use super::strace::succeeds;
use crate::machine::Capability;

/// A tmpfs of a few megabytes. Dropping it unmounts it.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one; `None` if this process may not mount.
    #[track_caller]
    pub fn mount(at: PathBuf, megabytes: u32) -> Option<Self> {
        std::fs::create_dir(&at).expect("a folder to mount on");
        let size = format!("size={megabytes}m");
        let mounted =
            succeeds("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &at.to_string_lossy()]);
        Capability::Mounts.check(mounted.then_some(Self(at)))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Enlarges the disk, as an operator would.
    pub fn grow(&self, megabytes: u32) {
        let options = format!("remount,size={megabytes}m");
        assert!(
            succeeds("mount", &["-o", &options, &self.0.to_string_lossy()]),
            "the disk was not enlarged"
        );
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: on a failure the server may still be exiting.
        let _ = succeeds("umount", &["-l", &self.0.to_string_lossy()]);
    }
}

/// A server whose files cannot grow beyond a size. It needs no privileges.
pub fn serve_with_small_files(folder: &Folder, kilobytes: u32) -> Command {
    // The shell counts blocks of 512 bytes. The signal is ignored so that the write fails, as on a
    // full disk, instead of ending the process.
    let limit = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kilobytes * 2);
    folder.serve_under("sh", &["-c", &limit])
}
