//! A host's storage with real bytes: the production store over simulated disks, and what belongs to
//! it in the engine: blocks collected to pieces, commits when they are due, faults waited out.
//!
//! On the wire a block is a tag here too; a right tag stands for the block's bytes, a false one for
//! others. Each job is done at one instant and ends when the disk is done with it, so jobs of one
//! host overlap.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use super::content::{Content as Tags, Tag};
use super::disk::{Disk, Faults};
use super::scenario::{Ending, LifePlan, MachinePlan};
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::infohash::InfoHash;
use crate::proto::metainfo::files::{Attributes, File};
use crate::proto::metainfo::{Info, Layout};
use crate::proto::piece::{PieceIndex, PieceResult};
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::storage::content::{Content, LostPiece, StorageError};
use crate::storage::fault::JobError;
use crate::storage::foreign::Why;
use crate::storage::journal::{Journal, Owner};
use crate::storage::lifecycle::{Event, Job, Lifecycle, Output, Plan, Purpose, Started, StepDone};
use crate::storage::pieces::{PartialPiece, Spill, WholePiece};
use crate::storage::store::Store;

/// Files of the content: their ends as parts of 16, so that pieces lie across them.
const FILE_ENDS: [u64; 4] = [3, 4, 11, 16];

/// The bytes that the tags of a swarm stand for.
#[derive(Debug)]
pub(super) struct RealContent {
    info: Info,
    bytes: Vec<u8>,
    tags: Tags,
}

impl RealContent {
    pub(super) fn new(tags: Tags, infohash: InfoHash) -> Self {
        let geometry = tags.geometry;
        let total_len = geometry.total_len();
        let mut bytes = vec![0; total_len as usize];
        Rng::from_number(tags.seed).fill(&mut bytes);
        let piece_hashes: Vec<u8> =
            bytes.chunks(geometry.piece_len() as usize).flat_map(Sha1::digest).collect();
        let mut offset = 0;
        let file = |(number, &sixteenths): (usize, &u64)| {
            let (start, end) = (offset, total_len * sixteenths / 16);
            offset = end;
            let path = vec!["folder".to_owned(), number.to_string()];
            File { path, len: end - start, offset: start, attributes: Attributes::default() }
        };
        let files = FILE_ENDS.iter().enumerate().map(file).collect();
        let info = Info {
            infohash,
            infohash_v2: None,
            bytes: Bytes::new(),
            name: "folder".to_owned(),
            geometry,
            piece_hashes: piece_hashes.into(),
            files,
            layout: Layout::Folder,
            private: false,
            source: None,
            renamed: Vec::new(),
            renamed_count: 0,
        };
        Self { info, bytes, tags }
    }

    fn of_block(&self, block: Block) -> &[u8] {
        let start = (self.info.geometry.offset_of(block.piece) + u64::from(block.offset)) as usize;
        &self.bytes[start..start + block.len as usize]
    }

    /// The bytes that a tag stands for.
    fn of_tag(&self, block: Block, tag: Tag) -> Vec<u8> {
        let mut bytes = self.of_block(block).to_vec();
        if tag != self.tags.tag(block) {
            bytes[0] ^= 1;
        }
        bytes
    }

    fn owner(&self) -> Owner {
        let Info { infohash, geometry, ref files, .. } = self.info;
        Owner { infohash, geometry, file_count: files.len() as u32 }
    }
}

/// A disk job has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// A piece.
    Stored(WholePiece<Vec<u8>>, Result<PieceResult, JobError>),
    /// Blocks of a piece, with their checksums, or not.
    Spilled(Spill<Vec<u8>>, Result<Vec<u32>, JobError>),
    /// A step, with the pieces that were present when it began.
    Ran(StepDone, Bitfield),
}

/// One host's disks, and the storage that runs on them.
#[derive(Debug)]
pub(super) struct Storage {
    content: Arc<RealContent>,
    disk: Disk,
    journal_disk: Disk,
    plan: LifePlan,
    plans: std::vec::IntoIter<LifePlan>,
    /// None: the host is down.
    store: Option<Store<Disk>>,
    /// A start that waits for the disk.
    starting: Option<(Store<Disk>, Lifecycle<Vec<u8>>)>,
    /// What has to be there after a power cut.
    durable: Bitfield,
    /// Pieces stored and not known to be durable, and since when.
    fresh: BTreeMap<PieceIndex, Instant>,
    /// Blocks that came and need not be fetched again, as far as this life knows.
    kept: BTreeMap<PieceIndex, BTreeSet<u32>>,
    /// The torrent leaves in order.
    is_leaving: bool,
    /// It left without an error, and nothing has changed since.
    is_closed: bool,
}

/// What a start finds.
#[derive(Debug)]
pub(super) struct Found {
    /// The content.
    pub(super) lifecycle: Lifecycle<Vec<u8>>,
    /// Blocks of pieces that are not there.
    pub(super) partial: Vec<PartialPiece>,
    /// Bytes that had come before and are to be fetched again.
    pub(super) lost_len: u64,
}

impl Storage {
    /// On empty disks.
    pub(super) fn new(content: Arc<RealContent>, plan: &MachinePlan, seed: u64) -> Self {
        let disk = Disk::new(plan.model, seed);
        let journal_disk = if plan.apart { Disk::new(plan.model, !seed) } else { disk.clone() };
        let durable = Bitfield::new(content.info.geometry.piece_count());
        let (plan, plans) = (LifePlan::default(), plan.lives.clone().into_iter());
        let (fresh, kept) = (BTreeMap::new(), BTreeMap::new());
        let (store, starting) = (None, None);
        let (is_leaving, is_closed) = (false, false);
        let mut this = Self {
            content,
            disk,
            journal_disk,
            plan,
            plans,
            store,
            starting,
            durable,
            fresh,
            kept,
            is_leaving,
            is_closed,
        };
        this.plan_life();
        this
    }

    /// What the next life will be like.
    fn plan_life(&mut self) {
        self.plan = self.plans.next().unwrap_or_default();
        let from_now = |disk: &Disk, faults: &Faults| {
            let cut_at = faults.cut_at.map(|calls| disk.call_count() + calls);
            disk.set_faults(Faults { cut_at, ..faults.clone() });
        };
        from_now(&self.journal_disk, &self.plan.journal);
        // Last: where there is one disk, these are its faults.
        from_now(&self.disk, &self.plan.content);
    }

    /// How long this life is to last; None: for good, or until a fault ends it.
    pub(super) fn life_len(&self) -> Option<Duration> {
        self.plan.length
    }

    /// Starts the content, or goes on with a start that waited. Every disk takes no time for it.
    ///
    /// # Errors
    /// The disk fails: it may be tried again then, unless the power is out.
    pub(super) fn start(&mut self, now: Instant) -> Result<Found, Instant> {
        self.set_time(now);
        let (store, mut lifecycle) = self.starting.take().unwrap_or_else(|| {
            let content = Content::new(self.content.info.clone(), Vec::new(), self.disk.clone());
            let store = Store::new(content);
            // After a journal was lost or could not be written, the user lets files be written.
            let plan = Plan { purpose: Purpose::Overwrite, ..Plan::default() };
            let lifecycle = Lifecycle::new(&store, plan, now);
            (store, lifecycle)
        });
        lifecycle.handle_timeout(now);
        let mut durable = Bitfield::new(self.content.info.geometry.piece_count());
        loop {
            let inspect = |done: &StepDone| inspect(&store, done, &mut durable, self.is_closed);
            match store.run_start(&mut lifecycle, now, || self.open_journal().map(Some), inspect) {
                Some(Output::Event(Event::Started(started))) => {
                    return Ok(self.started(store, lifecycle, started, durable));
                }
                Some(Output::Event(Event::Storage(_))) => {}
                Some(Output::Event(Event::Failed(_))) if self.is_down() => return Err(now),
                Some(output) => panic!("a start ends with {output:?}"),
                None => break,
            }
        }
        let retry_at = lifecycle.poll_timeout();
        self.starting = Some((store, lifecycle));
        Err(retry_at.unwrap_or(now))
    }

    fn open_journal(&self) -> Result<Journal<Disk>, StorageError> {
        let journal = Arc::new(self.journal_disk.clone());
        Journal::open(journal, vec!["journal".to_owned()], self.content.owner())
    }

    fn started(
        &mut self,
        store: Store<Disk>,
        lifecycle: Lifecycle<Vec<u8>>,
        started: Started,
        durable: Bitfield,
    ) -> Found {
        let Started { have, partial, longer: _ } = started;
        self.is_closed = false;
        assert!(!self.durable.has_more_than(&have), "what was durable is there (R2)");
        self.durable = durable;
        self.store = Some(store);
        let lost_len = self.count_lost(&have, &partial);
        Found { lifecycle, partial, lost_len }
    }

    /// Bytes of blocks that had come and are not there; from now on what is there is what had come.
    fn count_lost(&mut self, have: &Bitfield, partial: &[PartialPiece]) -> u64 {
        let geometry = self.content.info.geometry;
        let indices = |piece| (0..geometry.block_count(piece)).collect::<BTreeSet<u32>>();
        let whole = have.iter_set().map(|piece| (piece, indices(piece)));
        let begun = partial.iter().map(|partial| {
            (partial.piece, partial.blocks.iter().map(|block| block.index).collect::<BTreeSet<u32>>())
        });
        let there: BTreeMap<_, _> = whole.chain(begun).collect();
        let before = std::mem::replace(&mut self.kept, there);
        let blocks =
            before.iter().flat_map(|(&piece, blocks)| blocks.iter().map(move |&index| (piece, index)));
        let is_there =
            |piece: &PieceIndex, index| self.kept.get(piece).is_some_and(|there| there.contains(&index));
        let lost = blocks.filter(|&(piece, index)| !is_there(&piece, index));
        lost.map(|(piece, index)| u64::from(geometry.block(piece, index).len)).sum()
    }

    /// The host goes down, in the way that was planned for it. How long it stays so, and since when
    /// the oldest piece was there that may be lost.
    pub(super) fn end(&mut self) -> (Duration, Option<Instant>) {
        (self.store, self.starting, self.is_leaving) = (None, None, false);
        let end = match self.plan.ending {
            Ending::PowerCut | Ending::Leave => Disk::power_cycle,
            Ending::Kill => Disk::revive,
        };
        end(&self.disk);
        if !self.disk.is_same_as(&self.journal_disk) {
            end(&self.journal_disk);
        }
        let rest = self.plan.rest;
        self.plan_life();
        (rest, std::mem::take(&mut self.fresh).into_values().min())
    }

    /// Begins to leave, if that is how this life ends and nothing has come between. Returns whether
    /// it does: the lifecycle is told, and [`Event::Closed`] follows.
    pub(super) fn leave(&mut self) -> bool {
        let is_leave = self.plan.ending == Ending::Leave && !self.is_down() && !self.is_leaving;
        self.is_leaving |= is_leave && self.is_running();
        is_leave && self.is_leaving
    }

    /// Whether the content is started.
    pub(super) fn is_running(&self) -> bool {
        self.store.is_some()
    }

    /// Whether it leaves in order: it belongs to no swarm any more.
    pub(super) fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// It has left with the pieces `have`: without an error they are durable.
    pub(super) fn closed(&mut self, error: Option<&JobError>, have: &Bitfield) {
        let Some(store) = self.store.as_ref().filter(|_| error.is_none()) else { return };
        if !store.has_journal_gaps() {
            self.durable.clone_from(have);
            self.is_closed = true;
        }
        self.fresh.clear();
    }

    /// Whether the power went out in the middle of something.
    pub(super) fn is_down(&self) -> bool {
        self.disk.is_down() || self.journal_disk.is_down()
    }

    /// A block came and is kept; returns its bytes.
    pub(super) fn keep(&mut self, block: Block, tag: Tag) -> Vec<u8> {
        self.kept.entry(block.piece).or_default().insert(block.index());
        self.content.of_tag(block, tag)
    }

    /// Does what the lifecycle, which has the pieces `have`, asks for, and returns how it ends and
    /// how long the disk takes.
    pub(super) fn perform(
        &mut self,
        now: Instant,
        job: Job<Vec<u8>>,
        have: &Bitfield,
    ) -> Option<(Ended, Duration)> {
        self.set_time(now);
        let store = self.store.as_ref()?;
        let ended = match job {
            Job::Store(whole) => {
                let stored = store_piece(store, &self.content.info, &whole);
                Ended::Stored(whole, stored.map_err(|error| store.explain(error)))
            }
            Job::Spill(spill) => {
                let written = store.write_blocks(spill.piece, &spill.blocks);
                Ended::Spilled(spill, written.map_err(|error| store.explain(error)))
            }
            Job::Run(step) => Ended::Ran(store.run(step, || Ok(None)), have.clone()),
            Job::Check(_) => panic!("a start runs its checks at once"),
        };
        Some((ended, self.delay()))
    }

    /// A piece is stored, as the machine is told.
    pub(super) fn is_stored(&mut self, now: Instant, piece: PieceIndex) {
        self.fresh.insert(piece, now);
    }

    /// A piece is false, or its blocks are dropped.
    pub(super) fn is_dropped(&mut self, piece: PieceIndex) {
        self.kept.remove(&piece);
    }

    /// `pieces` were present when something was made durable; `have` are now.
    pub(super) fn is_durable(&mut self, pieces: &Bitfield, have: &Bitfield) {
        let Some(store) = &self.store else { return };
        if !store.has_journal_gaps() {
            let present = |piece: &PieceIndex| have.get(*piece);
            pieces.iter_set().filter(present).for_each(|piece| {
                self.durable.set(piece);
            });
        }
        self.fresh.retain(|&piece, _| !pieces.get(piece));
    }

    /// These are lost, whatever was said of them.
    pub(super) fn are_lost(&mut self, lost: &[LostPiece]) {
        for LostPiece { piece, .. } in lost {
            self.durable.clear(*piece);
            self.fresh.remove(piece);
            self.kept.remove(piece);
        }
    }

    /// Reads a block to be sent; the tag that its bytes stand for, and how long the disk takes.
    ///
    /// # Errors
    /// The disk fails; the pieces that it does not have any more, or none if it may pass.
    pub(super) fn read(&mut self, now: Instant, block: Block) -> Result<(Tag, Duration), Vec<LostPiece>> {
        self.set_time(now);
        let Some(store) = &self.store else { return Err(Vec::new()) };
        let mut blocks = [(block, vec![0; block.len as usize])];
        let lost = store.read_blocks(&mut blocks, &mut Vec::new()).map_err(|_| Vec::new())?;
        if !lost.is_empty() {
            return Err(lost);
        }
        assert!(blocks[0].1 == self.content.of_block(block), "{block:?} goes out false (R4)");
        Ok((self.content.tags.tag(block), self.delay()))
    }

    /// Whether every file is there with all of its bytes.
    pub(super) fn is_whole(&self) -> bool {
        self.content.info.files.iter().all(|file| {
            let bytes = self.disk.bytes(&file.path).unwrap_or_default();
            bytes == self.content.bytes[file.offset as usize..(file.offset + file.len) as usize]
        })
    }

    fn set_time(&self, now: Instant) {
        self.disk.set_time(now.as_micros());
        self.journal_disk.set_time(now.as_micros());
    }

    fn delay(&self) -> Duration {
        self.disk.delay().max(self.journal_disk.delay())
    }
}

/// Hashes a piece and, if good, writes it.
fn store_piece(
    store: &Store<Disk>,
    info: &Info,
    whole: &WholePiece<Vec<u8>>,
) -> Result<PieceResult, StorageError> {
    let Some(read_back) = store.read_back(whole)? else { return Ok(PieceResult::Lost) };
    let blocks = whole.bytes(info.geometry, &read_back);
    let hashes: Vec<[u8; 20]> = blocks.iter().map(|block| Sha1::digest(block).into()).collect();
    let hash: [u8; 20] = Sha1::digest(blocks.concat()).into();
    let is_right = info.piece_hash(whole.piece) == Some(hash);
    let is_good = store.write_if(is_right, whole, &blocks)?;
    Ok(if is_good {
        PieceResult::Good(whole.block_hashes.then_some(hashes))
    } else {
        PieceResult::Bad(hashes)
    })
}

/// The oracles of a start; `durable` are the pieces that it knows to be durable. `is_closed`: the
/// last life ended in order.
fn inspect(store: &Store<Disk>, done: &StepDone, durable: &mut Bitfield, is_closed: bool) {
    match done {
        StepDone::Begun(Ok(begun)) => {
            assert!(!is_closed || begun.to_hash.count() == 0, "content that was closed is hashed: {begun:?}");
            let mut scratch = Vec::new();
            durable.clone_from(&begun.verdict.trusted);
            for piece in durable.iter_set() {
                // A disk that fails says nothing.
                let is_there = store.content().check_piece(piece, &mut scratch).unwrap_or(true);
                assert!(is_there, "piece {piece} is claimed and false (R1)");
            }
        }
        StepDone::Compared(Ok(compared)) => {
            let longer = compared.misfits.iter().find(|misfit| misfit.why == Why::Longer);
            assert!(longer.is_none(), "no other program writes here: {longer:?}");
        }
        StepDone::Prepared(Ok(prepared)) if !store.has_journal_gaps() => durable.clone_from(&prepared.have),
        StepDone::NamesFound
        | StepDone::Begun(Err(_))
        | StepDone::Compared(Err(_))
        | StepDone::Prepared(_)
        | StepDone::Committed(_)
        | StepDone::Finished(_)
        | StepDone::Lost(..)
        | StepDone::Noted(_)
        | StepDone::Closed(_) => {}
    }
}
