//! Whether the database takes writes, found out while that is in doubt.
//!
//! A healthy server makes no write for this. There is a doubt after a write that failed because of
//! the disk or of a read-only database, and while the disk of the embedded store has hardly any room.

use std::time::Duration;

use bursar_store::{Ledger, Store};
use tokio::time::{MissedTickBehavior, interval};

use crate::jobs::database_probe::Pulse;

/// How often a write is tried while there is a doubt. It writes 8 MiB in the
/// place of those before.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Tries to write now and then while there is a doubt, for as long as the server lives.
pub async fn follow(store: &dyn Store, ledger: &Ledger, pulse: Option<&Pulse>) {
    let mut ticks = interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        probe(store, ledger, pulse).await;
    }
}

/// Tries to write if there is a doubt. Readiness follows from what the writer sees.
pub async fn probe(store: &dyn Store, ledger: &Ledger, pulse: Option<&Pulse>) {
    let is_away = pulse.is_some_and(Pulse::is_away);
    let in_doubt = ledger.check_writable().is_err() || store.doubts_writes();
    if in_doubt && !is_away {
        // The ledger logs when the answer is another one than before.
        let _ = ledger.probe_writes().await;
    }
}
