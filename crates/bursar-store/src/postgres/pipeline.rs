//! Several statements in one round trip.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use crate::error::StoreError;

/// A statement that is sent by the first poll.
pub(super) type Sent<'a, T, E = StoreError> =
    Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// Sends statements in order without waiting, then waits for all replies.
///
/// Returns the error of the first statement that failed; the errors of later ones only follow from
/// it.
pub(super) async fn in_order<T, E>(statements: Vec<Sent<'_, T, E>>) -> Result<Vec<T>, E> {
    let mut waiting: Vec<Option<Sent<'_, T, E>>> = statements.into_iter().map(Some).collect();
    let mut results: Vec<Option<Result<T, E>>> = waiting.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut is_ready = true;
        for (statement, result) in waiting.iter_mut().zip(&mut results) {
            let Some(sent) = statement else { continue };
            match sent.as_mut().poll(cx) {
                Poll::Ready(ready) => {
                    *result = Some(ready);
                    *statement = None;
                }
                Poll::Pending => is_ready = false,
            }
        }
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}
