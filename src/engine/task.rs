//! The one place where tasks start.
//!
//! Every task has a name, for traces, and an owner: dropping the owner ends the task. There is no
//! detached task, so an engine that is dropped leaves nothing running.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll, ready};

use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tracing::Instrument;

/// A running task; dropping it ends the task at its next await.
#[derive(Debug)]
pub(crate) struct Task {
    handle: JoinHandle<()>,
}

/// Starts a task.
#[expect(clippy::disallowed_methods, reason = "the one wrapper around tokio::spawn")]
pub(crate) fn spawn(name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> Task {
    Task { handle: tokio::spawn(named(name, future)) }
}

fn named<T>(name: &'static str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    future.instrument(tracing::trace_span!("task", name))
}

impl Task {
    /// Waits for its end.
    pub(crate) async fn join(&mut self) {
        // Ended from outside is ended, too.
        let _ = (&mut self.handle).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Tasks of one owner, which learns each one's result; dropping the set ends them all.
#[derive(Debug)]
pub(crate) struct Tasks<T> {
    /// None: there was no task yet, and no memory for the set is needed.
    set: Option<JoinSet<T>>,
}

impl<T: Send + 'static> Tasks<T> {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { set: None }
    }

    /// Starts one more.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> AbortHandle {
        self.set.get_or_insert_default().spawn(named(name, future))
    }

    /// How many run or have a result that was not looked at.
    pub(crate) fn len(&self) -> usize {
        self.set.as_ref().map_or(0, JoinSet::len)
    }

    /// The next result; waits for ever while there is no task. May be dropped and called again.
    pub(crate) fn next(&mut self) -> impl Future<Output = T> {
        poll_fn(|cx| self.poll_next(cx))
    }

    /// [`Tasks::next`], for who waits for more than this.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        let Some(set) = &mut self.set else { return Poll::Pending };
        loop {
            match ready!(set.poll_join_next(cx)) {
                Some(Ok(result)) => return Poll::Ready(result),
                // Ended from outside: its owner knows.
                Some(Err(_)) => {}
                None => return Poll::Pending,
            }
        }
    }
}

/// Runs a call that may wait for the disk on a thread of its own; None: the runtime is shutting
/// down.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(call).await.ok()
}
