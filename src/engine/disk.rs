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
    looks: Arc<Semaphore>,
}

/// Calls under way that wait for a disk outside its threads; more wait. Each has a thread of its own, and thousands
/// of torrents begin and end together.
const LOOK_MAX: usize = 16;

impl DiskQueue {
    /// Starts the threads.
    pub(crate) fn start(thread_count: usize) -> std::io::Result<Self> {
        let (places, looks) = (Arc::new(Semaphore::new(JOB_MAX)), Arc::new(Semaphore::new(LOOK_MAX)));
        Ok(Self { disk: Disk::start(thread_count)?, places, looks })
    }

    /// Runs a call that is no job: looks at files, or makes them durable. None: the runtime is shutting down.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let _place = self.looks.acquire().await.ok()?;
        task::blocking(call).await
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
