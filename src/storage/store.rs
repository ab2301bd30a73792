//! One torrent's files together with the journal of what is durable in them: what a start finds
//! there, what is written, and how it ends. The order of its calls is what makes the journal true.
//!
//! A [`Store`] begins by looking at every file and at the journal ([`Store::begin`]); nothing is
//! written yet, so that what is complete can be handed on from a place that takes no writes. Before
//! the first piece is written the content is taken for ourselves and the journal is written anew
//! ([`Store::prepare`]); then each piece is intended, written, and from time to time committed:
//! made durable, and only then kept in the journal. At the end everything is durable and the
//! journal says so ([`Store::close`]).
//!
//! A file of which a piece is suspect, because somebody else changed it, has no stamp in the
//! journal ([`Stamp::unknown`]): what of it was not hashed again by the end is hashed at the next
//! start.
//!
//! Without a journal all of this works the same, but the next start has to hash. Thread-free: any
//! number of threads may write and read pieces at once. The lock is held to append a record, never
//! while a disk makes something durable, but for the rare times when the journal is written anew.
//! Who makes something durable has a lock of their own for that long, so that nobody takes for
//! durable what another is still syncing.
//!
//! After a sync that failed a system may take the bytes for written although they are not, and the
//! next sync says that all is well. So what it was to cover is hashed and written once more before
//! the next; and hashed before it goes out.

mod admission;
mod partial;
mod unrecorded;
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
use partial::Begun;
use unrecorded::Unrecorded;

/// One torrent on one disk.
#[derive(Debug)]
pub struct Store<F: FileSystem> {
    content: Content<F>,
    /// Unset: nothing is recorded.
    ledger: OnceLock<Box<Ledger<F>>>,
    unrecorded: Unrecorded,
    begun: Begun,
    claim: Mutex<Claim<F>>,
}

/// Whether others know that we write this content.
#[derive(Debug)]
struct Claim<F: FileSystem> {
    /// The file that says so to them; None: we do not.
    lock: Option<F::Lock>,
    /// Until the content is closed; else only as long as the journal is written.
    is_kept: bool,
}

/// The journal, and what is not in it yet.
#[derive(Debug)]
struct Ledger<F: FileSystem> {
    /// Where the journal is.
    fs: Arc<F>,
    /// Files that were ours to write when it was opened.
    ours: Bitfield,
    state: Mutex<State<F>>,
    /// Held to make things durable.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct State<F: FileSystem> {
    journal: Journal<F>,
    /// Whether the file says what the journal does: before, it is only read.
    is_settled: bool,
    /// Pieces written since the last commit.
    written: Vec<Kept>,
    /// A sync failed: the system may have forgotten that bytes of `written` are not on the disk.
    is_unsure: bool,
}

/// Pieces that are there as they were written, and those that the disk did not keep.
type Rewritten = (Vec<Kept>, Vec<LostPiece>);
/// Files that were synced, by number, with how they looked afterwards.
type Looks = Vec<(usize, Option<Stamp>)>;

impl<F: FileSystem> Store<F> {
    /// Nothing is touched yet.
    pub fn new(content: Content<F>) -> Self {
        let claim = Mutex::new(Claim { lock: None, is_kept: false });
        let (unrecorded, begun) = (Unrecorded::default(), Begun::default());
        Self { content, ledger: OnceLock::new(), unrecorded, begun, claim }
    }

    /// The torrent.
    pub fn info(&self) -> &Info {
        self.content.info()
    }

    /// Its files.
    pub fn content(&self) -> &Content<F> {
        &self.content
    }

    /// Looks at every file and holds it against the journal, if there is one: which pieces are
    /// there, and which are to be hashed. To be called once, before anything is written; nothing is
    /// written by it.
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
        if let Some(mut journal) = journal {
            journal.trust(verdict.vouched.clone(), verdict.in_parts.clone());
            for file in verdict.ours.iter_set() {
                let look = self.content.last_look(file as usize)?;
                look.into_iter().for_each(|stamp| journal.identify(file, stamp.inode));
            }
            let fs = Arc::clone(journal.fs());
            let state =
                Mutex::new(State { journal, is_settled: false, written: Vec::new(), is_unsure: false });
            let ours = verdict.ours.clone();
            let ledger = Box::new(Ledger { fs, ours, state, turn: Mutex::new(()) });
            let is_first = self.ledger.set(ledger).is_ok();
            debug_assert!(is_first, "a store begins once");
        }
        Ok(verdict)
    }

    /// Makes ready for writing when these pieces are there: takes the content for ourselves, makes
    /// durable what was found, and writes the journal anew, with the selected files as ours from
    /// now on. Which pieces are there: without those that the disk did not keep. Later calls only
    /// say that.
    ///
    /// # Errors
    /// Another program writes this content (`ResourceBusy`), or the disk fails; it may be tried
    /// again.
    pub fn prepare(&self, have: &Bitfield) -> Result<Bitfield, StorageError> {
        self.take()?;
        let mut have = have.clone();
        self.content.rewrite_mixed()?.into_iter().for_each(|gone| {
            have.clear(gone);
        });
        let Some(ledger) = self.ledger.get() else { return self.content.sync().map(|_| have) };
        let _turn = ledger.turn();
        let known = ledger.state();
        if known.is_settled {
            return Ok(known.journal.record().kept.clone());
        }
        drop(known);
        let lost = self.sync_found(ledger, &have)?;
        lost.iter().for_each(|lost| {
            have.clear(lost.piece);
        });
        self.own(ledger);
        let settled = self.settle(ledger, have.clone(), false);
        // Else they would count as found the next time.
        settled.inspect_err(|_| ledger.state().is_unsure |= !lost.is_empty())?;
        Ok(have)
    }

    /// A piece is about to be written: the content is ours, and the journal knows. None: there is
    /// no journal.
    fn begin_write(&self, piece: PieceIndex) -> Result<Option<&Ledger<F>>, StorageError> {
        self.take()?;
        let Some(ledger) = self.ledger.get() else { return Ok(None) };
        if !ledger.state().is_settled {
            let kept = ledger.state().journal.record().kept.clone();
            self.prepare(&kept)?;
        }
        self.intend(ledger, piece)?;
        Ok(Some(ledger))
    }

    /// From the first write of ours on, a file may look as if only we had written to it since it
    /// was stamped. So stamps of files of which a piece is suspect are taken back before that.
    fn intend(&self, ledger: &Ledger<F>, piece: PieceIndex) -> Result<(), StorageError> {
        if ledger.state().journal.record().kept.get(piece) {
            // Durably not kept before its bytes are touched.
            ledger.lose(&[piece])?;
        }
        let mut state = ledger.state();
        let record = state.journal.record();
        let is_stamped = |number: &u32| record.stamps.get(number).is_some_and(|at| !at.is_unknown());
        let is_suspect = |number: &u32| self.content.is_suspect(*number as usize, &record.kept);
        let places = self.content.places(self.content.whole(piece), true).map(|number| number as u32);
        let suspect: Vec<u32> = places.filter(is_stamped).filter(is_suspect).collect();
        if !suspect.is_empty() {
            state.journal.forget(&suspect)?;
        }
        state.journal.intend(self.content.fs().now(), piece);
        Ok(())
    }

    /// Whether the journal may lack pieces that are durable, because it can neither be written nor
    /// removed: then the next start may not find them.
    pub fn has_journal_gaps(&self) -> bool {
        self.ledger.get().is_some_and(|ledger| ledger.state().journal.has_gaps())
    }

    /// What is wrong with the journal, for the user; once.
    pub fn take_journal_trouble(&self) -> Option<Trouble> {
        self.ledger.get()?.state().journal.take_trouble()
    }

    /// Makes durable what was written, and then that it was. Pieces come back that the disk did not
    /// keep.
    ///
    /// # Errors
    /// It may not be durable; the next commit tries again.
    pub fn commit(&self) -> Result<Vec<LostPiece>, StorageError> {
        let Some(ledger) = self.ledger.get() else { return self.commit_unrecorded() };
        let _turn = ledger.turn();
        let is_settled = ledger.state().is_settled;
        // Before, nothing was written.
        if is_settled { self.commit_written(ledger) } else { Ok(Vec::new()) }
    }

    fn commit_written(&self, ledger: &Ledger<F>) -> Result<Vec<LostPiece>, StorageError> {
        let (pieces, is_unsure) = ledger.state().take_written();
        let synced = self.sync_written(&pieces, is_unsure);
        let ((good, lost), looks) = synced.inspect_err(|_| ledger.state().put_back(&pieces, true))?;
        let mut kept = ledger.state().journal.record().kept.clone();
        good.iter().for_each(|good| {
            kept.set(good.piece);
        });
        let stamps = self.stamps_of(looks, &kept);
        ledger.record(&good, &stamps);
        Ok(lost)
    }

    /// Makes durable what was written, again first if a sync failed before; how the files looked.
    fn sync_written(&self, pieces: &[Kept], is_unsure: bool) -> Result<(Rewritten, Looks), StorageError> {
        let rewritten = if is_unsure { self.write_again(pieces) } else { Ok((pieces.to_vec(), Vec::new())) };
        let synced = rewritten.and_then(|rewritten| Ok((rewritten, self.content.sync()?)));
        synced.inspect_err(|_| {
            self.content.suspect_pieces(pieces.iter().map(|kept| kept.piece));
            self.begun.doubt_all();
        })
    }

    /// Writes pieces once more after a sync that failed: those that could be read, and those that
    /// could not.
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

    /// Pieces turned out to be gone or false. A journal that nothing was written into yet is left
    /// as it is: the files do not look as it says.
    ///
    /// # Errors
    /// The journal may still name them; the files do not look as it says, so they are hashed at the
    /// next start.
    pub fn lose(&self, pieces: &[PieceIndex]) -> Result<(), StorageError> {
        let Some(ledger) = self.ledger.get() else {
            self.unrecorded.lose(pieces);
            return Ok(());
        };
        let _turn = ledger.turn();
        let mut state = ledger.state();
        state.written.retain(|kept| !pieces.contains(&kept.piece));
        if !state.is_settled {
            return Ok(());
        }
        drop(state);
        self.unless_others(|| ledger.lose(pieces))
    }

    /// Makes everything durable and writes into the journal how all files look, so that the next
    /// start need only compare. Then others may write the content, until we do so again. Pieces
    /// come back that the disk did not keep: then it is not closed.
    ///
    /// # Errors
    /// The next start has to hash more, unless it is tried again; until then the content is ours.
    pub fn close(&self, have: &Bitfield) -> Result<Vec<LostPiece>, StorageError> {
        let lost = self.conclude(have)?;
        if lost.is_empty() {
            *self.claim() = Claim { lock: None, is_kept: false };
        }
        Ok(lost)
    }

    fn conclude(&self, have: &Bitfield) -> Result<Vec<LostPiece>, StorageError> {
        let Some(ledger) = self.ledger.get() else { return self.commit_unrecorded() };
        let _turn = ledger.turn();
        self.unless_others(|| self.conclude_alone(ledger, have))
    }

    fn conclude_alone(&self, ledger: &Ledger<F>, have: &Bitfield) -> Result<Vec<LostPiece>, StorageError> {
        let is_settled = ledger.state().is_settled;
        let lost = if is_settled { self.commit_written(ledger)? } else { self.sync_found(ledger, have)? };
        if !lost.is_empty() {
            return Ok(lost);
        }
        let kept = if is_settled { ledger.state().journal.record().kept.clone() } else { have.clone() };
        self.settle(ledger, kept, true)?;
        Ok(lost)
    }

    /// Writes into the journal that these pieces are there, and how all files look, unless it says
    /// so already.
    fn settle(&self, ledger: &Ledger<F>, kept: Bitfield, clean: bool) -> Result<(), StorageError> {
        let stamps = self.stamps(&kept)?;
        let mut state = ledger.state();
        let record = state.journal.record();
        let is_said = !state.journal.has_lapsed() && record.kept == kept && record.stamps == stamps;
        if clean && record.clean && is_said {
            return Ok(());
        }
        state.settle(&self.content, kept, stamps, clean)
    }

    /// Whoever writes the content keeps its journal: while others do, nothing is done.
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

    /// Tells others that we write this content, by a lock on its first file.
    fn take(&self) -> Result<(), StorageError> {
        let mut claim = self.claim();
        if claim.lock.is_none() {
            claim.lock = self.content.take()?;
        }
        claim.is_kept = true;
        Ok(())
    }

    fn claim(&self) -> MutexGuard<'_, Claim<F>> {
        // The lock is there or it is not.
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found by hashing is made durable: who wrote it may not have done so, or (where it
    /// was us) a sync of it may have failed before we were killed, so that what reads well is in
    /// caches alone: that is written once more. Pieces come back that the disk did not keep.
    fn sync_found(&self, ledger: &Ledger<F>, have: &Bitfield) -> Result<Vec<LostPiece>, StorageError> {
        let kept = ledger.state().journal.record().kept.clone();
        let found = have.iter_set().filter(|&piece| !kept.get(piece));
        let found: Vec<_> =
            found.map(|piece| Kept { piece, in_parts: self.content.is_in_parts(piece) }).collect();
        let (mut unsure, mut sure) = (found.clone(), Vec::new());
        if !std::mem::take(&mut ledger.state().is_unsure) {
            let state = ledger.state();
            let intended = &state.journal.record().intended;
            (unsure, sure) = found.iter().partition(|kept| intended.contains_key(&kept.piece));
        }
        let synced = self.write_again(&unsure).and_then(|(good, lost)| {
            good.iter().chain(&sure).for_each(|kept| self.content.found(kept.piece));
            self.content.sync().map(|_| lost)
        });
        if synced.is_err() {
            self.content.suspect_pieces(found.iter().map(|kept| kept.piece));
            ledger.state().is_unsure = true;
        }
        synced
    }

    /// How all files looked when their bytes were last known, of which these pieces are kept.
    fn stamps(&self, kept: &Bitfield) -> Result<BTreeMap<u32, Stamp>, StorageError> {
        let look = |number| Ok((number, self.content.last_look(number)?));
        let looks: Vec<_> = (0..=self.info().files.len()).map(look).collect::<Result<_, StorageError>>()?;
        Ok(self.stamps_of(looks, kept).into_iter().collect())
    }

    /// What the journal is to say of files that were looked at, when these pieces are kept: nothing
    /// of those of which one is suspect.
    fn stamps_of(&self, looks: Vec<(usize, Option<Stamp>)>, kept: &Bitfield) -> Vec<(u32, Stamp)> {
        // Asked after they were looked at: whoever noticed a change before has said so by then.
        let known = |(number, look): (usize, Option<Stamp>)| {
            let unknown = || Some(Stamp::unknown(look.map_or(0, |stamp: Stamp| stamp.inode)));
            if self.content.is_suspect(number, kept) { unknown() } else { look }
        };
        looks.into_iter().filter_map(|look| Some((look.0 as u32, known(look)?))).collect()
    }
}

impl<F: FileSystem> Ledger<F> {
    fn turn(&self) -> MutexGuard<'_, ()> {
        // It guards no state: who died with it has at most not made durable what they would have.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the journal what is durable, durably if it can be written.
    fn record(&self, pieces: &[Kept], stamps: &[(u32, Stamp)]) {
        if pieces.is_empty() && stamps.is_empty() {
            return;
        }
        let appended = self.state().journal.keep(pieces, stamps);
        if let Some(Err(source)) = appended.map(|file| self.fs.sync(&file)) {
            self.state().journal.not_synced(source);
        }
        self.state().journal.kept(pieces, stamps);
    }

    fn lose(&self, pieces: &[PieceIndex]) -> Result<(), StorageError> {
        let appended = self.state().journal.lose(pieces)?;
        let Some(Err(source)) = appended.map(|file| self.fs.sync(&file)) else { return Ok(()) };
        let mut state = self.state();
        state.journal.not_synced(source);
        state.journal.remove()
    }

    fn state(&self) -> MutexGuard<'_, State<F>> {
        // A thread that died here has at most written less than it said it would.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: FileSystem> State<F> {
    /// What was written since the last commit, and whether a sync of it failed.
    fn take_written(&mut self) -> (Vec<Kept>, bool) {
        (std::mem::take(&mut self.written), std::mem::take(&mut self.is_unsure))
    }

    /// What could not be committed; `is_unsure`: and may not be what was written.
    fn put_back(&mut self, pieces: &[Kept], is_unsure: bool) {
        self.written.extend(pieces);
        self.is_unsure |= is_unsure;
    }

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
        self.journal.settle(kept, in_parts, content.selection(), stamps, clean)?;
        self.is_settled = true;
        Ok(())
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
