//! The threads that a command's asynchronous part runs on, and what the system allows a process to
//! have.

use std::fs::File;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::failure::{Failure, words};
use crate::engine::is_out_of_descriptors;

/// Cores for each thread that moves bytes between sockets and memory. One moves about 2 GiB/s;
/// hashing and disks have threads of their own. With more, tasks that talk to each other wake each
/// other's threads: of two threads instead of one a seed needed a fifth more processor, and forty
/// times the context switches.
const CORES_A_THREAD: usize = 8;
/// How long threads that still read or write are waited for at the end; then the process ends
/// without them.
const THREAD_TIME_MAX: Duration = Duration::from_millis(200);
/// Threads that wait for disks and names, where the system allows as many; with fewer, calls wait
/// for each other.
const WAITING_THREADS: usize = 12;
/// The fewest of these that a command can do with.
const WAITING_THREADS_MIN: usize = 2;
/// Threads beside those of the runtime: one for a disk at least.
const OTHER_THREADS: usize = 1;
/// Files that a process needs to be allowed, beside those that are open: without them not even
/// signals can be listened for.
const DESCRIPTOR_COUNT_MIN: usize = 16;

/// Runs the future to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let worker_count = cores.div_ceil(CORES_A_THREAD);
    let fixed_count = worker_count + OTHER_THREADS;
    let allowed_count = allowed_threads(fixed_count + WAITING_THREADS);
    if allowed_count < fixed_count + WAITING_THREADS_MIN {
        return Err(Failure::Failed(format!(
            "the system allows only {allowed_count} more threads, and {} are needed; see `ulimit -u`, or the limit of \
             the container",
            fixed_count + WAITING_THREADS_MIN
        )));
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if allowed_count < fixed_count + WAITING_THREADS {
        // The runtime ends the process if it cannot have a thread.
        builder.max_blocking_threads(allowed_count - fixed_count);
    }
    let runtime = builder
        .worker_threads(worker_count)
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start threads: {}", words(&error))))?;
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(THREAD_TIME_MAX);
    result
}

/// Runs a call that may wait for a file or a pipe on a thread of its own. Dropping the future
/// leaves the thread behind, which holds up nothing: the process ends without it.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let called = tokio::task::spawn_blocking(call).await;
    called.unwrap_or_else(|error| Err(Failure::Failed(error.to_string())))
}

/// How many more threads the system allows, up to `wanted`.
fn allowed_threads(wanted: usize) -> usize {
    let gate = Arc::new(Mutex::new(()));
    let closed = pass(&gate);
    let start = |_| {
        let gate = Arc::clone(&gate);
        std::thread::Builder::new().spawn(move || drop(pass(&gate))).ok()
    };
    let threads: Vec<_> = (0..wanted).map_while(start).collect();
    drop(closed);
    // They do nothing that could fail.
    threads.into_iter().filter_map(|thread| thread.join().ok()).count()
}

fn pass(gate: &Mutex<()>) -> MutexGuard<'_, ()> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Raises the number of files that the process may have open as far as the system lets it: each
/// connection is one.
///
/// # Errors
/// It is too low for anything.
pub(crate) fn require_descriptors() -> Result<(), Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // With fewer it goes more slowly.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let opened: Result<Vec<File>, _> = (0..DESCRIPTOR_COUNT_MIN).map(|_| File::open("/dev/null")).collect();
    match opened {
        Err(error) if is_out_of_descriptors(&error) => Err(Failure::Failed(format!(
            "{}: {DESCRIPTOR_COUNT_MIN} more are needed at least",
            words(&error)
        ))),
        // Without such a file nothing is known.
        Ok(_) | Err(_) => Ok(()),
    }
}
