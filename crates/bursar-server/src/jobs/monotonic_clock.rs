//! Time that only moves forward, whatever is done to the clock of the machine or of the database.
//!
//! Windows, caches and pauses move by it. Deliberately absent: dates, which the store's time tells.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A clock that tells how long ago it was made.
#[derive(Clone)]
pub struct MonotonicClock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl MonotonicClock {
    pub fn system() -> Self {
        let made = Instant::now();
        Self(Arc::new(move || made.elapsed()))
    }

    /// One that a test moves; it must not go back.
    pub fn injected(elapsed: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(elapsed))
    }

    /// How long ago the clock was made.
    pub fn elapsed(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for MonotonicClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("MonotonicClock").field(&self.elapsed()).finish()
    }
}
