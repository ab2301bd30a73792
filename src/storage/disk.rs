//! Storage's threads: a bounded queue of jobs, hashing and positioned I/O off the network threads.

use std::sync::Arc;

use super::content::{Content, StorageError};
use super::fs::RealFs;
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::piece::PieceIndex;

/// A torrent's files on the real disk.
pub type DiskContent = Arc<Content<RealFs>>;

/// Most jobs waiting at once; a full queue is answered by [`Disk::submit`] with the job.
pub const JOB_MAX: usize = 256;

/// What to do. Buffers travel by ownership and come back with the result. `B` is the caller's buffer.
pub enum Job<B> {
    /// Hash the piece out of its blocks (in order, whole) and, if good, write it.
    StorePiece {
        /// The piece.
        piece: PieceIndex,
        /// Its blocks in order.
        blocks: Vec<B>,
        /// Also tell each block's hash if the piece is good (it is always told if bad).
        block_hashes: bool,
    },
    /// Read blocks, each into its buffer.
    Read {
        /// Span and buffer; the buffer has the span's length.
        blocks: Vec<(Block, B)>,
    },
    /// Check every piece on disk; progress is told through `progress`, and `false` from it stops.
    Check {
        /// Called with (pieces checked, pieces good so far), from a disk thread.
        progress: Box<dyn FnMut(u32, u32) -> bool + Send>,
    },
    /// Empty files, executable bits, sync.
    Finish,
}

/// What came of a job.
pub enum Done<B> {
    /// Of [`Job::StorePiece`].
    StorePiece {
        /// The piece.
        piece: PieceIndex,
        /// The buffers, to be used again (or stored again if `outcome` is `Error`).
        blocks: Vec<B>,
        /// How it went.
        outcome: StoreOutcome,
    },
    /// Of [`Job::Read`].
    Read {
        /// The filled buffers.
        blocks: Vec<(Block, B)>,
        /// The first error, if any; then no buffer is to be used.
        error: Option<StorageError>,
    },
    /// Of [`Job::Check`].
    Check(Result<Bitfield, StorageError>),
    /// Of [`Job::Finish`].
    Finish(Result<(), StorageError>),
}

/// How storing a piece went.
#[derive(Debug)]
pub enum StoreOutcome {
    /// It hashes and is written.
    Good(Option<Vec<[u8; 20]>>),
    /// It does not hash; nothing was written.
    Bad(Vec<[u8; 20]>),
    /// It hashes and could not be written.
    Error(StorageError),
}

/// Storage's threads. Cheap to clone; the threads end when the last clone is dropped, after the queue.
#[derive(Clone)]
pub struct Disk {
    _skeleton: (),
}

impl Disk {
    /// Starts `thread_count` threads (at least 1).
    pub fn start(thread_count: usize) -> std::io::Result<Self> {
        let _ = thread_count;
        todo!()
    }

    /// Queues a job; `done` is called from a disk thread with its result. A full queue gives both back.
    #[expect(clippy::type_complexity, reason = "the pair is handed back as it came")]
    pub fn submit<B: AsMut<[u8]> + AsRef<[u8]> + Send + 'static>(
        &self,
        content: DiskContent,
        job: Job<B>,
        done: Box<dyn FnOnce(Done<B>) + Send>,
    ) -> Result<(), (Job<B>, Box<dyn FnOnce(Done<B>) + Send>)> {
        let _ = (content, job, done);
        todo!()
    }
}
