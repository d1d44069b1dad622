//! Asynchronous clients on a thread of their own.

use std::thread::JoinHandle;

use rustix::process::setpriority_process;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// A future on a thread with its own runtime. Dropping this ends it.
pub(crate) struct Background {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Runs a future at a priority; a higher niceness is a lower priority.
    pub(crate) fn start<F: Future>(
        niceness: i32,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> Self {
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            setpriority_process(None, niceness).expect("a lower priority");
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                tokio::select! {
                    _ = ended => {}
                    _ = work() => {}
                }
            });
        });
        Self { end: Some(end), thread: Some(thread) }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the future, and fails if it panicked.
    #[track_caller]
    pub(crate) fn end(&mut self) {
        drop(self.end.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.transpose().expect("no client panicked");
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end();
    }
}
