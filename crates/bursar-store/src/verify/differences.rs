//! What a check found to be other than it should be.

/// Differences that are told one by one; more are only counted.
const TOLD_MAX: usize = 1_000;

/// Differences, counted and told.
#[derive(Debug, Default)]
pub struct Differences {
    /// All of them.
    pub count: u64,
    /// The first of them, as sentences.
    pub told: Vec<String>,
}

impl Differences {
    pub(crate) fn add(&mut self, sentence: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(sentence());
        }
    }

    /// Adds those of another part.
    pub(crate) fn merge(&mut self, other: Self) {
        self.count += other.count;
        let room = TOLD_MAX.saturating_sub(self.told.len());
        self.told.extend(other.told.into_iter().take(room));
    }
}
