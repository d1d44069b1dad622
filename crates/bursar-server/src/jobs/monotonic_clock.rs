//! A time that only moves forward, whatever happens to the clock of the machine or the database.
//!
//! Windows, caches and pauses use it. Deliberately absent: dates, which come from the store's time.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A clock that tells how long ago it was created.
#[derive(Clone)]
pub struct MonotonicClock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl MonotonicClock {
    pub fn system() -> Self {
        let made = Instant::now();
        Self(Arc::new(move || made.elapsed()))
    }

    /// A clock that a test moves. It must not go back.
    pub fn injected(elapsed: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(elapsed))
    }

    /// The time since the clock was created.
    pub(crate) fn elapsed(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for MonotonicClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("MonotonicClock").field(&self.elapsed()).finish()
    }
}
