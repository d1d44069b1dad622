//! Work that waits while its tenant has too much in hand.

use std::time::Duration;

use bursar_store::StoreError;

/// How often a step is tried, and how long until it is tried again.
const ATTEMPTS_MAX: u32 = 30;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Does a step of an export. When too much of the tenant waits, the export waits with it: a file that
/// breaks off is of no use.
///
/// # Errors
/// What storage says, and [`StoreError::Overloaded`] after half a minute of it.
pub(super) async fn retry_overloaded<T, Step>(step: impl Fn() -> Step) -> Result<T, StoreError>
where
    Step: Future<Output = Result<T, StoreError>>,
{
    for _ in 1..ATTEMPTS_MAX {
        match step().await {
            Err(StoreError::Overloaded) => tokio::time::sleep(RETRY_AFTER).await,
            done => return done,
        }
    }
    step().await
}
