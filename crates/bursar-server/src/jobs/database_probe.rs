//! Probes a shared database four times a second, so that requests do not wait for it in vain.
//!
//! A database that does not answer at all is detected like one that refuses. The embedded store is
//! part of this process and is not probed.

use std::sync::Arc;
use std::time::Duration;

use bursar_store::{NotWritable, Store, StoreError};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::jobs::background::TaskFailed;

/// The interval of probes.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How long a probe may take. Together with the interval a request waits less than two seconds.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The result of the last probe.
#[derive(Debug, Default)]
pub(crate) struct DatabaseProbe {
    is_unavailable: watch::Sender<bool>,
}

impl DatabaseProbe {
    /// Whether the last probe failed.
    pub(crate) fn is_unavailable(&self) -> bool {
        *self.is_unavailable.borrow()
    }

    /// Waits until a probe fails.
    pub(crate) async fn unavailable(&self) {
        // The sender lives as long as this future.
        let _ = self.is_unavailable.subscribe().wait_for(|unavailable| *unavailable).await;
    }

    /// Stores the result of a probe, and logs a change.
    ///
    /// A read-only database counts as available: reads work, and the writer refuses writes. A
    /// standby is unavailable, because its data may be old.
    fn record(&self, answer: &Result<(), StoreError>) {
        let read_only = NotWritable::ReadOnly;
        let answer = match answer {
            Err(StoreError::NotWritable { reason, .. }) if *reason == read_only => &Ok(()),
            answer => answer,
        };
        let was_unavailable = self.is_unavailable.send_replace(answer.is_err());
        match answer {
            Err(error) if !was_unavailable => {
                let error = error as &dyn std::error::Error;
                tracing::error!(error, "the database is unavailable; requests get 503");
            }
            Ok(()) if was_unavailable => tracing::info!("the database is available again"),
            Err(_) | Ok(()) => {}
        }
    }
}

/// Probes a store, for at most a second.
///
/// The query continues beyond that: a connection that takes longer is available to the next probe.
///
/// # Errors
/// [`StoreError`], also on a timeout.
pub(crate) async fn probe(store: &Arc<dyn Store>) -> Result<(), StoreError> {
    let store = Arc::clone(store);
    let asked = tokio::spawn(async move { store.ping().await });
    match timeout(ANSWER_MAX, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(failed)) => Err(StoreError::Unavailable(Arc::new(TaskFailed::from(failed)))),
        Err(late) => Err(StoreError::Unavailable(Arc::new(late))),
    }
}

/// Probes the database periodically, as long as the server runs.
pub(crate) async fn run(store: &Arc<dyn Store>, database_probe: &DatabaseProbe) {
    let mut ticks = interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        database_probe.record(&probe(store).await);
    }
}
