//! Writes many commands in one group, independent of timing.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::Poll;

use bursar_core::TenantId;
use bursar_store::{ControlTx, Ledger, StoreError};
use tokio::task::JoinHandle;

/// A command and the wait for its outcome.
pub(crate) type CommandFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Submits all commands in this order, so that the writer takes them as one group.
///
/// Meanwhile a change keeps the writer busy, until all commands are in the queue.
pub(crate) async fn in_one_group<T>(
    ledger: &Ledger,
    tenant_id: TenantId,
    commands: Vec<CommandFuture<'_, T>>,
) -> Vec<T> {
    let busy = Busy::start(ledger, tenant_id).await;
    let mut waiting: Vec<(CommandFuture<'_, T>, Option<T>)> =
        commands.into_iter().map(|command| (command, None)).collect();
    // The first poll puts a command into the queue.
    poll_fn(|context| {
        for (command, outcome) in &mut waiting {
            if let Poll::Ready(early) = command.as_mut().poll(context) {
                *outcome = Some(early);
            }
        }
        Poll::Ready(())
    })
    .await;
    busy.end().await;
    let mut outcomes = Vec::with_capacity(waiting.len());
    for (command, outcome) in waiting {
        outcomes.push(match outcome {
            Some(early) => early,
            None => command.await,
        });
    }
    outcomes
}

/// A change that occupies the writer until it is ended.
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
                // An error means that the test has ended.
                let _ = ended.recv();
                Ok(())
            };
            let ledger = ledger.clone();
            let change = tokio::spawn(async move { ledger.change(tenant_id, change).await });
            if starts.recv().await.is_some() {
                return Self { end, change };
            }
            // An injected fault prevented the transaction; the next one begins.
        }
    }

    async fn end(self) {
        drop(self.end);
        // The change may fail by an injected fault.
        let _ = self.change.await;
    }
}
