//! The threads that a command's asynchronous part runs on.

use std::time::Duration;

use super::failure::Failure;

/// How long threads that still read or write are waited for at the end; then the process ends without them.
const THREAD_TIME_MAX: Duration = Duration::from_millis(200);

/// Runs the future to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(THREAD_TIME_MAX);
    result
}
