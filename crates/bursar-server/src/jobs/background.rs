//! Background jobs, which run as long as the server and are restarted after a panic.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinError;
use tokio::time::sleep;

/// The pause after a panic, so that a job that always panics costs little.
pub(crate) const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Runs a job to its end, and restarts it after a panic, which is logged.
///
/// State that a job keeps between its steps must be behind locks that are not poisoned.
pub(crate) async fn keep_running<Job>(name: &str, restart_after: Duration, job: impl Fn() -> Job)
where
    Job: Future<Output = ()>,
{
    while AssertUnwindSafe(job()).catch_unwind().await.is_err() {
        tracing::warn!(job = name, "a background job panicked and is restarted");
        sleep(restart_after).await;
    }
}

/// Why a task has no result.
///
/// tokio's own text repeats the message of a panic, which may quote a client. The log has it
/// already, with keys removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TaskFailed {
    #[error("the task panicked")]
    Panicked,
    #[error("the task was cancelled")]
    Cancelled,
}

impl From<JoinError> for TaskFailed {
    fn from(error: JoinError) -> Self {
        if error.is_panic() { Self::Panicked } else { Self::Cancelled }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_begins_anew_until_it_ends() {
        let runs = AtomicU32::new(0);
        keep_running("a test", Duration::ZERO, || async {
            assert!(runs.fetch_add(1, Ordering::Relaxed) >= 3, "a fault of the test");
        })
        .await;
        assert_eq!(runs.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn why_a_task_failed_is_told_without_the_message_of_its_panic() {
        let task = tokio::spawn(async { panic!("sk-proj-abcdefghijklmnopqrst") });
        let failed = TaskFailed::from(task.await.expect_err("it panicked"));
        assert_eq!(failed.to_string(), "the task panicked");
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        let failed = TaskFailed::from(task.await.expect_err("it was cancelled"));
        assert_eq!(failed.to_string(), "the task was cancelled");
    }
}
