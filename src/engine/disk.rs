//! The engine's side of the disk threads: a place in their queue for each job, and its result by
//! await.
//!
//! Each device has threads and a queue of its own, so that one that is slow, or stands still, holds
//! up no content that lies elsewhere. Of one device as many jobs are under way in all as its queue
//! holds, so submitting never fails; who finds no place waits in order of arrival.
//!
//! The lock is held to look up a device's threads, and to start them when it is met first.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, oneshot};

use crate::engine::network::pool::BlockBuf;
use crate::engine::task;
use crate::storage::disk::{Disk, Done, JOB_MAX, Job, SharedStore};
use crate::storage::fs::RealFs;
use crate::storage::store::Store;

/// Devices with threads of their own; further ones share theirs.
const DEVICE_MAX: usize = 8;
/// Slow calls of one device at once, each with a thread of its own; further ones wait.
const SLOW_MAX: usize = 16;

/// The disk threads, shared by all torrents.
#[derive(Clone)]
pub(crate) struct DiskQueue {
    thread_count: usize,
    devices: Arc<Mutex<Devices>>,
}

/// The threads of each device.
struct Devices {
    /// In the order in which they were met.
    numbers: Vec<u64>,
    /// As many or one more: the first ones wait for a device. At least one.
    threads: Vec<Threads>,
}

/// Threads with their queue.
#[derive(Clone)]
struct Threads {
    disk: Disk,
    places: Arc<Semaphore>,
    /// Of calls that have a thread of their own.
    slow: Arc<Semaphore>,
}

impl DiskQueue {
    /// Starts the threads of the first device.
    pub(crate) fn start(thread_count: usize) -> io::Result<Self> {
        let devices = Devices { numbers: Vec::new(), threads: vec![Threads::start(thread_count)?] };
        Ok(Self { thread_count, devices: Arc::new(Mutex::new(devices)) })
    }

    /// Runs a call that looks at many files or makes something durable on a thread of its own, so
    /// that the disk threads never wait for it; None: the runtime is shutting down.
    pub(crate) async fn slow<T: Send + 'static>(
        &self,
        content: &SharedStore,
        call: impl FnOnce(&Store<RealFs>) -> T + Send + 'static,
    ) -> Option<T> {
        let threads = self.threads(content.content().fs().device());
        let (content, place) = (content.clone(), threads.slow.acquire_owned().await.ok()?);
        task::blocking(move || {
            let _place = place;
            call(&content)
        })
        .await
    }

    /// Runs a job; None: the threads are gone. Dropping the future drops the result, not the job.
    pub(crate) async fn run(&self, content: &SharedStore, job: Job<BlockBuf>) -> Option<Done<BlockBuf>> {
        self.threads(content.content().fs().device()).run(content, job).await
    }

    fn threads(&self, device: u64) -> Threads {
        // What is half done under the lock is a device without threads of its own, which is
        // provided for.
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let known = devices.numbers.iter().position(|number| *number == device);
        let at = known.unwrap_or(devices.numbers.len() % DEVICE_MAX);
        if known.is_none() && devices.numbers.len() < DEVICE_MAX {
            devices.numbers.push(device);
        }
        if at == devices.threads.len() {
            match Threads::start(self.thread_count) {
                Ok(threads) => devices.threads.push(threads),
                Err(error) => tracing::warn!(%error, "no threads for one more disk"),
            }
        }
        devices.threads.get(at).unwrap_or(&devices.threads[0]).clone()
    }
}

impl Threads {
    fn start(thread_count: usize) -> io::Result<Self> {
        let [places, slow] = [JOB_MAX, SLOW_MAX].map(|max| Arc::new(Semaphore::new(max)));
        Ok(Self { disk: Disk::start(thread_count)?, places, slow })
    }

    async fn run(&self, content: &SharedStore, job: Job<BlockBuf>) -> Option<Done<BlockBuf>> {
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::proto::bitfield::Bitfield;
    use crate::proto::metainfo::Metainfo;
    use crate::storage::content::Content;
    use crate::storage::handles::Handles;

    fn content(folder: &Path) -> SharedStore {
        let torrent = include_bytes!("../../fixtures/torrents/v1-single.torrent");
        let files = RealFs::create(folder, &Handles::new(4)).unwrap();
        Arc::new(Store::new(Content::new(Metainfo::decode(torrent).unwrap().info, Vec::new(), files)))
    }

    #[tokio::test]
    async fn a_device_that_stands_still_holds_up_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let content = content(folder.path());
        let disks = DiskQueue::start(1).unwrap();
        let (slow, again, quick) = (disks.threads(7), disks.threads(7), disks.threads(8));
        let (go, wait) = sync_channel::<()>(0);
        let progress = Box::new(move |_, _| wait.recv().is_ok());
        let pieces = Bitfield::full(content.info().geometry.piece_count());
        let read = || Job::Read { blocks: Vec::new() };
        let mut stalled = std::pin::pin!(slow.run(&content, Job::Check { pieces, progress }));
        let mut behind = std::pin::pin!(again.run(&content, read()));
        tokio::select! {
            biased;
            _ = &mut stalled => panic!("it stands still"),
            _ = &mut behind => panic!("it stands behind"),
            done = quick.run(&content, read()) => assert!(matches!(done, Some(Done::Read { outcome: Ok(_), .. }))),
        }
        drop(go);
        assert!(matches!(stalled.await, Some(Done::Check(Ok(_)))));
        assert!(matches!(behind.await, Some(Done::Read { outcome: Ok(_), .. })));
    }

    #[test]
    fn more_devices_than_are_provided_for_share_threads() {
        let disks = DiskQueue::start(1).unwrap();
        for device in 0..100 {
            disks.threads(device);
        }
        let devices = disks.devices.lock().unwrap();
        assert_eq!((devices.numbers.len(), devices.threads.len()), (DEVICE_MAX, DEVICE_MAX));
    }
}
