//! How a node uses PostgreSQL.

use std::path::PathBuf;

use crate::config::section::section;
use crate::config::values::Whole;

/// More writers only wait for each other.
type Writers = Whole<1, 100>;
/// With a single reader, a list would delay every lookup of a key. PostgreSQL runs one process for
/// each connection.
type Readers = Whole<2, 1_000>;

section! {
    /// How a node uses PostgreSQL.
    pub(crate) struct PostgresSettings in "postgres" {
        /// File with the password of the database role, for a URL that has no password.
        pub(crate) password_file: Option<PathBuf> = "",
        /// Connections to PostgreSQL for writing. Each writes for one tenant at a time.
        pub(crate) writers: Writers = 4,
        /// Connections to PostgreSQL for reading, opened on demand.
        pub(crate) readers: Readers = 8,
    }
}
