//! Several statements in one round trip.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use crate::error::StoreError;

/// A statement on its way, or not yet sent.
pub(super) type Sent<'a, T, E = StoreError> =
    Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// Sends statements one after the other without waiting, then waits for all; the first error is
/// that of the statement at fault, because those after it only say that it failed.
///
/// A statement is sent when its future is polled first, so polling in order is sending in order.
pub(super) async fn in_order<T, E>(statements: Vec<Sent<'_, T, E>>) -> Result<Vec<T>, E> {
    let mut waiting: Vec<Option<Sent<'_, T, E>>> = statements.into_iter().map(Some).collect();
    let mut answers: Vec<Option<Result<T, E>>> = waiting.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut is_ready = true;
        for (statement, answer) in waiting.iter_mut().zip(&mut answers) {
            let Some(sent) = statement else { continue };
            match sent.as_mut().poll(cx) {
                Poll::Ready(answered) => {
                    *answer = Some(answered);
                    *statement = None;
                }
                Poll::Pending => is_ready = false,
            }
        }
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    // Each has an answer by now.
    answers.into_iter().flatten().collect()
}
