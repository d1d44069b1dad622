//! Schema versions, and which binaries can use a database.

/// One migration.
pub(crate) struct Migration {
    pub(crate) version: u32,
    pub(crate) sql: &'static str,
    /// The oldest schema version whose binary still works with the database after this migration.
    pub(crate) oldest_known: u32,
}

/// The schema version of a database, compared with that of this binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaStatus {
    /// The version of the database; 0 if it has no schema yet.
    pub found: u32,
    /// The newest version that this binary knows.
    pub known: u32,
    /// The oldest version whose binary can still use the database.
    pub oldest_known: u32,
}

impl SchemaStatus {
    /// Whether this binary can use the database as it is.
    pub const fn is_usable(&self) -> bool {
        self.found > 0
            && (self.found == self.known
                || self.found > self.known && self.oldest_known <= self.known)
    }
}
