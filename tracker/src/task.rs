//! The one place where the tracker starts tasks: on the worker's own thread.

use std::future::Future;

/// Runs `task` beside the others of this thread; it ends with the thread's runtime at the latest.
pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    drop(tokio::task::spawn_local(task));
}
