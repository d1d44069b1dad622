//! Whether a database that other processes share answers: asked four times a second, so that nobody
//! waits long for one that is away.
//!
//! A database that says nothing at all is noticed like one that refuses. The embedded store is a part
//! of this process and has no pulse.

use std::sync::Arc;
use std::time::Duration;

use bursar_store::{NotWritable, Store, StoreError};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::jobs::background::TaskFailed;

/// How often the database is asked.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How long it may take to answer that. With what passes until it is asked, nobody waits for two
/// seconds.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What is known of a database.
#[derive(Debug, Default)]
pub struct DatabaseProbe {
    is_unavailable: watch::Sender<bool>,
}

impl DatabaseProbe {
    /// Whether the database did not answer when it was asked last.
    pub fn is_unavailable(&self) -> bool {
        *self.is_unavailable.borrow()
    }

    /// Waits until the database is away.
    pub async fn unavailable(&self) {
        // The sender lives as long as this waits.
        let _ = self.is_unavailable.subscribe().wait_for(|unavailable| *unavailable).await;
    }

    /// Takes note of an answer, and tells the log when it is another one than before.
    ///
    /// A read-only database is not away: reads are answered, and the writer refuses writes. A standby
    /// is away, because its data may be old.
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
                tracing::error!(error, "the database is away: requests are answered 503");
            }
            Ok(()) if was_unavailable => tracing::info!("the database is back"),
            Err(_) | Ok(()) => {}
        }
    }
}

/// Asks a store whether it answers, and waits a second for it.
///
/// The question goes on beyond that: one that makes a connection by a way that is slow today leaves
/// it to the next.
///
/// # Errors
/// [`StoreError`], also when no answer comes.
pub async fn probe(store: &Arc<dyn Store>) -> Result<(), StoreError> {
    let store = Arc::clone(store);
    let asked = tokio::spawn(async move { store.ping().await });
    match timeout(ANSWER_MAX, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(failed)) => Err(StoreError::Unavailable(Arc::new(TaskFailed::from(failed)))),
        Err(late) => Err(StoreError::Unavailable(Arc::new(late))),
    }
}

/// Asks the database now and then, for as long as the server lives.
pub async fn run(store: &Arc<dyn Store>, database_probe: &DatabaseProbe) {
    let mut ticks = interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        database_probe.record(&probe(store).await);
    }
}
