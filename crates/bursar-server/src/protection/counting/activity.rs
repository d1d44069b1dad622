//! The current and the usual activity of a tenant.

use std::time::Duration;

use super::slots::Slots;

/// The last five minutes are counted in slots of 30 seconds.
const SLOT_SECONDS: i64 = 30;
const SLOTS: usize = 10;
const WINDOW_SECONDS: i64 = SLOT_SECONDS * SLOTS as i64;
/// The weight of a finished window in the mean, as a divisor. After an hour a third is left.
const SHARE: u64 = 12;
/// The mean is kept in 256ths of a request, so that the mean of a slow tenant can move.
const FRACTION: u64 = 256;

/// Requests of the last five minutes, and the decayed mean of earlier windows of five minutes.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity {
    recent: Slots<SLOTS>,
    /// The number of the current window.
    window: i64,
    in_window: u64,
    mean: u64,
    is_raised: bool,
}

impl Activity {
    /// Advances to a monotonic time. Finished windows enter the mean.
    pub(super) fn advance(&mut self, elapsed: Duration) {
        let second = i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX);
        self.recent.advance(second / SLOT_SECONDS);
        let window = second / WINDOW_SECONDS;
        let ahead = window - self.window;
        if ahead <= 0 {
            return;
        }
        let finished = std::mem::take(&mut self.in_window);
        self.mean = decayed(self.mean, finished);
        let mut idle = ahead - 1;
        // This ends soon however long the tenant was idle: the mean is zero after some 400 windows.
        while idle > 0 && self.mean > 0 {
            self.mean = decayed(self.mean, 0);
            idle -= 1;
        }
        self.window = window;
        self.is_raised = false;
    }

    pub(super) fn add(&mut self) {
        self.recent.add();
        self.in_window += 1;
    }

    /// The requests of the last five minutes.
    pub(super) const fn current(&self) -> i64 {
        self.recent.total()
    }

    /// The usual number of requests in five minutes.
    pub(super) const fn mean(&self) -> i64 {
        (self.mean / FRACTION) as i64
    }

    /// Whether this is the first call in the current window.
    pub(super) fn raise(&mut self) -> bool {
        !std::mem::replace(&mut self.is_raised, true)
    }
}

const fn decayed(mean: u64, finished: u64) -> u64 {
    mean - mean.div_ceil(SHARE) + finished * FRACTION / SHARE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u32) -> Duration {
        Duration::from_secs(second.into())
    }

    fn window(activity: &mut Activity, number: u32, requests: u32) {
        activity.advance(at(number * 300));
        for _ in 0..requests {
            activity.add();
        }
    }

    #[test]
    fn the_mean_comes_near_what_is_usual_and_forgets_what_was() {
        let mut activity = Activity::default();
        for number in 0..100 {
            window(&mut activity, number, 1_000);
        }
        assert!((990..=1_000).contains(&activity.mean()), "{}", activity.mean());
        // After an idle hour a third of it is left.
        activity.advance(at((100 + 12) * 300));
        assert!((300..=400).contains(&activity.mean()), "{}", activity.mean());
        activity.advance(at(u32::MAX));
        assert_eq!(activity.mean(), 0);
    }

    #[test]
    fn the_window_that_runs_is_no_part_of_the_mean() {
        let mut activity = Activity::default();
        window(&mut activity, 0, 1_200);
        assert_eq!(activity.mean(), 0);
        activity.advance(at(300));
        assert_eq!(activity.mean(), 100);
    }

    #[test]
    fn an_instant_that_comes_late_counts_in_the_window_that_runs() {
        let mut activity = Activity::default();
        window(&mut activity, 100, 1_200);
        activity.advance(at(101 * 300));
        activity.add();
        activity.advance(at(100 * 300 + 299));
        activity.add();
        assert_eq!((activity.mean(), activity.in_window), (100, 2));
    }
}
