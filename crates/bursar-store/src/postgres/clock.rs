//! The database's clock, which decides for every node.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bursar_core::Timestamp;

use crate::sqlite::Clock;

/// What a node knows of the database's clock: how far it is from its own.
///
/// Decisions read the clock itself, under their locks; this estimate serves whatever asks without
/// a transaction, and it never runs backwards.
#[derive(Clone)]
pub(super) struct DatabaseClock {
    /// What tests put in the place of the clock.
    injected: Option<Clock>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// How far the database is ahead of this machine, in microseconds.
    ahead: AtomicI64,
    last: AtomicI64,
}

impl DatabaseClock {
    pub(super) fn new(injected: Option<Clock>) -> Self {
        Self { injected, state: Arc::default() }
    }

    /// What stands in the place of the database's clock; nothing when it is asked itself.
    pub(super) fn injected(&self) -> Option<i64> {
        self.injected.as_ref().map(|clock| clock().micros())
    }

    /// Takes note of what the database said just now.
    pub(super) fn heard(&self, database: i64) {
        self.state.ahead.store(database.saturating_sub(own_micros()), Ordering::Relaxed);
    }

    /// Takes note of an instant that was decided at.
    pub(super) fn advance(&self, now: Timestamp) {
        self.state.last.fetch_max(now.micros(), Ordering::Relaxed);
    }

    /// About what the database would say, and never less than before.
    pub(super) fn estimate(&self) -> Timestamp {
        let ahead = self.state.ahead.load(Ordering::Relaxed);
        let now = self.injected().unwrap_or_else(|| own_micros().saturating_add(ahead));
        let before = self.state.last.fetch_max(now, Ordering::Relaxed);
        Timestamp::from_micros(now.max(before)).unwrap_or(Timestamp::MIN)
    }
}

fn own_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
