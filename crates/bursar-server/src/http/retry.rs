//! Retries of a step that waits for its tenant's other work.

use std::time::Duration;

use bursar_store::StoreError;

/// The most attempts of a step, and the pause between two.
const ATTEMPTS_MAX: u32 = 30;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Runs a step of an export, and retries it while the tenant has too much work waiting: a file that
/// breaks off would be useless.
///
/// # Errors
/// Errors of the step; [`StoreError::Overloaded`] after half a minute.
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
