//! The clock of a server, shifted through a file.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The middle of a month, so that no test crosses the end of one by accident.
pub const MID_JUNE_2031: u64 = 1_939_291_200;
/// Noon of 28 June, less than four days before the end of that month.
pub const LATE_JUNE_2031: u64 = 1_940_414_400;
/// Ten seconds before the end of that month.
pub const END_OF_JUNE_2031: u64 = 1_940_630_390;

/// A file with the seconds that the server adds to the system's clock.
pub struct ClockFile(PathBuf);

impl ClockFile {
    pub fn new(path: PathBuf) -> Self {
        let clock = Self(path);
        clock.set(MID_JUNE_2031);
        clock
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Shifts the clock to an instant, in seconds since 1970.
    pub fn set(&self, second: u64) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        self.write(i64::try_from(second).expect("small") - i64::try_from(since).expect("small"));
    }

    /// Moves the clock forward or back.
    pub fn jump(&self, seconds: i64) {
        let text = std::fs::read_to_string(&self.0).expect("the clock file");
        self.write(text.parse::<i64>().expect("seconds") + seconds);
    }

    fn write(&self, seconds: i64) {
        // Renamed into place, because the server may read it at any time.
        let beside = self.0.with_extension("new");
        std::fs::write(&beside, seconds.to_string()).expect("the clock file is written");
        std::fs::rename(&beside, &self.0).expect("the clock file is renamed");
    }
}
