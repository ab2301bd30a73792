//! One torrent's files together with the journal of what is durable in them: what a start finds there, what is
//! written, and how it ends. The order of its calls is what makes the journal true.
//!
//! A [`Store`] begins by looking at every file and at the journal ([`Store::begin`]); nothing is written yet, so
//! that what is complete can be handed on from a place that takes no writes. Before the first piece is written
//! the content is taken for ourselves and the journal is written anew ([`Store::prepare`]); then each piece is
//! intended, written, and from time to time committed: made durable, and only then kept in the journal. At the
//! end everything is durable and the journal says so ([`Store::close`]).
//!
//! Without a journal all of this works the same, but the next start has to hash. Thread-free: any number of
//! threads may write and read pieces at once. The lock of the journal is held to append a record, never while a
//! disk makes something durable, but for the rare times when the journal is written anew; those who make
//! something durable wait for each other, since what one has begun to sync is not durable for the other yet.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::content::{Content, LostPiece, StorageError};
use super::fs::{FileSystem, Stamp};
use super::journal::{Journal, Kept, Record};
use super::resume::{self, Verdict};
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::metainfo::Info;
use crate::proto::piece::PieceIndex;

/// One torrent on one disk.
#[derive(Debug)]
pub struct Store<F: FileSystem> {
    content: Content<F>,
    /// Unset: nothing is recorded.
    ledger: OnceLock<Ledger<F>>,
    /// Held by who makes something durable.
    syncing: Mutex<()>,
    /// The file that says to others that we write this content; None: we do not.
    taken: Mutex<Option<F::Lock>>,
}

/// The journal, and what is not in it yet.
#[derive(Debug)]
struct Ledger<F: FileSystem> {
    /// Where the journal is.
    fs: Arc<F>,
    state: Mutex<State<F>>,
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

impl<F: FileSystem> Store<F> {
    /// Nothing is touched yet.
    pub fn new(content: Content<F>) -> Self {
        Self { content, ledger: OnceLock::new(), syncing: Mutex::new(()), taken: Mutex::new(None) }
    }

    /// The torrent.
    pub fn info(&self) -> &Info {
        self.content.info()
    }

    /// Its files.
    pub fn content(&self) -> &Content<F> {
        &self.content
    }

    /// Looks at every file and holds it against the journal, if there is one: which pieces are there, and which
    /// are to be hashed. To be called once, before anything is written; nothing is written by it.
    ///
    /// # Errors
    /// Something else stands in the place of a file.
    pub fn begin(&self, journal: Option<Journal<F>>) -> Result<Verdict, StorageError> {
        let verdict = match &journal {
            Some(journal) => resume::judge(&self.content, journal.record())?,
            None => resume::judge(&self.content, &Record::nothing(self.info().geometry.piece_count()))?,
        };
        self.content.restore_parts(&verdict.in_parts);
        if let Some(journal) = journal {
            let fs = Arc::clone(journal.fs());
            let state =
                Mutex::new(State { journal, is_settled: false, written: Vec::new(), is_unsure: false });
            let is_first = self.ledger.set(Ledger { fs, state }).is_ok();
            debug_assert!(is_first, "a store begins once");
        }
        Ok(verdict)
    }

    /// Makes ready for writing when these pieces are there: takes the content for ourselves, makes durable what
    /// was found, and writes the journal anew. Later calls do nothing.
    ///
    /// # Errors
    /// Another program writes this content (`ResourceBusy`), or the disk fails; it may be tried again.
    pub fn prepare(&self, have: &Bitfield) -> Result<(), StorageError> {
        self.take()?;
        let _alone = self.syncing();
        let Some(ledger) = self.ledger.get().filter(|ledger| !ledger.state().is_settled) else {
            return Ok(());
        };
        self.sync_found(ledger, have)?;
        let stamps = self.stamps()?;
        ledger.state().settle(&self.content, have.clone(), stamps, false)
    }

    /// Sets apart the room for all selected files.
    ///
    /// # Errors
    /// There is not enough; it may be tried again.
    pub fn preallocate(&self) -> Result<(), StorageError> {
        self.content.preallocate()
    }

    /// Writes a whole piece out of its blocks in order.
    ///
    /// # Errors
    /// It is not to be handed on, nor claimed; it may be tried again.
    pub fn write_piece(&self, piece: PieceIndex, blocks: &[&[u8]]) -> Result<(), StorageError> {
        self.take()?;
        let Some(ledger) = self.ledger.get() else { return self.content.write_piece(piece, blocks) };
        if !ledger.state().is_settled {
            let kept = ledger.state().journal.record().kept.clone();
            self.prepare(&kept)?;
        }
        ledger.state().journal.intend(self.content.fs().now(), piece)?;
        self.content.write_piece(piece, blocks)?;
        ledger.state().written.push(Kept { piece, in_parts: self.content.is_in_parts(piece) });
        Ok(())
    }

    /// Makes durable what was written, and then that it was; how many pieces.
    ///
    /// # Errors
    /// It may not be durable; the next commit tries again.
    pub fn commit(&self) -> Result<usize, StorageError> {
        let _alone = self.syncing();
        self.commit_alone()
    }

    fn commit_alone(&self) -> Result<usize, StorageError> {
        let Some(ledger) = self.ledger.get() else { return self.content.sync().map(|()| 0) };
        let (mut pieces, is_unsure) = ledger.state().take_written();
        let rewritten = if is_unsure { self.write_again(&mut pieces) } else { Ok(()) };
        let committed = rewritten.and_then(|()| self.commit_pieces(ledger, &pieces));
        if let Err(error) = committed {
            let mut state = ledger.state();
            state.written.extend(pieces);
            state.is_unsure = true;
            return Err(error);
        }
        Ok(pieces.len())
    }

    /// After a sync that failed a system may take the bytes for written although they are not, and the next sync
    /// says that all is well. So they are written once more, as long as they can be read. Of what cannot be, the
    /// next start finds out, and nothing of it goes out before.
    fn write_again(&self, pieces: &mut Vec<Kept>) -> Result<(), StorageError> {
        let (mut scratch, mut bytes) = (Vec::new(), Vec::new());
        let mut good = Vec::with_capacity(pieces.len());
        for &kept in &*pieces {
            let (piece, len) = (kept.piece, self.info().geometry.len_of(kept.piece));
            if !self.content.check_piece(piece, &mut scratch)? {
                self.content.suspect_piece(piece);
                continue;
            }
            bytes.resize(len as usize, 0);
            self.content.read_block(Block { piece, offset: 0, len }, &mut bytes)?;
            self.content.write_piece(piece, &[&bytes])?;
            good.push(kept);
        }
        *pieces = good;
        Ok(())
    }

    fn commit_pieces(&self, ledger: &Ledger<F>, pieces: &[Kept]) -> Result<(), StorageError> {
        let stamps = self.content.sync_stamped()?;
        let mut state = ledger.state();
        if !state.is_settled || (pieces.is_empty() && stamps.is_empty()) {
            return Ok(());
        }
        let file = state.journal.keep(pieces, &stamps)?;
        drop(state);
        let synced = ledger.fs.sync(&file);
        let mut state = ledger.state();
        synced.map_err(|source| state.journal.error(source))?;
        state.journal.kept(pieces, &stamps)
    }

    /// Pieces turned out to be gone or false.
    ///
    /// # Errors
    /// The journal may still name them; the files do not look as it says, so they are hashed at the next start.
    pub fn lose(&self, pieces: &[PieceIndex]) -> Result<(), StorageError> {
        let _alone = self.syncing();
        let Some(ledger) = self.ledger.get() else { return Ok(()) };
        let mut state = ledger.state();
        state.written.retain(|kept| !pieces.contains(&kept.piece));
        let is_settled = state.is_settled;
        let mut kept = state.journal.record().kept.clone();
        drop(state);
        self.unless_others(|| {
            if is_settled {
                return ledger.state().journal.lose(pieces);
            }
            pieces.iter().for_each(|&piece| {
                kept.clear(piece);
            });
            let stamps = self.stamps()?;
            ledger.state().settle(&self.content, kept, stamps, false)
        })
    }

    /// Every wanted piece is there: makes empty files and executable bits, and [`Store::close`]s. Comes back with
    /// pieces that somebody else has spoilt meanwhile; then nothing was done.
    ///
    /// # Errors
    /// A file cannot be made or made durable; it may be tried again.
    pub fn finish(&self, have: &Bitfield) -> Result<Vec<LostPiece>, StorageError> {
        let lost = self.content.find_lost(have)?;
        if lost.is_empty() {
            let alone = self.syncing();
            self.content.finish()?;
            drop(alone);
            self.close(have)?;
        }
        Ok(lost)
    }

    /// Makes everything durable and writes into the journal how all files look, so that the next start need only
    /// compare. Others may write the content from now on, until we do so again.
    ///
    /// # Errors
    /// The next start has to hash more.
    pub fn close(&self, have: &Bitfield) -> Result<(), StorageError> {
        let alone = self.syncing();
        let closed = self.conclude(have);
        drop(alone);
        *self.taken() = None;
        closed
    }

    fn conclude(&self, have: &Bitfield) -> Result<(), StorageError> {
        let Some(ledger) = self.ledger.get() else { return self.content.sync() };
        self.unless_others(|| {
            if ledger.state().is_settled {
                self.commit_alone()?;
            } else {
                self.sync_found(ledger, have)?;
            }
            self.settle_clean(ledger, have)
        })
    }

    /// Whoever writes the content keeps its journal: while others do, nothing is done.
    fn unless_others(&self, write: impl FnOnce() -> Result<(), StorageError>) -> Result<(), StorageError> {
        let is_ours = self.taken().is_some();
        if !is_ours && self.content.is_begun()? {
            match self.take() {
                Err(error) if error.source.kind() == io::ErrorKind::ResourceBusy => return Ok(()),
                taken => taken?,
            }
            // Not ours for longer than it takes to know: a download may be about to begin.
            *self.taken() = None;
        }
        write()
    }

    fn settle_clean(&self, ledger: &Ledger<F>, have: &Bitfield) -> Result<(), StorageError> {
        let stamps = self.stamps()?;
        let mut state = ledger.state();
        let record = state.journal.record();
        let kept = if state.is_settled { record.kept.clone() } else { have.clone() };
        if record.clean && record.kept == kept && record.stamps == stamps {
            return Ok(());
        }
        state.settle(&self.content, kept, stamps, true)
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
        let mut taken = self.taken();
        if taken.is_none() {
            *taken = self.content.take()?;
        }
        Ok(())
    }

    fn syncing(&self) -> MutexGuard<'_, ()> {
        // It guards an order of calls, no state.
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self) -> MutexGuard<'_, Option<F::Lock>> {
        // It is there or it is not.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found by hashing is made durable: who wrote it may not have done so.
    fn sync_found(&self, ledger: &Ledger<F>, have: &Bitfield) -> Result<(), StorageError> {
        let kept = ledger.state().journal.record().kept.clone();
        have.iter_set().filter(|&piece| !kept.get(piece)).for_each(|piece| self.content.found(piece));
        self.content.sync()
    }

    /// How all files looked when their bytes were last known.
    fn stamps(&self) -> Result<BTreeMap<u32, Stamp>, StorageError> {
        let mut stamps = BTreeMap::new();
        for number in 0..=self.info().files.len() {
            stamps.extend(self.content.last_look(number)?.map(|stamp| (number as u32, stamp)));
        }
        Ok(stamps)
    }
}

impl<F: FileSystem> Ledger<F> {
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
        self.journal.settle(kept, in_parts, stamps, clean)?;
        self.is_settled = true;
        Ok(())
    }
}
