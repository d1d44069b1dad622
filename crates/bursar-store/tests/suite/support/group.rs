//! Many commands in one group, whatever the timing.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::Poll;

use bursar_core::TenantId;
use bursar_store::{ControlTx, Ledger, StoreError};
use tokio::task::JoinHandle;

/// A command that somebody waits for.
pub(crate) type Asked<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Asks all at once, in this order, so that the writer takes them in one group.
///
/// The writer is kept busy by a change that ends only when everything is in the queue.
pub(crate) async fn in_one_group<T>(
    ledger: &Ledger,
    tenant_id: TenantId,
    asked: Vec<Asked<'_, T>>,
) -> Vec<T> {
    let busy = Busy::start(ledger, tenant_id).await;
    let mut waiting: Vec<(Asked<'_, T>, Option<T>)> =
        asked.into_iter().map(|asked| (asked, None)).collect();
    // A command is in the queue as soon as its future was polled once.
    poll_fn(|context| {
        for (asked, answer) in &mut waiting {
            if let Poll::Ready(early) = asked.as_mut().poll(context) {
                *answer = Some(early);
            }
        }
        Poll::Ready(())
    })
    .await;
    busy.end().await;
    let mut answers = Vec::with_capacity(waiting.len());
    for (asked, answer) in waiting {
        answers.push(match answer {
            Some(early) => early,
            None => asked.await,
        });
    }
    answers
}

struct Busy {
    end: mpsc::Sender<()>,
    change: JoinHandle<Result<(), StoreError>>,
}

impl Busy {
    async fn start(ledger: &Ledger, tenant_id: TenantId) -> Self {
        loop {
            let (end, ended) = mpsc::channel();
            let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
            let change = move |_: &mut dyn ControlTx| {
                let _ = started.send(());
                // Ends as well when the other side is gone.
                let _ = ended.recv();
                Ok(())
            };
            let ledger = ledger.clone();
            let change = tokio::spawn(async move { ledger.change(tenant_id, change).await });
            if starts.recv().await.is_some() {
                return Self { end, change };
            }
            // Its transaction could not begin; the next one can.
        }
    }

    async fn end(self) {
        drop(self.end);
        // What becomes of the change itself matters to nobody.
        let _ = self.change.await;
    }
}
