//! A torrent with all of its bytes, a machine with simulated disks, and what the engine does with
//! both: a start, and a download.

#![cfg(test)]

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use sha1::{Digest, Sha1};
use sprat::proto::bitfield::Bitfield;
use sprat::proto::block::BLOCK_LEN;
use sprat::proto::infohash::InfoHash;
use sprat::proto::metainfo::files::{Attributes, File};
use sprat::proto::metainfo::{Info, Layout};
use sprat::proto::piece::{Geometry, PieceIndex};
use sprat::proto::rng::Rng;
use sprat::proto::time::Instant;
use sprat::sim::disk::{Disk, Model};
use sprat::storage::content::{Content, LostPiece, StorageError};
use sprat::storage::journal::{Journal, Owner};
use sprat::storage::lifecycle::{Event, Lifecycle, Output, Plan, Purpose, Started, StepDone};
use sprat::storage::pieces::{Held, PartialPiece, Spilled, WholePiece};
use sprat::storage::store::Store;

pub(crate) const MODELS: [Model; 3] = [Model::Posix, Model::Ordered, Model::Delayed];
/// Two blocks.
const PIECE_LEN: u32 = 32 * 1024;
/// The file that is not wanted.
const UNSELECTED: usize = 4;
/// How long one waits before the disk is tried again, microseconds.
const RETRY_INTERVAL: u64 = 1_000_000;
/// Attempts at one thing after which it counts as stuck.
const ATTEMPT_MAX: u32 = 200;

/// How many runs of each kind; `SPRAT_LONG=1` is the long form.
pub(crate) fn run_count(short: u64, long: u64) -> u64 {
    if std::env::var_os("SPRAT_LONG").is_some() { long } else { short }
}

/// A torrent and all of its bytes.
pub(crate) struct Sample {
    pub(crate) info: Info,
    pub(crate) bytes: Vec<u8>,
}

impl Sample {
    /// Seven files of odd lengths, one of them not wanted; the first one ends between the blocks of
    /// a piece.
    pub(crate) fn new() -> Self {
        let lens: [u64; 7] = [114_688, 1, 140_001, 0, 32_768, 10_000, 180_000];
        let mut offset = 0;
        let files: Vec<File> = lens
            .iter()
            .enumerate()
            .map(|(number, &len)| {
                let start = offset;
                offset += len;
                let path = vec!["folder".to_owned(), number.to_string()];
                File { path, len, offset: start, attributes: Attributes::default() }
            })
            .collect();
        let mut bytes = vec![0; offset as usize];
        Rng::from_number(7).fill(&mut bytes);
        let piece_hashes: Vec<u8> = bytes.chunks(PIECE_LEN as usize).flat_map(Sha1::digest).collect();
        let info = Info {
            infohash: InfoHash::of(&piece_hashes),
            infohash_v2: None,
            bytes: Bytes::new(),
            name: "folder".to_owned(),
            geometry: Geometry::new(offset, PIECE_LEN).unwrap(),
            piece_hashes: piece_hashes.into(),
            files,
            layout: Layout::Folder,
            private: false,
            source: None,
            renamed: Vec::new(),
            renamed_count: 0,
        };
        Self { info, bytes }
    }

    pub(crate) fn piece(&self, piece: PieceIndex) -> &[u8] {
        let start = self.info.geometry.offset_of(piece) as usize;
        &self.bytes[start..start + self.info.geometry.len_of(piece) as usize]
    }

    fn block(&self, piece: PieceIndex, index: u32) -> &[u8] {
        let block = self.info.geometry.block(piece, index);
        &self.piece(piece)[block.offset as usize..(block.offset + block.len) as usize]
    }

    fn content(&self, disk: &Disk) -> Content<Disk> {
        let selected = (0..self.info.files.len()).map(|number| number != UNSELECTED).collect();
        Content::new(self.info.clone(), selected, disk.clone())
    }

    fn owner(&self) -> Owner {
        let Info { infohash, geometry, ref files, .. } = self.info;
        Owner { infohash, geometry, file_count: files.len() as u32 }
    }

    pub(crate) fn assert_complete(&self, disk: &Disk) {
        for (number, file) in self.info.files.iter().enumerate().filter(|(number, _)| *number != UNSELECTED) {
            let bytes = disk.bytes(&file.path).unwrap_or_else(|| panic!("file {number} is missing"));
            let (start, end) = (file.offset as usize, (file.offset + file.len) as usize);
            assert!(bytes == self.bytes[start..end], "file {number} is false");
        }
    }
}

/// Where the journal is.
pub(crate) fn journal_path() -> Vec<String> {
    vec!["journals".to_owned(), "one".to_owned()]
}

/// A machine's disks: that of the content, and that of the journal, which may be the same.
pub(crate) struct Disks {
    pub(crate) content: Disk,
    pub(crate) state: Disk,
    is_one: bool,
}

impl Disks {
    pub(crate) fn one(model: Model, seed: u64) -> Self {
        let content = Disk::new(model, seed);
        Self { state: content.clone(), content, is_one: true }
    }

    pub(crate) fn two(model: Model, seed: u64) -> Self {
        Self { content: Disk::new(model, seed), state: Disk::new(model, seed + 1_000_000), is_one: false }
    }

    /// One for even seeds, two for odd ones.
    pub(crate) fn of(model: Model, seed: u64) -> Self {
        if seed.is_multiple_of(2) { Self::one(model, seed) } else { Self::two(model, seed) }
    }

    pub(crate) fn is_down(&self) -> bool {
        self.content.is_down() || self.state.is_down()
    }

    /// The machine goes down with any of its disks, even where the program would go on without that
    /// one.
    fn require_up(&self) -> Result<(), StorageError> {
        let down = || StorageError::new(Path::new("the machine"), io::Error::other("is down"));
        if self.is_down() { Err(down()) } else { Ok(()) }
    }

    pub(crate) fn wait(&self, micros: u64) {
        self.each(|disk| disk.wait(micros));
    }

    pub(crate) fn power_cycle(&self) {
        self.each(Disk::power_cycle);
    }

    pub(crate) fn revive(&self) {
        self.each(Disk::revive);
    }

    /// One of them.
    pub(crate) fn any(&self, rng: &mut Rng) -> &Disk {
        if rng.below(2) == 0 { &self.content } else { &self.state }
    }

    fn each(&self, change: impl Fn(&Disk)) {
        change(&self.content);
        if !self.is_one {
            change(&self.state);
        }
    }
}

/// What one start found, and what became of it.
pub(crate) struct Running {
    pub(crate) store: Store<Disk>,
    pub(crate) have: Bitfield,
    /// Of these, those that are known to survive.
    pub(crate) durable: Bitfield,
    /// Blocks of pieces that are not there.
    partial: Vec<PartialPiece>,
    pub(crate) hashed_count: u32,
}

/// A start of the content, waited out while the disk fails in a way that may pass.
///
/// A journal that was lost or could not be written says of no file that it is ours; then the user
/// lets us write it.
///
/// # Errors
/// The power went out, or what went wrong does not pass.
pub(crate) fn start(sample: &Sample, disks: &Disks) -> Result<Running, String> {
    let journal = || Journal::open(Arc::new(disks.state.clone()), journal_path(), sample.owner()).map(Some);
    start_with(sample, disks, journal)
}

/// The same without a journal.
pub(crate) fn start_without_journal(sample: &Sample, disks: &Disks) -> Result<Running, String> {
    start_with(sample, disks, || Ok(None))
}

fn start_with(
    sample: &Sample,
    disks: &Disks,
    open_journal: impl Fn() -> Result<Option<Journal<Disk>>, StorageError>,
) -> Result<Running, String> {
    let store = Store::new(sample.content(&disks.content));
    let mut now = Instant::ZERO;
    let plan = Plan { purpose: Purpose::Overwrite, ..Plan::default() };
    let mut lifecycle: Lifecycle<Vec<u8>> = Lifecycle::new(&store, plan, now);
    let mut durable = Bitfield::new(sample.info.geometry.piece_count());
    let (mut hashed_count, mut attempt_count) = (0, 0);
    let mut inspect = |done: &StepDone| match done {
        StepDone::Begun(Ok(begun)) => {
            (durable, hashed_count) = (begun.verdict.trusted.clone(), begun.to_hash.count());
            // What the journal claims has to be there (R1).
            let mut scratch = Vec::new();
            for piece in durable.iter_set() {
                let is_there = store.content().check_piece(piece, &mut scratch).unwrap_or(true);
                assert!(is_there, "piece {piece} is claimed and false");
            }
        }
        StepDone::Prepared(Ok(prepared)) if !store.has_journal_gaps() => durable.clone_from(&prepared.have),
        StepDone::NamesFound
        | StepDone::Begun(Err(_))
        | StepDone::Compared(_)
        | StepDone::Prepared(_)
        | StepDone::Committed(_)
        | StepDone::Finished(_)
        | StepDone::Lost(..)
        | StepDone::Noted(_)
        | StepDone::Closed(_) => {}
    };
    let started = loop {
        match store.run_start(&mut lifecycle, now, &open_journal, &mut inspect) {
            Some(Output::Event(Event::Started(started))) => break started,
            Some(Output::Event(Event::Storage(_))) => {}
            Some(Output::Event(Event::Failed(error))) => return Err(error),
            Some(output) => panic!("a start ends with {output:?}"),
            None if disks.is_down() => return Err("the power is out".to_owned()),
            None => {
                attempt_count += 1;
                assert!(attempt_count < ATTEMPT_MAX, "stuck: {:?}", lifecycle.fault());
                disks.wait(RETRY_INTERVAL);
                now = lifecycle.poll_timeout().unwrap();
                lifecycle.handle_timeout(now);
            }
        }
    };
    let Started { have, partial, longer: _ } = started;
    let running = Running { store, have, durable, partial, hashed_count };
    running.assert_partial(sample);
    Ok(running)
}

impl Running {
    pub(crate) fn is_complete(&self) -> bool {
        !self.store.content().wanted().has_more_than(&self.have)
    }

    /// What an earlier life left of pieces has to be what it wrote.
    fn assert_partial(&self, sample: &Sample) {
        for partial in &self.partial {
            assert!(!self.have.get(partial.piece) && !partial.blocks.is_empty());
            for block in &partial.blocks {
                let crc = crc32fast::hash(sample.block(partial.piece, block.index));
                assert_eq!(crc, block.crc, "block {} of {}", block.index, partial.piece);
            }
        }
    }

    /// The first block of a piece comes, and goes to the disk before the rest is there.
    fn begin(&mut self, sample: &Sample, piece: PieceIndex) -> Result<(), StorageError> {
        if self.partial.iter().any(|partial| partial.piece == piece) {
            return Ok(());
        }
        let crcs = self.store.write_blocks(piece, &[(0, sample.block(piece, 0))])?;
        self.partial.push(PartialPiece { piece, blocks: vec![Spilled { index: 0, crc: crcs[0] }] });
        Ok(())
    }

    /// Writes what is missing of a piece.
    fn write(&mut self, sample: &Sample, piece: PieceIndex) -> Result<(), StorageError> {
        let blocks = sample.piece(piece).chunks(BLOCK_LEN as usize).map(Held::Memory).collect();
        let mut whole = WholePiece { piece, blocks, block_hashes: false };
        for partial in self.partial.iter().filter(|partial| partial.piece == piece) {
            for block in &partial.blocks {
                whole.blocks[block.index as usize] = Held::Disk(block.crc);
            }
        }
        let Some(read_back) = self.store.read_back(&whole)? else {
            // A disk that failed: all of it is fetched again.
            self.partial.retain(|partial| partial.piece != piece);
            return self.write(sample, piece);
        };
        self.store.write_if(true, &whole, &whole.bytes(sample.info.geometry, &read_back))?;
        self.partial.retain(|partial| partial.piece != piece);
        self.have.set(piece);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StorageError> {
        let lost = self.store.commit()?;
        self.lose(lost);
        self.note_durable();
        Ok(())
    }

    /// What is durable is found by the next start, unless the journal could not be told.
    fn note_durable(&mut self) {
        if !self.store.has_journal_gaps() {
            self.durable = self.have.clone();
        }
    }

    /// Whether that was the end of it.
    fn finish(&mut self) -> Result<bool, StorageError> {
        let lost = self.store.finish(&self.have)?;
        let is_finished = lost.is_empty();
        self.lose(lost);
        self.note_durable();
        Ok(is_finished)
    }

    fn lose(&mut self, lost: Vec<LostPiece>) {
        let pieces: Vec<PieceIndex> = lost.into_iter().map(|lost| lost.piece).collect();
        for &piece in &pieces {
            self.have.clear(piece);
        }
        if !pieces.is_empty() {
            // The next start finds out again.
            let _ = self.store.lose(&pieces);
        }
    }

    fn missing(&self, rng: &mut Rng) -> Vec<PieceIndex> {
        let wanted = self.store.content().wanted();
        let mut missing: Vec<_> = wanted.iter_set().filter(|&piece| !self.have.get(piece)).collect();
        rng.shuffle(&mut missing);
        missing
    }

    /// Writes what is missing in a random order and commits now and then, until done or the disk
    /// fails. Pieces written.
    pub(crate) fn download(
        &mut self,
        sample: &Sample,
        disks: &Disks,
        rng: &mut Rng,
    ) -> Result<u32, StorageError> {
        let mut written = 0;
        let missing = self.missing(rng);
        for &piece in missing.iter().filter(|&piece| piece % 2 == 1) {
            self.begin(sample, piece)?;
            disks.require_up()?;
        }
        for piece in missing {
            disks.wait(rng.below(1_000_000) as u64);
            self.write(sample, piece)?;
            if let Err(error) = disks.require_up() {
                // Whoever is gone has not written it.
                self.have.clear(piece);
                return Err(error);
            }
            written += 1;
            if rng.below(4) == 0 {
                self.commit()?;
                disks.require_up()?;
            }
        }
        let have = self.have.clone();
        let is_finished = self.finish()?;
        if let Err(error) = disks.require_up() {
            // What cannot be read any more is not lost.
            self.have = have;
            return Err(error);
        }
        assert!(is_finished, "a disk that does not fail keeps what it takes");
        Ok(written)
    }

    /// The same on disks that fail: what does not work is tried again, until all is done or the
    /// power out.
    pub(crate) fn persist(
        &mut self,
        sample: &Sample,
        disks: &Disks,
        rng: &mut Rng,
    ) -> Result<(), StorageError> {
        loop {
            let missing = self.missing(rng);
            for &piece in missing.iter().filter(|&piece| piece % 2 == 1) {
                insist(disks, || self.begin(sample, piece))?;
            }
            for piece in missing {
                disks.wait(rng.below(1_000_000) as u64);
                insist(disks, || self.write(sample, piece))?;
                if rng.below(4) == 0 {
                    match self.commit() {
                        // It is tried again with the next one.
                        Err(error) if error.may_pass() && !disks.is_down() => {}
                        committed => committed?,
                    }
                }
            }
            if self.is_complete() && insist(disks, || self.finish())? {
                return Ok(());
            }
        }
    }
}

/// Tries until it works, with a rest between, as long as the disk may be better another time.
pub(crate) fn insist<T>(
    disks: &Disks,
    mut attempt: impl FnMut() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    for _ in 0..ATTEMPT_MAX {
        match attempt() {
            Err(error) if error.may_pass() && !disks.is_down() => disks.wait(RETRY_INTERVAL),
            ended => return ended,
        }
    }
    panic!("stuck: {:?}", attempt().err());
}
