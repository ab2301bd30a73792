//! The engine's side of the disk threads: a place in their queue for each job, and its result by await.
//!
//! As many jobs are under way in all as their queue holds, so submitting never fails; who finds no place
//! waits in order of arrival.

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use super::pool::BlockBuf;
use super::task;
use crate::storage::disk::{Disk, DiskContent, Done, JOB_MAX, Job};

/// The disk threads, shared by all torrents.
#[derive(Clone)]
pub(crate) struct DiskQueue {
    disk: Disk,
    places: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

/// Slow calls at once, each with a thread of its own; further ones wait. So many disks may stall before others
/// notice.
const SLOW_MAX: usize = 32;

impl DiskQueue {
    /// Starts the threads.
    pub(crate) fn start(thread_count: usize) -> std::io::Result<Self> {
        let (places, slow) = (Arc::new(Semaphore::new(JOB_MAX)), Arc::new(Semaphore::new(SLOW_MAX)));
        Ok(Self { disk: Disk::start(thread_count)?, places, slow })
    }

    /// Runs a call that looks at many files or makes something durable on a thread of its own, so that the disk
    /// threads never wait for it; None: the runtime is shutting down.
    pub(crate) async fn slow<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let place = self.slow.clone().acquire_owned().await.ok()?;
        task::blocking(move || {
            let _place = place;
            call()
        })
        .await
    }

    /// Runs a job; None: the threads are gone. Dropping the future drops the result, not the job.
    pub(crate) async fn run(&self, content: &DiskContent, job: Job<BlockBuf>) -> Option<Done<BlockBuf>> {
        let place = self.places.clone().acquire_owned().await.ok()?;
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |done| {
            drop(place);
            // Nobody waits any more when the torrent or the connection has ended.
            let _ = sender.send(done);
        });
        self.disk.submit(content.clone(), job, done).ok()?;
        receiver.await.ok()
    }
}
