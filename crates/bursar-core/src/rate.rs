//! A sliding window over the calls of the last 60 seconds.

const SLOTS: usize = 60;
const SPAN: i64 = SLOTS as i64;

/// A window of 60 one-second slots.
///
/// A call at second `s` counts from `s` to `s + 60`, exclusive. A slot's index is `second % 60`, so
/// the window has a fixed size, and storage needs at most 60 small rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateWindow {
    slots: [Slot; SLOTS],
    /// One bit for each slot that changed since the window was loaded.
    changed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    second: i64,
    calls: u32,
}

impl Default for RateWindow {
    fn default() -> Self {
        Self { slots: [Slot { second: i64::MIN, calls: 0 }; SLOTS], changed: 0 }
    }
}

fn index_of(second: i64) -> usize {
    second.rem_euclid(SPAN) as usize
}

impl RateWindow {
    /// Sets a slot as it is stored; of several rows of a slot, the latest second wins.
    pub fn restore(&mut self, second: i64, calls: u32) {
        if let Some(slot) = self.slots.get_mut(index_of(second))
            && second > slot.second
        {
            *slot = Slot { second, calls };
        }
    }

    /// Counts a call at a second, if it lies in the window.
    ///
    /// If the slot already counts a later second, the call counts there. It then counts too long,
    /// which is safer than not at all.
    pub fn add(&mut self, second: i64, now_second: i64) {
        let index = index_of(second);
        let Some(slot) = self.slots.get_mut(index).filter(|_| second > now_second - SPAN) else {
            return;
        };
        if second > slot.second || is_taken_back(slot.second, now_second) {
            *slot = Slot { second, calls: 0 };
        }
        slot.calls = slot.calls.saturating_add(1);
        self.changed |= 1 << index;
    }

    /// The number of calls in the window at a second.
    pub fn current(&self, now_second: i64) -> i64 {
        self.counted(now_second).map(|slot| i64::from(slot.calls)).sum()
    }

    /// Whole seconds until fewer than `limit` calls are in the window; at least 1.
    pub fn retry_after(&self, now_second: i64, limit: i128) -> u32 {
        let mut by_age: Vec<Slot> = self.counted(now_second).copied().collect();
        by_age.sort_unstable_by_key(|slot| slot.second);
        let mut left = i128::from(self.current(now_second));
        for slot in by_age {
            if left < limit {
                break;
            }
            left -= i128::from(slot.calls);
            if left < limit {
                return (slot.second + SPAN - now_second).clamp(1, SPAN) as u32;
            }
        }
        1
    }

    /// The slots that changed since the window was loaded, as index, second and calls.
    pub fn changed(&self) -> impl Iterator<Item = (u8, i64, u32)> {
        (0u8..).zip(&self.slots).filter_map(|(index, slot)| {
            (self.changed & (1 << index) != 0).then_some((index, slot.second, slot.calls))
        })
    }

    /// Marks all slots as saved.
    pub(crate) fn clear_changed(&mut self) {
        self.changed = 0;
    }

    /// The slots in the window.
    ///
    /// Seconds slightly after `now_second` count too, so that no call is lost if the time was set
    /// back a little.
    fn counted(&self, now_second: i64) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(move |slot| {
            let is_recent = slot.second > now_second - SPAN;
            slot.calls > 0 && is_recent && !is_taken_back(slot.second, now_second)
        })
    }
}

/// Whether a second is so far ahead that an operator must have set the clock back since.
///
/// Such a second would otherwise count until the clock reaches it again.
const fn is_taken_back(second: i64, now_second: i64) -> bool {
    second > now_second + SPAN
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_call_counts_for_sixty_seconds() {
        let mut window = RateWindow::default();
        window.add(1_000, 1_000);
        assert_eq!(window.current(1_000), 1);
        assert_eq!(window.current(1_059), 1);
        assert_eq!(window.current(1_060), 0);
    }

    #[test]
    fn the_wait_ends_when_enough_calls_have_left() {
        let mut window = RateWindow::default();
        for second in [1_000, 1_000, 1_010, 1_020] {
            window.add(second, 1_020);
        }
        assert_eq!(window.retry_after(1_030, 4), 30);
        assert_eq!(window.retry_after(1_030, 2), 40);
        assert_eq!(window.retry_after(1_030, 1), 50);
    }

    #[test]
    fn calls_from_before_the_clock_was_set_back_do_not_count() {
        let mut window = RateWindow::default();
        for second in [100_000, 100_001] {
            window.add(second, second);
        }
        assert_eq!(window.current(1_000), 0);
        // It shares a slot with the second 100,001.
        let second = 100_001 - 60 * 1_650;
        window.add(second, second);
        assert_eq!(window.current(second), 1);
    }

    #[test]
    fn calls_keep_counting_after_the_clock_is_set_back_a_little() {
        let mut window = RateWindow::default();
        window.add(1_060, 1_060);
        assert_eq!(window.current(1_030), 1);
        window.add(1_000, 1_030);
        assert_eq!(window.current(1_030), 2, "it shares the slot of a later second");
    }

    proptest! {
        #[test]
        fn the_window_equals_a_plain_list(steps in prop::collection::vec((0i64..20, 0i64..70), 1..200)) {
            let mut window = RateWindow::default();
            let mut calls: Vec<i64> = Vec::new();
            let mut now = 10_000;
            for (ahead, ago) in steps {
                now += ahead;
                let second = now - ago;
                if second > now - SPAN {
                    window.add(second, now);
                    calls.push(second);
                }
                let expected = calls.iter().filter(|second| **second > now - SPAN).count() as i64;
                prop_assert_eq!(window.current(now), expected);
                if expected > 0 {
                    let wait = i64::from(window.retry_after(now, i128::from(expected)));
                    prop_assert!(window.current(now + wait) < expected);
                    prop_assert!(wait == 1 || window.current(now + wait - 1) == expected);
                }
            }
        }
    }
}
