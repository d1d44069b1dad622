//! How a node uses PostgreSQL.

use std::path::PathBuf;

use crate::config::section::section;
use crate::config::values::Whole;

/// More writers only wait for each other.
type Writers = Whole<1, 100>;
/// With one reader, a list would keep waiting everyone whose key is looked up; PostgreSQL has a
/// process for each.
type Readers = Whole<2, 1_000>;

section! {
    /// How a node uses PostgreSQL.
    pub(crate) struct PostgresSettings in "postgres" {
        /// File with the password of the database role, for a URL without a password.
        pub(crate) password_file: Option<PathBuf> = "",
        /// Connections to PostgreSQL that write, each for one tenant at a time.
        pub(crate) writers: Writers = 4,
        /// Connections to PostgreSQL that read, opened when they are needed.
        pub(crate) readers: Readers = 8,
    }
}
