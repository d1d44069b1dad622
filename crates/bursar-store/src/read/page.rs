//! Pages by offset.

/// A page by offset.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// How many rows to skip.
    pub offset: u32,
    /// How many rows to return at most.
    pub limit: u32,
}

/// The rows of a page, and the total.
#[derive(Clone, Debug)]
pub struct Paged<T> {
    pub rows: Vec<T>,
    /// How many rows match, on all pages.
    pub total: i64,
}
