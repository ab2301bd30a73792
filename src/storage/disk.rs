//! The disk threads: a bounded queue of jobs that hash, read and write outside the network threads.
//!
//! All threads serve one queue (a mutex and a condition variable, held to push or pop one job) in
//! order. A small job runs to its end. A check is cut: each thread takes the next few pieces of it
//! and then queues up again, so that a check uses all threads, and a small job waits for at most
//! one cut per thread. Consecutive pieces to store are taken together if that many hash faster side
//! by side: the busier the threads, the lower the cost of a piece.
//!
//! The threads end when the last [`Disk`] is dropped and the queue is empty. No caller joins them:
//! a caller that must know that something is written waits for its [`Done`]. A panic in a job is a
//! bug: it ends the process where panics abort (release builds), otherwise that one thread, and
//! then `done` is never called.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::content::{LostPiece, StorageError};
use super::fault::JobError;
use super::fs::{FileSystem, RealFs};
use super::hash;
use super::pieces::{Spill, WholePiece};
use super::store::Store;
use super::sweep::{Sweep, cut_count};
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::piece::{PieceIndex, PieceResult};

/// A torrent's files on the real disk.
pub type SharedStore = Arc<Store<RealFs>>;

/// Most waiting jobs; [`Disk::submit`] gives a job back when the queue is full.
pub const JOB_MAX: usize = 256;

/// Bytes of a check that one thread takes at a time, rounded to pieces: some milliseconds of
/// hashing.
const CHECK_CUT_LEN: u32 = 8 << 20;
/// Most bytes of pieces that are taken together to be hashed side by side (at least one piece):
/// about 30 ms in which the thread does nothing else.
const CHECK_CUT_LEN_MAX: u32 = 128 << 20;

/// A job. Buffers (`B`) are moved in and come back with the result.
pub enum Job<B> {
    /// Hash a piece and, if it is good, write its blocks that are not on the disk. The result has
    /// block hashes if they are wanted, and always if the piece is bad.
    Store(WholePiece<B>),
    /// Write blocks of an incomplete piece.
    Spill(Spill<B>),
    /// Read blocks, each into its buffer.
    Read {
        /// Block and buffer; the buffer has the block's length.
        blocks: Vec<(Block, B)>,
    },
    /// Check pieces on disk. `progress` is called meanwhile and stops the check by returning
    /// `false`; the result is what was found good until then.
    Check {
        /// The pieces.
        pieces: Bitfield,
        /// Called with (pieces checked, pieces good so far), ascending, from one disk thread at a
        /// time; must return quickly.
        progress: Box<dyn FnMut(u32, u32) -> bool + Send>,
    },
}

/// The result of a job.
#[derive(Debug)]
pub enum Done<B> {
    /// Of [`Job::Store`]: the piece and its result; after an error the piece must be stored again.
    Store(WholePiece<B>, Result<PieceResult, JobError>),
    /// Of [`Job::Spill`]: the blocks and the CRC-32 of each. After an error they may not be on the
    /// disk, and the caller may try again.
    Spill(Spill<B>, Result<Vec<u32>, JobError>),
    /// Of [`Job::Read`].
    Read {
        /// The buffers, filled if `outcome` names no piece.
        blocks: Vec<(Block, B)>,
        /// Lost pieces, or an error that may clear; in both cases no buffer may be used.
        outcome: Result<Vec<LostPiece>, StorageError>,
    },
    /// Of [`Job::Check`].
    Check(Result<Bitfield, JobError>),
}

/// The disk threads. Cheap to clone; the threads end after the last clone is dropped and the queue
/// is empty.
#[derive(Clone, Debug)]
pub struct Disk {
    owner: Arc<Owner>,
}

/// Closes the queue when the last [`Disk`] is dropped; the threads own only the queue.
#[derive(Debug)]
struct Owner {
    queue: Arc<Queue>,
}

type Task = Box<dyn FnOnce(&mut Worker) + Send>;
type DoneFn<B> = Box<dyn FnOnce(Done<B>) + Send>;

#[derive(Debug)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
    thread_count: AtomicUsize,
}

/// An entry of the queue.
enum Queued {
    /// A job that has not begun.
    Job(Task),
    /// A piece to store.
    Store(Box<dyn StoreTask>),
    /// The next cut of a job that was accepted before.
    Cut(Task),
}

#[derive(Default)]
struct QueueState {
    tasks: VecDeque<Queued>,
    /// The entries of `tasks` that are jobs.
    job_count: usize,
    closed: bool,
}

impl std::fmt::Debug for QueueState {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} tasks, closed: {}", self.tasks.len(), self.closed)
    }
}

/// The state of a thread.
struct Worker {
    queue: Arc<Queue>,
    /// Read buffer of checks.
    scratch: Vec<u8>,
}

impl Disk {
    /// Starts `thread_count` threads (at least 1), or as many of them as the system allows.
    ///
    /// # Errors
    /// The system allows none.
    pub fn start(thread_count: usize) -> std::io::Result<Self> {
        let thread_count = thread_count.max(1);
        let counted = AtomicUsize::new(0);
        let queue =
            Arc::new(Queue { state: Mutex::default(), changed: Condvar::new(), thread_count: counted });
        let owner = Arc::new(Owner { queue: Arc::clone(&queue) });
        for at in 0..thread_count {
            let worker = Worker { queue: Arc::clone(&queue), scratch: Vec::new() };
            match std::thread::Builder::new().name(format!("disk-{at}")).spawn(move || worker.run()) {
                Ok(_) => queue.thread_count.fetch_add(1, Ordering::Relaxed),
                Err(error) if at == 0 => return Err(error),
                Err(_) => break,
            };
        }
        Ok(Self { owner })
    }

    /// Queues a job; a disk thread calls `done` with its result.
    ///
    /// # Errors
    /// [`JOB_MAX`] jobs are waiting: gives both back.
    #[expect(clippy::type_complexity, reason = "the pair is handed back as it came")]
    pub fn submit<B: AsMut<[u8]> + AsRef<[u8]> + Send + 'static>(
        &self,
        content: SharedStore,
        job: Job<B>,
        done: Box<dyn FnOnce(Done<B>) + Send>,
    ) -> Result<(), (Job<B>, Box<dyn FnOnce(Done<B>) + Send>)> {
        let mut state = self.owner.queue.state();
        if state.job_count >= JOB_MAX {
            return Err((job, done));
        }
        state.job_count += 1;
        state.tasks.push_back(queued(content, job, done));
        drop(state);
        self.owner.queue.changed.notify_one();
        Ok(())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.queue.state().closed = true;
        self.queue.changed.notify_all();
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        // No caller's code runs under the lock, so a poisoned queue is intact.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues the next cut of an accepted job: it does not count against [`JOB_MAX`], and each
    /// check has at most one per thread.
    fn push_cut(&self, task: Task) {
        self.state().tasks.push_back(Queued::Cut(task));
        self.changed.notify_one();
    }

    fn pop(&self) -> Option<Task> {
        let mut state = self.state();
        loop {
            match state.tasks.pop_front() {
                Some(Queued::Job(task)) => {
                    state.job_count -= 1;
                    return Some(task);
                }
                Some(Queued::Store(first)) => {
                    let stores = state.take_stores(first);
                    state.job_count -= stores.len();
                    return Some(Box::new(|_| store_all(stores)));
                }
                Some(Queued::Cut(task)) => return Some(task),
                None if state.closed => return None,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl QueueState {
    /// Takes the first piece to store, and the consecutive ones if all of them hash faster side by
    /// side.
    fn take_stores(&mut self, first: Box<dyn StoreTask>) -> Vec<Box<dyn StoreTask>> {
        let is_store = |queued: &&Queued| matches!(queued, Queued::Store(_));
        let behind = self.tasks.iter().take(hash::LANE_MAX - 1).take_while(is_store).count();
        let together = (behind + 1).min(hash::Kind::best(behind + 1).lanes());
        let behind = self.tasks.drain(..together - 1).filter_map(|queued| match queued {
            Queued::Store(store) => Some(store),
            Queued::Job(_) | Queued::Cut(_) => None,
        });
        [first].into_iter().chain(behind).collect()
    }
}

impl Worker {
    fn run(mut self) {
        let queue = Arc::clone(&self.queue);
        while let Some(task) = queue.pop() {
            task(&mut self);
        }
    }
}

fn queued<B: AsMut<[u8]> + AsRef<[u8]> + Send + 'static>(
    content: SharedStore,
    job: Job<B>,
    done: DoneFn<B>,
) -> Queued {
    match job {
        Job::Store(whole) => Queued::Store(Box::new(Storing { content, whole, read_back: Vec::new(), done })),
        Job::Spill(spill) => Queued::Job(Box::new(move |_| {
            let written = content.write_blocks(spill.piece, &spill.blocks);
            done(Done::Spill(spill, written.map_err(|error| content.explain(error))));
        })),
        Job::Read { mut blocks } => Queued::Job(Box::new(move |worker| {
            let outcome = content.read_blocks(&mut blocks, &mut worker.scratch);
            done(Done::Read { blocks, outcome });
        })),
        Job::Check { pieces, progress } => {
            Queued::Job(Box::new(move |worker| Check::start(worker, content, &pieces, progress, done)))
        }
    }
}

/// A piece to store, with any kind of buffers.
trait StoreTask: Send {
    /// Reads its blocks that are on the disk; `None` if one is missing, which ends the job.
    fn read_back(self: Box<Self>) -> Option<Box<dyn StoreTask>>;
    fn blocks(&self) -> Vec<&[u8]>;
    /// Stores the piece, whose bytes have this hash.
    fn store(self: Box<Self>, hash: [u8; 20]);
}

struct Storing<B> {
    content: SharedStore,
    whole: WholePiece<B>,
    /// Its blocks that were on the disk.
    read_back: Vec<u8>,
    done: DoneFn<B>,
}

impl<B: AsRef<[u8]> + Send + 'static> StoreTask for Storing<B> {
    fn read_back(mut self: Box<Self>) -> Option<Box<dyn StoreTask>> {
        let outcome = match self.content.read_back(&self.whole) {
            Ok(Some(bytes)) => {
                self.read_back = bytes;
                return Some(self);
            }
            Ok(None) => Ok(PieceResult::Lost),
            Err(error) => Err(self.content.explain(error)),
        };
        (self.done)(Done::Store(self.whole, outcome));
        None
    }

    fn blocks(&self) -> Vec<&[u8]> {
        self.whole.bytes(self.content.info().geometry, &self.read_back)
    }

    fn store(self: Box<Self>, hash: [u8; 20]) {
        let blocks = self.blocks();
        let is_right = self.content.info().piece_hash(self.whole.piece) == Some(hash);
        let hash_blocks = || hash::digests(&blocks.iter().map(std::slice::from_ref).collect::<Vec<_>>());
        let outcome = match self.content.write_if(is_right, &self.whole, &blocks) {
            Ok(true) => Ok(PieceResult::Good(self.whole.block_hashes.then(hash_blocks))),
            Ok(false) => Ok(PieceResult::Bad(hash_blocks())),
            Err(error) => Err(self.content.explain(error)),
        };
        (self.done)(Done::Store(self.whole, outcome));
    }
}

fn store_all(stores: Vec<Box<dyn StoreTask>>) {
    let stores: Vec<_> = stores.into_iter().filter_map(|store| store.read_back()).collect();
    let blocks: Vec<Vec<&[u8]>> = stores.iter().map(|store| store.blocks()).collect();
    let hashes = hash::digests(&blocks.iter().map(Vec::as_slice).collect::<Vec<_>>());
    for (store, hash) in stores.into_iter().zip(hashes) {
        store.store(hash);
    }
}

/// A check that all threads work on.
struct Check<B> {
    content: SharedStore,
    sweep: Sweep<Found<B>>,
}

/// The result of a check so far.
struct Found<B> {
    good: Bitfield,
    checked_count: u32,
    /// Threads that have not yet found the check finished.
    running_count: usize,
    error: Option<StorageError>,
    progress: Box<dyn FnMut(u32, u32) -> bool + Send>,
    done: Option<DoneFn<B>>,
}

impl<B: Send + 'static> Check<B> {
    fn start(
        worker: &mut Worker,
        content: SharedStore,
        pieces: &Bitfield,
        progress: Box<dyn FnMut(u32, u32) -> bool + Send>,
        done: DoneFn<B>,
    ) {
        // A check reads what the paths lead to now, not files that were opened earlier.
        content.content().fs().close();
        let geometry = content.info().geometry;
        let thread_count = worker.queue.thread_count.load(Ordering::Relaxed);
        let found = Found {
            good: Bitfield::new(geometry.piece_count()),
            checked_count: 0,
            running_count: thread_count,
            error: None,
            progress,
            done: Some(done),
        };
        let cut_count = cut_count(geometry.piece_len(), CHECK_CUT_LEN, CHECK_CUT_LEN_MAX);
        let sweep = Sweep::new(pieces.iter_set().collect(), cut_count, found);
        let check = Arc::new(Self { content, sweep });
        for _ in 1..thread_count {
            let check = Arc::clone(&check);
            worker.queue.push_cut(Box::new(move |worker| check.run_cut(worker)));
        }
        check.run_cut(worker);
    }

    /// Checks the next few pieces, then queues up for more, or ends this thread's part.
    fn run_cut(self: Arc<Self>, worker: &mut Worker) {
        let find = |pieces: &[PieceIndex]| -> Result<Vec<bool>, StorageError> {
            self.content.content().find_pieces(pieces, &mut worker.scratch).into_iter().collect()
        };
        if self.sweep.cut(find, Found::record) {
            worker.queue.push_cut(Box::new(move |worker| self.run_cut(worker)));
        } else {
            worker.scratch = Vec::new();
            self.leave();
        }
    }

    fn leave(&self) {
        let mut found = self.sweep.found();
        found.running_count -= 1;
        if found.running_count > 0 {
            return;
        }
        let good = std::mem::replace(&mut found.good, Bitfield::new(0));
        let result = found.error.take().map_or(Ok(good), |error| Err(self.content.explain(error)));
        let done = found.done.take();
        drop(found);
        if let Some(done) = done {
            done(Done::Check(result));
        }
    }
}

impl<B> Found<B> {
    /// Adds the result for some pieces, and returns whether to continue.
    fn record(&mut self, pieces: &[PieceIndex], checked: Result<Vec<bool>, StorageError>) -> bool {
        match checked {
            Ok(checked) => {
                self.checked_count += checked.len() as u32;
                for (piece, _) in pieces.iter().zip(checked).filter(|(_, good)| *good) {
                    self.good.set(*piece);
                }
                (self.progress)(self.checked_count, self.good.count())
            }
            Err(error) => {
                self.error.get_or_insert(error);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;
    use crate::proto::time::Instant;
    use crate::storage::pieces::{Held, PieceBuffers};
    use crate::storage::testing::{Sample, sample};

    type Buffer = Vec<u8>;

    fn submit(disk: &Disk, content: &SharedStore, job: Job<Buffer>) -> Receiver<Done<Buffer>> {
        let (told, tell) = sync_channel(1);
        let done = Box::new(move |done| told.send(done).unwrap());
        assert!(disk.submit(Arc::clone(content), job, done).is_ok());
        tell
    }

    /// A job without work.
    fn nothing() -> Job<Buffer> {
        Job::Read { blocks: Vec::new() }
    }

    fn whole(piece: PieceIndex, blocks: impl IntoIterator<Item = Buffer>) -> WholePiece<Buffer> {
        WholePiece { piece, blocks: blocks.into_iter().map(Held::Memory).collect(), block_hashes: false }
    }

    fn store(
        disk: &Disk,
        content: &SharedStore,
        piece: u32,
        bytes: &[u8],
        block_hashes: bool,
    ) -> Result<PieceResult, JobError> {
        let whole = WholePiece { block_hashes, ..whole(piece, bytes.chunks(10).map(<[u8]>::to_vec)) };
        match submit(disk, content, Job::Store(whole)).recv().unwrap() {
            Done::Store(whole, outcome) => {
                assert_eq!(whole.piece, piece);
                assert_eq!(
                    whole.bytes(content.info().geometry, &[]).concat(),
                    bytes,
                    "the buffers come back"
                );
                outcome
            }
            Done::Spill(..) | Done::Read { .. } | Done::Check(_) => unreachable!("the answer to another job"),
        }
    }

    fn check(disk: &Disk, content: &SharedStore, stop_at: u32) -> (Bitfield, Vec<(u32, u32)>) {
        let (told, tell) = sync_channel(1_000);
        let progress = Box::new(move |checked, good| {
            told.send((checked, good)).unwrap();
            checked < stop_at
        });
        let pieces = Bitfield::full(content.info().geometry.piece_count());
        match submit(disk, content, Job::Check { pieces, progress }).recv().unwrap() {
            Done::Check(result) => (result.unwrap(), tell.iter().collect()),
            Done::Read { .. } | Done::Store(..) | Done::Spill(..) => unreachable!("another job's answer"),
        }
    }

    fn set_up(files: &[(&str, u64)], piece_len: u32) -> (tempfile::TempDir, Sample, SharedStore) {
        let folder = tempfile::tempdir().unwrap();
        let sample = sample(files, piece_len);
        let content = Arc::new(Store::new(sample.content(folder.path(), &[])));
        (folder, sample, content)
    }

    #[test]
    fn only_pieces_that_hash_are_written() {
        let (folder, sample, content) = set_up(&[("a", 50), ("b", 30)], 32);
        let disk = Disk::start(2).unwrap();
        let mut bad = sample.piece(0).to_vec();
        bad[15] ^= 1;
        let Ok(PieceResult::Bad(hashes)) = store(&disk, &content, 0, &bad, false) else {
            panic!("it is bad")
        };
        assert!(!folder.path().join("a").exists(), "nothing was written");
        assert!(matches!(store(&disk, &content, 0, sample.piece(0), false), Ok(PieceResult::Good(None))));
        let again = store(&disk, &content, 0, sample.piece(0), true);
        let Ok(PieceResult::Good(Some(true_hashes))) = again else { panic!("it is good: {again:?}") };
        let differing: Vec<_> = (0..4).filter(|&block| hashes[block] != true_hashes[block]).collect();
        assert_eq!(differing, [1], "the block that lied is known");
        assert!(matches!(store(&disk, &content, 9, sample.piece(0), false), Ok(PieceResult::Bad(_))));
        assert!(matches!(store(&disk, &content, 1, &sample.piece(1)[1..], false), Ok(PieceResult::Bad(_))));

        let whole = Block { piece: 0, offset: 0, len: 32 };
        let missing = Block { piece: 2, offset: 0, len: 1 };
        for (blocks, good) in [(vec![(whole, vec![0; 32])], true), (vec![(missing, vec![0])], false)] {
            match submit(&disk, &content, Job::Read { blocks }).recv().unwrap() {
                Done::Read { blocks, outcome } => {
                    assert_eq!(outcome.unwrap().is_empty(), good);
                    assert!(!good || blocks[0].1 == sample.piece(0));
                }
                Done::Store(..) | Done::Spill(..) | Done::Check(_) => unreachable!("another answer"),
            }
        }
    }

    #[test]
    fn pieces_stored_together_have_separate_results() {
        let (_folder, sample, content) = set_up(&[("a", 1_000), ("b", 30)], 32);
        let (_elsewhere, other, other_content) = set_up(&[("a", 500)], 100);
        let disk = Disk::start(1).unwrap();
        let (go, wait) = sync_channel::<()>(0);
        let hold = Box::new(move |_: Done<Buffer>| wait.recv().unwrap());
        assert!(disk.submit(Arc::clone(&content), nothing(), hold).is_ok());
        let store = |content, piece, mut bytes: Vec<u8>| {
            bytes[0] ^= u8::from(piece % 5 == 3);
            let whole = whole(piece, bytes.chunks(16).map(<[u8]>::to_vec));
            (piece, submit(&disk, content, Job::Store(whole)))
        };
        let mut told: Vec<_> =
            sample.pieces().map(|piece| store(&content, piece, sample.piece(piece).to_vec())).collect();
        told.push(store(&other_content, 0, other.piece(0).to_vec()));
        go.send(()).unwrap();
        for (piece, told) in told {
            let Done::Store(_, outcome) = told.recv().unwrap() else { panic!("another answer") };
            assert_eq!(
                matches!(outcome, Ok(PieceResult::Good(None))),
                piece % 5 != 3,
                "{piece}: {outcome:?}"
            );
        }
        let expected: Vec<_> = sample.pieces().filter(|piece| piece % 5 != 3).collect();
        assert_eq!(sample.check(content.content()), expected);
    }

    #[test]
    fn a_failed_write_returns_the_piece_with_the_error() {
        let (folder, sample, content) = set_up(&[("a", 50)], 32);
        std::fs::create_dir(folder.path().join("a")).unwrap();
        let disk = Disk::start(1).unwrap();
        let outcome = store(&disk, &content, 0, sample.piece(0), false);
        let Err(error) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.error.path, folder.path().join("a"));
    }

    #[test]
    fn spilled_blocks_complete_their_piece_or_are_lost_or_wrong() {
        let (folder, sample, content) = set_up(&[("a", 100_000)], 32_768);
        let disk = Disk::start(1).unwrap();
        let store = |piece: u32, first: &dyn Fn(Buffer) -> Buffer, meanwhile: &dyn Fn()| {
            let [head, rest] = [0, 16_384].map(|at| sample.piece(piece)[at..at + 16_384].to_vec());
            let mut pieces = PieceBuffers::new(content.info().geometry);
            pieces.keep(Instant::ZERO, content.info().geometry.block(piece, 0), first(head));
            let spill = Job::Spill(pieces.spill_all().remove(0));
            let Done::Spill(spill, crcs) = submit(&disk, &content, spill).recv().unwrap() else {
                unreachable!("the answer to another job")
            };
            pieces.spilled(spill, Some(&crcs.unwrap()));
            meanwhile();
            pieces.keep(Instant::ZERO, content.info().geometry.block(piece, 1), rest);
            pieces.complete(piece, false);
            match submit(&disk, &content, Job::Store(pieces.take(piece).unwrap())).recv().unwrap() {
                Done::Store(_, outcome) => outcome,
                Done::Spill(..) | Done::Read { .. } | Done::Check(_) => unreachable!("another answer"),
            }
        };
        let flip = || {
            let path = folder.path().join("a");
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[2 * 32_768] ^= 1;
            std::fs::write(path, bytes).unwrap();
        };
        assert!(matches!(store(0, &|head| head, &|| ()), Ok(PieceResult::Good(None))));
        assert!(matches!(store(1, &|head| vec![7; head.len()], &|| ()), Ok(PieceResult::Bad(_))));
        assert!(matches!(store(2, &|head| head, &flip), Ok(PieceResult::Lost)));
        assert_eq!(sample.check(content.content()), [0]);
        assert!(matches!(store(2, &|head| head, &|| ()), Ok(PieceResult::Good(None))));
        assert_eq!(sample.check(content.content()), [0, 2]);
    }

    #[test]
    fn a_check_by_all_threads_finds_the_good_pieces_and_tells_progress_in_order() {
        let (_folder, sample, content) = set_up(&[("a", 38 << 20), ("b", 3 << 20)], 1 << 19);
        let disk = Disk::start(3).unwrap();
        let stored: Vec<u32> = sample.pieces().filter(|piece| piece % 3 != 1).collect();
        for &piece in &stored {
            let job = Job::Store(whole(piece, [sample.piece(piece).to_vec()]));
            drop(submit(&disk, &content, job).recv().unwrap());
        }
        let (good, progress) = check(&disk, &content, u32::MAX);
        assert_eq!(good.iter_set().collect::<Vec<_>>(), stored);
        assert_eq!(progress.last(), Some(&(82, stored.len() as u32)));
        assert!(progress.is_sorted() && progress.len() >= 5, "{progress:?}");
        let (some, progress) = check(&disk, &content, 1);
        assert!(progress.len() <= 3 && some.count() < good.count(), "it stops: {progress:?}");
    }

    #[test]
    fn a_torrent_without_pieces_is_checked_and_finished() {
        let (folder, _, content) = set_up(&[("t/empty", 0)], 32);
        let disk = Disk::start(2).unwrap();
        assert!(check(&disk, &content, u32::MAX).0.is_full());
        content.finish(&Bitfield::new(0)).unwrap();
        assert_eq!(std::fs::read(folder.path().join("t/empty")).unwrap(), b"");
    }

    #[test]
    fn an_error_ends_a_check() {
        let (folder, _, content) = set_up(&[("a", 50)], 32);
        std::fs::create_dir(folder.path().join("a")).unwrap();
        let disk = Disk::start(2).unwrap();
        let job = Job::Check { pieces: Bitfield::full(2), progress: Box::new(|_, _| true) };
        let done = submit(&disk, &content, job).recv().unwrap();
        assert!(matches!(done, Done::Check(Err(error)) if error.error.path == folder.path().join("a")));
    }

    #[test]
    fn cuts_of_checks_do_not_count_as_jobs() {
        let (_folder, sample, content) = set_up(&[("a", 50)], 32);
        let disk = Disk::start(1).unwrap();
        let (go, wait) = sync_channel::<()>(0);
        let hold = Box::new(move |_: Done<Buffer>| wait.recv().unwrap());
        assert!(disk.submit(Arc::clone(&content), nothing(), hold).is_ok());
        (0..JOB_MAX).for_each(|_| disk.owner.queue.push_cut(Box::new(|_| ())));
        let told = submit(&disk, &content, Job::Store(whole(0, [sample.piece(0).to_vec()])));
        go.send(()).unwrap();
        assert!(matches!(told.recv(), Ok(Done::Store(_, Ok(PieceResult::Good(None))))));
    }

    #[test]
    fn a_full_queue_gives_the_job_back_and_a_dropped_disk_finishes_its_jobs() {
        let (_folder, sample, content) = set_up(&[("a", 50)], 32);
        let disk = Disk::start(1).unwrap();
        let (go, wait) = sync_channel::<()>(0);
        let (entered, enter) = sync_channel(1);
        let hold = Box::new(move |_: Done<Buffer>| {
            entered.send(()).unwrap();
            wait.recv().unwrap();
        });
        assert!(disk.submit(Arc::clone(&content), nothing(), hold).is_ok());
        enter.recv().unwrap();
        let store = || Job::Store(whole(0, [sample.piece(0).to_vec()]));
        let waiting: Vec<_> = (0..JOB_MAX).map(|_| submit(&disk, &content, store())).collect();
        let refused = disk.submit(Arc::clone(&content), store(), Box::new(|_| ()));
        let Err((Job::Store(whole), _)) = refused else { panic!("there was room") };
        assert_eq!(whole.bytes(content.info().geometry, &[]), [sample.piece(0)]);
        drop(disk);
        go.send(()).unwrap();
        for told in waiting {
            let done = told.recv().unwrap();
            assert!(matches!(done, Done::Store(_, Ok(PieceResult::Good(None)))));
        }
    }
}
