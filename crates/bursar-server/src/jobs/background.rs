//! Jobs beside requests: each runs for as long as the server lives, also after a panic in it.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinError;
use tokio::time::sleep;

/// How long a job rests after a panic, so that one that always panics costs little.
pub const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Runs a job to its end, and begins it anew after a panic, which the log has with the job's name.
///
/// What a job keeps between its steps lies behind locks of its own, and those are not poisoned.
pub async fn keep_running<Job>(name: &str, restart_after: Duration, job: impl Fn() -> Job)
where
    Job: Future<Output = ()>,
{
    while AssertUnwindSafe(job()).catch_unwind().await.is_err() {
        tracing::warn!(job = name, "a job panicked; it begins anew");
        sleep(restart_after).await;
    }
}

/// Why a task has no result. tokio's own text repeats the message of a panic, which may quote what a
/// client sent; the log has it already, with keys taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskFailed {
    #[error("the task panicked")]
    Panicked,
    /// It was cancelled.
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
