//! The disk jobs of one torrent: what its [`Lifecycle`] asks for, run on disk threads.
//!
//! [`Lifecycle`]: crate::storage::lifecycle::Lifecycle

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::metadata::Room;
use crate::engine::context::Context;
use crate::engine::network::pool::BlockBuf;
use crate::engine::task::Tasks;
use crate::storage::disk::{Done, Job, SharedStore};
use crate::storage::fs::RealFs;
use crate::storage::journals;
use crate::storage::lifecycle::{Step, StepDone};
use crate::storage::store::Store;

/// Why a job has no result: cannot happen while the engine lives.
pub(super) const DISK_GONE: &str = "the disk threads are gone";

/// What a torrent waited for; None: the runtime is shutting down.
pub(super) enum Ended {
    /// A step has ended.
    Ran(Option<StepDone>),
    /// A job of the disk threads has ended.
    Done(Option<Done<BlockBuf>>),
    /// There is room for metadata.
    Reserved(Room),
}

/// The jobs that run.
pub(super) struct Jobs {
    context: Arc<Context>,
    content: SharedStore,
    /// The folder of the content, for its journal.
    dir: PathBuf,
    tasks: Tasks<Ended>,
}

impl Jobs {
    /// None run yet.
    pub(super) fn new(context: Arc<Context>, content: SharedStore, dir: PathBuf) -> Self {
        Self { context, content, dir, tasks: Tasks::new() }
    }

    /// Runs a step on a thread of its own.
    pub(super) fn run(&mut self, step: Step) {
        let (context, content, dir) = (self.context.clone(), self.content.clone(), self.dir.clone());
        self.tasks.spawn("step", async move {
            let journals = context.journals.clone();
            let run = move |store: &_| run(store, step, journals, &dir);
            Ended::Ran(context.disk.slow(&content, run).await)
        });
    }

    /// Queues a job for the disk threads.
    pub(super) fn submit(&mut self, job: Job<BlockBuf>) {
        let (context, content) = (self.context.clone(), self.content.clone());
        self.tasks.spawn("job", async move { Ended::Done(context.disk.run(&content, job).await) });
    }

    /// Returns the next one that has ended; may be dropped and called again.
    pub(super) fn next(&mut self) -> impl Future<Output = Ended> {
        self.tasks.next()
    }
}

fn run(store: &Store<RealFs>, step: Step, journals: Option<Arc<RealFs>>, dir: &Path) -> StepDone {
    store.run(step, || {
        journals.map(|journals| journals::open_journal(journals, store.info(), dir)).transpose()
    })
}
