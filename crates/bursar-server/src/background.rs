//! Jobs beside requests: each runs for as long as the server lives, also after a panic in it.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::sleep;

/// How long a job rests after a panic, so that one that always panics costs little.
pub const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Runs a job to its end, and begins it anew after a panic, which the log has.
///
/// What a job keeps between its steps lies behind locks of its own, and those are not poisoned.
pub async fn keep_running<Job>(restart_after: Duration, job: impl Fn() -> Job)
where
    Job: Future<Output = ()>,
{
    while AssertUnwindSafe(job()).catch_unwind().await.is_err() {
        tracing::warn!("a job panicked; it begins anew");
        sleep(restart_after).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_begins_anew_until_it_ends() {
        let runs = AtomicU32::new(0);
        keep_running(Duration::ZERO, || async {
            assert!(runs.fetch_add(1, Ordering::Relaxed) >= 3, "a fault of the test");
        })
        .await;
        assert_eq!(runs.load(Ordering::Relaxed), 4);
    }
}
