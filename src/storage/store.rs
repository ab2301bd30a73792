//! One torrent's content together with the journal of what is durable in it.
//!
//! The order of calls is what keeps the journal true. [`Store::begin`] compares every file with the
//! journal and writes nothing, so that complete content can be seeded from a read-only place.
//! [`Store::prepare`] claims the content and rewrites the journal before the first piece is
//! written. Each piece is then recorded as intended, written, and later committed
//! ([`Store::commit`]): made durable first, recorded as kept afterwards. [`Store::close`] makes
//! everything durable and records the stamps of all files.
//!
//! A file with a piece pending verification has no stamp in the journal ([`Stamp::unknown`]), so
//! the next start hashes what this run did not hash again.
//!
//! Without a journal all of this works the same, but the next start hashes everything. Any number
//! of threads may write and read pieces at once. The journal's lock is held while a record is
//! appended or the journal is rewritten, never during an `fsync` of content; commits exclude each
//! other by a lock of their own.
//!
//! What can be lost: by a kill, the blocks of incomplete pieces that were received within the last
//! second, or up to 240 KiB of each; by a power cut, also everything of the last two seconds.
//!
//! After a failed `fsync` a system may count dirty pages as clean, and the next `fsync` reports
//! success. So the pieces that a failed sync should have covered are hashed and written once more
//! by the next commit, and verified before they are uploaded. To download them again instead would
//! save 80 lines. In 40 simulated downloads each of whose disks failed all syncs for 10 to 60 s,
//! 590 KB of each, 1.5 s of its line, would be received twice, instead of 98 KB if the disk forgets
//! the data and none if it keeps it; and a kill would cost all pieces since the last commit,
//! instead of none (`SPRAT_LONG=1 cargo test --test sim failed_syncs`).

mod admission;
mod on_disk_partials;
mod uncommitted;
mod whole;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::content::{Content, LostPiece, StorageError};
use super::fs::{FileSystem, Stamp};
use super::journal::{Journal, Kept, Record, Trouble};
use super::resume::{self, Verdict};
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::metainfo::Info;
use crate::proto::piece::PieceIndex;
use on_disk_partials::OnDiskPartials;
use uncommitted::{UncommittedWrites, Writes};

/// One torrent on one disk.
#[derive(Debug)]
pub struct Store<F: FileSystem> {
    content: Content<F>,
    /// Unset if no journal is kept.
    journal: OnceLock<Box<JournalState<F>>>,
    /// Allocated by the first write or commit: most torrents of many only seed.
    written: OnceLock<Box<Written>>,
    claim: Mutex<Claim<F>>,
}

/// What this run wrote.
#[derive(Debug, Default)]
struct Written {
    uncommitted: UncommittedWrites,
    on_disk: OnDiskPartials,
}

/// The lock that tells other programs that this one writes the content.
#[derive(Debug)]
struct Claim<F: FileSystem> {
    /// `None` while the content is not claimed.
    lock: Option<F::Lock>,
    /// Whether the claim lasts until the content is closed; otherwise it ends with the write to the
    /// journal that needed it.
    is_kept: bool,
}

/// The journal of a torrent.
#[derive(Debug)]
struct JournalState<F: FileSystem> {
    /// Where the journal is.
    fs: Arc<F>,
    /// Files that the journal listed as ours when it was opened.
    ours: Bitfield,
    state: Mutex<State<F>>,
}

#[derive(Debug)]
struct State<F: FileSystem> {
    file: Journal<F>,
    /// Whether this run has rewritten the journal; until then the file is only read.
    is_settled: bool,
}

/// The pieces that were rewritten, and those whose bytes the disk lost.
type Rewritten = (Vec<Kept>, Vec<LostPiece>);
/// Stamps of synced files, taken after the sync, by file number.
type Looks = Vec<(usize, Option<Stamp>)>;

impl<F: FileSystem> Store<F> {
    /// Creates a store; touches no file.
    pub fn new(content: Content<F>) -> Self {
        let claim = Mutex::new(Claim { lock: None, is_kept: false });
        Self { content, journal: OnceLock::new(), written: OnceLock::new(), claim }
    }

    fn uncommitted(&self) -> &UncommittedWrites {
        &self.written.get_or_init(Box::default).uncommitted
    }

    fn on_disk(&self) -> &OnDiskPartials {
        &self.written.get_or_init(Box::default).on_disk
    }

    /// The torrent.
    pub fn info(&self) -> &Info {
        self.content.info()
    }

    /// Its files.
    pub fn content(&self) -> &Content<F> {
        &self.content
    }

    /// Compares every file with the journal, if there is one, and returns which pieces are present
    /// and which must be hashed. Called once, before anything is written; writes nothing.
    ///
    /// # Errors
    /// Something else stands in the place of a file.
    pub fn begin(&self, journal: Option<Journal<F>>) -> Result<Verdict, StorageError> {
        self.content.find_names();
        let verdict = match &journal {
            Some(journal) => resume::judge(&self.content, journal.record())?,
            None => resume::judge(&self.content, &Record::nothing(self.info().geometry.piece_count()))?,
        };
        self.content.restore_parts(&verdict.in_parts);
        if let Some(mut file) = journal {
            file.trust(verdict.trusted.clone(), verdict.in_parts.clone());
            for number in verdict.ours.iter_set() {
                let look = self.content.last_look(number as usize)?;
                look.into_iter().for_each(|stamp| file.identify(number, stamp.inode));
            }
            let (fs, ours) = (Arc::clone(file.fs()), verdict.ours.clone());
            let state = Mutex::new(State { file, is_settled: false });
            let is_first = self.journal.set(Box::new(JournalState { fs, ours, state })).is_ok();
            debug_assert!(is_first, "a store begins once");
        }
        Ok(verdict)
    }

    /// Prepares for writing: claims the content, makes durable the pieces that were found, and
    /// rewrites the journal with the selected files listed as ours. Returns the pieces present,
    /// minus those whose bytes did not survive. Later calls only return the pieces present.
    ///
    /// # Errors
    /// Another program writes this content (`ResourceBusy`), or the disk fails; the caller may try
    /// again.
    pub fn prepare(&self, have: &Bitfield) -> Result<Bitfield, StorageError> {
        self.take()?;
        let mut have = have.clone();
        self.content.rewrite_mixed()?.into_iter().for_each(|gone| {
            have.clear(gone);
        });
        let Some(journal) = self.journal.get() else { return self.content.sync().map(|_| have) };
        let _turn = self.uncommitted().turn();
        let state = journal.lock();
        if state.is_settled {
            return Ok(state.file.record().kept.clone());
        }
        drop(state);
        let lost = self.sync_found(journal, &have)?;
        lost.iter().for_each(|lost| {
            have.clear(lost.piece);
        });
        self.own(journal);
        let settled = self.settle(journal, have.clone(), false);
        // The caller passes the lost pieces again: the next attempt must hash all that it finds.
        settled.inspect_err(|_| self.uncommitted().lock().is_unsure |= !lost.is_empty())?;
        Ok(have)
    }

    /// Claims the content and records in the journal that a piece is about to be written. Returns
    /// `None` if no journal is kept.
    fn begin_write(&self, piece: PieceIndex) -> Result<Option<&JournalState<F>>, StorageError> {
        self.take()?;
        let Some(journal) = self.journal.get() else { return Ok(None) };
        if !journal.lock().is_settled {
            let kept = journal.lock().file.record().kept.clone();
            self.prepare(&kept)?;
        }
        self.intend(journal, piece)?;
        Ok(Some(journal))
    }

    /// Records a piece as about to be written. After our first write a changed file may look as if
    /// only this program wrote to it, so this first withdraws the stamps of files that have pieces
    /// pending verification.
    fn intend(&self, journal: &JournalState<F>, piece: PieceIndex) -> Result<(), StorageError> {
        if journal.lock().file.record().kept.get(piece) {
            // The journal durably drops the piece before its bytes change.
            journal.lose(&[piece])?;
        }
        let mut state = journal.lock();
        let record = state.file.record();
        let is_stamped = |number: &u32| record.stamps.get(number).is_some_and(|at| !at.is_unknown());
        let has_unverified = |number: &u32| self.content.has_unverified(*number as usize, &record.kept);
        let places = self.content.places(self.content.whole(piece), true).map(|number| number as u32);
        let unverified: Vec<u32> = places.filter(is_stamped).filter(has_unverified).collect();
        if !unverified.is_empty() {
            state.file.forget(&unverified)?;
        }
        state.file.intend(self.content.fs().now(), piece);
        Ok(())
    }

    /// Whether the journal may lack durable pieces because it can neither be written nor removed;
    /// then the next start may not find them.
    pub fn has_journal_gaps(&self) -> bool {
        self.journal.get().is_some_and(|journal| journal.lock().file.has_gaps())
    }

    /// Takes the journal's trouble to report to the user; each is returned once.
    pub fn take_journal_trouble(&self) -> Option<Trouble> {
        self.journal.get()?.lock().file.take_trouble()
    }

    /// Makes the written pieces durable and then records them in the journal. Returns the pieces
    /// whose bytes the disk lost.
    ///
    /// # Errors
    /// The pieces may not be durable; the next commit tries again.
    pub fn commit(&self) -> Result<Vec<LostPiece>, StorageError> {
        let _turn = self.uncommitted().turn();
        // Nothing is written before the journal is settled.
        let is_settled = self.journal.get().is_none_or(|journal| journal.lock().is_settled);
        if is_settled { self.commit_written() } else { Ok(Vec::new()) }
    }

    fn commit_written(&self) -> Result<Vec<LostPiece>, StorageError> {
        let Writes { pieces, is_unsure } = self.uncommitted().take();
        let synced = self.sync_written(&pieces, is_unsure);
        let ((good, lost), looks) = synced.inspect_err(|_| self.uncommitted().lock().add(&pieces, true))?;
        if let Some(journal) = self.journal.get() {
            let mut kept = journal.lock().file.record().kept.clone();
            good.iter().for_each(|good| {
                kept.set(good.piece);
            });
            journal.record(&good, &self.stamps_of(looks, &kept));
        }
        Ok(lost)
    }

    /// Syncs the written pieces, after rewriting them if an earlier sync failed. Returns the stamps
    /// of the files as well.
    fn sync_written(&self, pieces: &[Kept], is_unsure: bool) -> Result<(Rewritten, Looks), StorageError> {
        let rewritten = if is_unsure { self.write_again(pieces) } else { Ok((pieces.to_vec(), Vec::new())) };
        let synced = rewritten.and_then(|rewritten| Ok((rewritten, self.content.sync()?)));
        synced.inspect_err(|_| {
            self.content.mark_pieces_unverified(pieces.iter().map(|kept| kept.piece));
            self.on_disk().mark_all_unsure();
        })
    }

    /// Hashes pieces after a failed sync and writes the good ones once more.
    fn write_again(&self, pieces: &[Kept]) -> Result<Rewritten, StorageError> {
        let (mut scratch, mut bytes) = (Vec::new(), Vec::new());
        let (mut good, mut lost) = (Vec::with_capacity(pieces.len()), Vec::new());
        for &kept in pieces {
            let (piece, len) = (kept.piece, self.info().geometry.len_of(kept.piece));
            if !self.content.check_piece(piece, &mut scratch)? {
                lost.push(self.content.not_kept(piece));
                continue;
            }
            bytes.resize(len as usize, 0);
            self.content.read_block(Block { piece, offset: 0, len }, &mut bytes)?;
            self.content.write_piece(piece, &[&bytes])?;
            good.push(kept);
        }
        Ok((good, lost))
    }

    /// Drops pieces that turned out to be missing or false. A journal that is not settled yet stays
    /// as it is: its stamps do not match the files.
    ///
    /// # Errors
    /// The journal may still name the pieces; its stamps do not match the files, so the next start
    /// hashes them.
    pub fn lose(&self, pieces: &[PieceIndex]) -> Result<(), StorageError> {
        let _turn = self.uncommitted().turn();
        self.uncommitted().lock().remove(pieces);
        match self.journal.get() {
            Some(journal) if journal.lock().is_settled => self.unless_others(|| journal.lose(pieces)),
            Some(_) | None => Ok(()),
        }
    }

    /// Makes everything durable and records the stamps of all files, so that the next start only
    /// compares stamps; then ends the claim on the content. Returns the pieces whose bytes the disk
    /// lost; if there are any, the store stays open.
    ///
    /// # Errors
    /// The next start hashes more unless a later call succeeds; until then the claim lasts.
    pub fn close(&self, have: &Bitfield) -> Result<Vec<LostPiece>, StorageError> {
        let lost = self.conclude(have)?;
        if lost.is_empty() {
            *self.claim() = Claim { lock: None, is_kept: false };
        }
        Ok(lost)
    }

    fn conclude(&self, have: &Bitfield) -> Result<Vec<LostPiece>, StorageError> {
        let _turn = self.uncommitted().turn();
        match self.journal.get() {
            Some(journal) => self.unless_others(|| self.conclude_alone(journal, have)),
            None => self.commit_written(),
        }
    }

    fn conclude_alone(
        &self,
        journal: &JournalState<F>,
        have: &Bitfield,
    ) -> Result<Vec<LostPiece>, StorageError> {
        let is_settled = journal.lock().is_settled;
        let lost = if is_settled { self.commit_written()? } else { self.sync_found(journal, have)? };
        if !lost.is_empty() {
            return Ok(lost);
        }
        let kept = if is_settled { journal.lock().file.record().kept.clone() } else { have.clone() };
        self.settle(journal, kept, true)?;
        Ok(lost)
    }

    /// Rewrites the journal with these pieces and the stamps of all files, unless it already says
    /// the same.
    fn settle(&self, journal: &JournalState<F>, kept: Bitfield, clean: bool) -> Result<(), StorageError> {
        let stamps = self.stamps(&kept)?;
        let mut state = journal.lock();
        let record = state.file.record();
        let is_same = !state.file.has_lapsed() && record.kept == kept && record.stamps == stamps;
        if clean && record.clean && is_same {
            return Ok(());
        }
        state.settle(&self.content, kept, stamps, clean)
    }

    /// Runs `write` unless another program writes the content: the program that writes the content
    /// keeps its journal.
    fn unless_others<T: Default>(
        &self,
        write: impl FnOnce() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut claim = self.claim();
        if claim.lock.is_none() && self.content.is_begun()? {
            match self.content.take() {
                Err(error) if error.source.kind() == io::ErrorKind::ResourceBusy => return Ok(T::default()),
                lock => claim.lock = lock?,
            }
        }
        drop(claim);
        let written = write();
        let mut claim = self.claim();
        if !claim.is_kept {
            claim.lock = None;
        }
        written
    }

    /// Reads blocks to be sent: [`Content::read_blocks`].
    ///
    /// # Errors
    /// The same.
    pub fn read_blocks<B: AsMut<[u8]>>(
        &self,
        blocks: &mut [(Block, B)],
        scratch: &mut Vec<u8>,
    ) -> Result<Vec<LostPiece>, StorageError> {
        self.content.read_blocks(blocks, scratch)
    }

    /// Claims the content by a lock on its first file.
    fn take(&self) -> Result<(), StorageError> {
        let mut claim = self.claim();
        if claim.lock.is_none() {
            claim.lock = self.content.take()?;
        }
        claim.is_kept = true;
        Ok(())
    }

    fn claim(&self) -> MutexGuard<'_, Claim<F>> {
        // Each change is one assignment.
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes durable the pieces that were found by hashing: the program that wrote them may not
    /// have synced them. Pieces that the journal lists as intended are written once more, because a
    /// sync may have failed before this program was killed, and then their bytes are only in
    /// caches. Returns the pieces whose bytes the disk lost.
    fn sync_found(&self, journal: &JournalState<F>, have: &Bitfield) -> Result<Vec<LostPiece>, StorageError> {
        let kept = journal.lock().file.record().kept.clone();
        let found = have.iter_set().filter(|&piece| !kept.get(piece));
        let found: Vec<_> =
            found.map(|piece| Kept { piece, in_parts: self.content.is_in_parts(piece) }).collect();
        let (mut unsure, mut sure) = (found.clone(), Vec::new());
        if !std::mem::take(&mut self.uncommitted().lock().is_unsure) {
            let state = journal.lock();
            let intended = &state.file.record().intended;
            (unsure, sure) = found.iter().partition(|kept| intended.contains_key(&kept.piece));
        }
        let synced = self.write_again(&unsure).and_then(|(good, lost)| {
            good.iter().chain(&sure).for_each(|kept| self.content.found(kept.piece));
            self.content.sync().map(|_| lost)
        });
        if synced.is_err() {
            self.content.mark_pieces_unverified(found.iter().map(|kept| kept.piece));
            self.uncommitted().lock().is_unsure = true;
        }
        synced
    }

    /// Returns the stamps of all files as of when their bytes were last known, for a journal that
    /// records `kept`.
    fn stamps(&self, kept: &Bitfield) -> Result<BTreeMap<u32, Stamp>, StorageError> {
        let look = |number| Ok((number, self.content.last_look(number)?));
        let looks: Vec<_> = (0..=self.info().files.len()).map(look).collect::<Result<_, StorageError>>()?;
        Ok(self.stamps_of(looks, kept).into_iter().collect())
    }

    /// Returns the stamps to record with `kept`: [`Stamp::unknown`] for files that have pieces
    /// pending verification.
    fn stamps_of(&self, looks: Vec<(usize, Option<Stamp>)>, kept: &Bitfield) -> Vec<(u32, Stamp)> {
        // Asked after the stamps were taken: a change noticed before that is already marked.
        let known = |(number, look): (usize, Option<Stamp>)| {
            let unknown = || Some(Stamp::unknown(look.map_or(0, |stamp: Stamp| stamp.inode)));
            if self.content.has_unverified(number, kept) { unknown() } else { look }
        };
        looks.into_iter().filter_map(|look| Some((look.0 as u32, known(look)?))).collect()
    }
}

impl<F: FileSystem> JournalState<F> {
    /// Records durable pieces and stamps in the journal, durably if it can be written.
    fn record(&self, pieces: &[Kept], stamps: &[(u32, Stamp)]) {
        if pieces.is_empty() && stamps.is_empty() {
            return;
        }
        let appended = self.lock().file.keep(pieces, stamps);
        if let Some(Err(source)) = appended.map(|file| self.fs.sync(&file)) {
            self.lock().file.not_synced(source);
        }
        self.lock().file.kept(pieces, stamps);
    }

    /// Durably drops pieces from the journal; removes the journal if it cannot be synced.
    fn lose(&self, pieces: &[PieceIndex]) -> Result<(), StorageError> {
        let appended = self.lock().file.lose(pieces)?;
        let Some(Err(source)) = appended.map(|file| self.fs.sync(&file)) else { return Ok(()) };
        let mut state = self.lock();
        state.file.not_synced(source);
        state.file.remove()
    }

    fn lock(&self) -> MutexGuard<'_, State<F>> {
        // A thread that panicked here appended less than it should have, which costs hashing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: FileSystem> State<F> {
    fn settle(
        &mut self,
        content: &Content<F>,
        kept: Bitfield,
        stamps: BTreeMap<u32, Stamp>,
        clean: bool,
    ) -> Result<(), StorageError> {
        let mut in_parts = Bitfield::new(kept.len());
        kept.iter_set().filter(|&piece| content.is_in_parts(piece)).for_each(|piece| {
            in_parts.set(piece);
        });
        self.file.settle(kept, in_parts, content.selection(), stamps, clean)?;
        self.is_settled = true;
        Ok(())
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
