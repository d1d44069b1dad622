//! Where data is stored.

use std::path::PathBuf;

use crate::config::database::DatabaseSetting;
use crate::config::section::section;

section! {
    /// Where data is stored.
    pub(crate) struct StorageSettings {
        /// Folder of the embedded store and of the secrets that the first start creates. A server
        /// on PostgreSQL does not need it.
        pub(crate) data_dir: PathBuf = "./bursar-data",
        /// `sqlite:<path>`, or `postgres://...` for several nodes. Empty: bursar.db in the data
        /// folder.
        pub(crate) database: DatabaseSetting = "",
    }
}
