//! A wall clock for a process that a test changes while it runs.

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bursar_testing::process::folder::Folder;
use tempfile::TempDir;

/// The library that is preloaded into the process.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/nodes/skew.c");

/// The offset of the clock of some processes.
pub(crate) struct Skew {
    folder: TempDir,
    file: File,
    ahead_seconds: AtomicI64,
}

impl Skew {
    /// A clock that is ahead by these seconds, or behind if they are negative.
    #[track_caller]
    pub(crate) fn by(seconds: i64) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the clock");
        // A database runs as another user.
        let open = Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).expect("a folder that others can read");
        let file = File::create(folder.path().join("ahead")).expect("a file for the clock");
        let skew = Self { folder, file, ahead_seconds: AtomicI64::new(0) };
        skew.jump(seconds);
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(skew.path("skew.so")).arg(SOURCE);
        assert!(compiler.status().expect("a C compiler").success(), "{SOURCE} is not compiled");
        skew
    }

    /// A clock that shows this second since 1970.
    #[track_caller]
    pub(crate) fn showing(second: u64) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let [second, since] = [second, since].map(|value| i64::try_from(value).expect("small"));
        Self::by(second - since)
    }

    /// Sets the clock ahead or back.
    pub(crate) fn jump(&self, seconds: i64) {
        let ahead = self.ahead_seconds.fetch_add(seconds, Ordering::SeqCst) + seconds;
        self.file.write_all_at(&ahead.to_ne_bytes(), 0).expect("the clock is set");
    }

    /// The environment of a process with this clock.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        [("LD_PRELOAD", "skew.so"), ("SKEW_FILE", "ahead")]
            .map(|(name, file)| (name, self.path(file).to_string_lossy().into_owned()))
    }

    /// Gives the clock to a node, which then follows the database's clock.
    pub(crate) fn shift(&self, node: &mut Folder) {
        for (name, value) in self.environment() {
            node.set(name, value);
        }
        follow_database(node);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Lets a node follow the database's clock instead of the test clock.
pub(crate) fn follow_database(node: &mut Folder) {
    node.set("BURSAR_TEST_CLOCK_FILE", "");
}
