//! The threads that a command's asynchronous part runs on.

use std::num::NonZero;
use std::time::Duration;

use super::failure::Failure;

/// Cores for each thread that moves bytes between sockets and memory. One moves about 2 GiB/s; hashing and disks
/// have threads of their own. With more, tasks that talk to each other wake each other's threads: of two threads
/// instead of one a seed needed a fifth more processor, and forty times the context switches.
const CORES_A_THREAD: usize = 8;
/// How long threads that still read or write are waited for at the end; then the process ends without them.
const THREAD_TIME_MAX: Duration = Duration::from_millis(200);

/// Runs the future to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.div_ceil(CORES_A_THREAD))
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(THREAD_TIME_MAX);
    result
}
