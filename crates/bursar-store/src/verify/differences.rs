//! The differences that a check found.

/// How many differences are listed; further ones are only counted.
const LISTED_MAX: usize = 1_000;

/// The number of differences, and the first of them as sentences.
#[derive(Debug, Default)]
pub struct Differences {
    /// The number of all differences.
    pub count: u64,
    /// The first differences.
    pub listed: Vec<String>,
}

impl Differences {
    pub(crate) fn add(&mut self, sentence: impl FnOnce() -> String) {
        self.count += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push(sentence());
        }
    }

    /// Adds the differences of another part.
    pub(crate) fn merge(&mut self, other: Self) {
        self.count += other.count;
        let room = LISTED_MAX.saturating_sub(self.listed.len());
        self.listed.extend(other.listed.into_iter().take(room));
    }
}
