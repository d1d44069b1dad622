//! Finds out whether the database accepts writes, while that is in doubt.
//!
//! A healthy server makes no write for this. Doubt starts with a write that fails because of the
//! disk or a read-only database, and while the disk of the embedded store is nearly full.

use std::time::Duration;

use bursar_store::{Ledger, Store};
use tokio::time::{MissedTickBehavior, interval};

use crate::jobs::database_probe::DatabaseProbe;

/// The interval of test writes. Each writes 8 MiB in place of the one before.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Runs the probe periodically, as long as the server runs.
pub(crate) async fn run(
    store: &dyn Store,
    ledger: &Ledger,
    database_probe: Option<&DatabaseProbe>,
) {
    let mut ticks = interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        probe(store, ledger, database_probe).await;
    }
}

/// Makes a test write if there is a doubt. Readiness follows from what the writer sees.
pub(crate) async fn probe(
    store: &dyn Store,
    ledger: &Ledger,
    database_probe: Option<&DatabaseProbe>,
) {
    let is_unavailable = database_probe.is_some_and(DatabaseProbe::is_unavailable);
    let in_doubt = ledger.check_writable().is_err() || store.doubts_writes();
    if in_doubt && !is_unavailable {
        // The ledger logs a change.
        let _ = ledger.probe_writes().await;
    }
}
