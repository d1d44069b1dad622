//! Counts of the last `N` slots of time.

/// A sliding window of `N` slots, addressed by `slot % N`.
///
/// A count in slot `s` is included from `s` up to, but not including, `s + N`.
#[derive(Clone, Debug)]
pub(super) struct Slots<const N: usize> {
    latest: i64,
    total: i64,
    counts: [u32; N],
}

impl<const N: usize> Default for Slots<N> {
    fn default() -> Self {
        Self { latest: 0, total: 0, counts: [0; N] }
    }
}

impl<const N: usize> Slots<N> {
    const SPAN: i64 = N as i64;

    /// Advances to a slot and drops the ones that are too old.
    ///
    /// Slots come from a monotonic clock. An earlier slot belongs to a request that read the clock
    /// first and arrived later; it is counted in the latest slot.
    pub(super) fn advance(&mut self, slot: i64) {
        if slot >= self.latest + Self::SPAN {
            *self = Self { latest: slot, ..Self::default() };
        }
        while self.latest < slot {
            self.latest += 1;
            if let Some(left) = self.counts.get_mut(Self::index_of(self.latest)) {
                self.total -= i64::from(std::mem::take(left));
            }
        }
    }

    /// Adds one to the current slot.
    pub(super) fn add(&mut self) {
        if let Some(count) = self.counts.get_mut(Self::index_of(self.latest))
            && let Some(more) = count.checked_add(1)
        {
            *count = more;
            self.total += 1;
        }
    }

    /// The sum of all slots.
    pub(super) const fn total(&self) -> i64 {
        self.total
    }

    /// The first slot from which the sum is below `limit` if nothing is added. `limit` is above
    /// zero.
    pub(super) fn below(&self, limit: i64) -> i64 {
        let mut left = self.total;
        let mut slot = self.latest - Self::SPAN;
        while left >= limit && slot < self.latest {
            slot += 1;
            left -= self.counts.get(Self::index_of(slot)).map_or(0, |count| i64::from(*count));
        }
        slot + Self::SPAN
    }

    const fn index_of(slot: i64) -> usize {
        slot.rem_euclid(Self::SPAN) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_window_equals_a_plain_list(
            steps in prop::collection::vec((0i64..15, 0u8..4), 1..200),
        ) {
            let mut window = Slots::<10>::default();
            let mut counted: Vec<i64> = Vec::new();
            let mut now = 1_000;
            for (ahead, added) in steps {
                now += ahead;
                window.advance(now);
                for _ in 0..added {
                    window.add();
                    counted.push(now);
                }
                let at = |slot: i64| counted.iter().filter(|one| **one > slot - 10).count() as i64;
                prop_assert_eq!(window.total(), at(now));
                for limit in 1..=window.total() {
                    let below = window.below(limit);
                    prop_assert!(at(below) < limit && at(below - 1) >= limit);
                }
            }
        }
    }

    #[test]
    fn a_slot_that_comes_late_counts_in_the_latest() {
        let mut window = Slots::<10>::default();
        window.advance(1_000);
        window.add();
        for late in [999, 990, 0] {
            window.advance(late);
            window.add();
        }
        assert_eq!(window.total(), 4);
        window.advance(1_009);
        assert_eq!(window.total(), 4);
        window.advance(1_010);
        assert_eq!(window.total(), 0);
    }
}
