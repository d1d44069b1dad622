//! Whether the database takes writes, found out while that is in doubt.
//!
//! A healthy server makes no write for this. There is a doubt after a write that failed because of
//! the disk or of a read-only database, and while the disk of the embedded store has hardly any room.

use std::time::Duration;

use bursar_store::{Ledger, Store};
use tokio::time::{MissedTickBehavior, interval};

use crate::jobs::database_probe::DatabaseProbe;

/// How often a write is tried while there is a doubt. It writes 8 MiB in the
/// place of those before.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Tries to write now and then while there is a doubt, for as long as the server lives.
pub async fn run(store: &dyn Store, ledger: &Ledger, database_probe: Option<&DatabaseProbe>) {
    let mut ticks = interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        probe(store, ledger, database_probe).await;
    }
}

/// Tries to write if there is a doubt. Readiness follows from what the writer sees.
pub async fn probe(store: &dyn Store, ledger: &Ledger, database_probe: Option<&DatabaseProbe>) {
    let is_unavailable = database_probe.is_some_and(DatabaseProbe::is_unavailable);
    let in_doubt = ledger.check_writable().is_err() || store.doubts_writes();
    if in_doubt && !is_unavailable {
        // The ledger logs when the answer is another one than before.
        let _ = ledger.probe_writes().await;
    }
}
