//! The differences that a check found.

/// How many differences are listed; further ones are only counted.
const TOLD_MAX: usize = 1_000;

/// The number of differences, and the first of them as texts.
#[derive(Debug, Default)]
pub struct Differences {
    /// The number of all differences.
    pub count: u64,
    /// The first differences, as sentences.
    pub told: Vec<String>,
}

impl Differences {
    pub(crate) fn add(&mut self, sentence: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(sentence());
        }
    }

    /// Adds the differences of another part.
    pub(crate) fn merge(&mut self, other: Self) {
        self.count += other.count;
        let room = TOLD_MAX.saturating_sub(self.told.len());
        self.told.extend(other.told.into_iter().take(room));
    }
}
