//! The engine's side of the disk threads: a place in their queue for each job, and its result by await.
//!
//! As many jobs are under way in all as their queue holds, so submitting never fails; who finds no place
//! waits in order of arrival.

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use super::pool::BlockBuf;
use crate::storage::disk::{Disk, DiskContent, Done, JOB_MAX, Job};

/// The disk threads, shared by all torrents.
#[derive(Clone)]
pub(crate) struct DiskQueue {
    disk: Disk,
    places: Arc<Semaphore>,
}

impl DiskQueue {
    /// Starts the threads.
    pub(crate) fn start(thread_count: usize) -> std::io::Result<Self> {
        Ok(Self { disk: Disk::start(thread_count)?, places: Arc::new(Semaphore::new(JOB_MAX)) })
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
