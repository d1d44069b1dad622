//! What is logged.

use crate::config::section::section;
use crate::config::setting::SettingValue;
use crate::observe::log::LogFormat;

impl SettingValue for LogFormat {}

section! {
    /// What is logged.
    pub(crate) struct LogSettings {
        /// Lowest level that is logged (error, warn, info, debug or trace), or targets with
        /// levels.
        pub(crate) log: String = "info",
        /// Format of log lines: human or json.
        pub(crate) log_format: LogFormat = "human",
    }
}
