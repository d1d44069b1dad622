//! What the schema of a store is, and which binaries can use it.

/// What is known of a database's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaStatus {
    /// The version of the database; 0 when nothing was made yet.
    pub found: u32,
    /// The newest version that this binary knows.
    pub known: u32,
    /// The oldest version whose binary may still use the database.
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
