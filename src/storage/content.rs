//! One torrent's files: thread-free reading, writing, checking of pieces.

use std::io;
use std::path::PathBuf;

use super::fs::FileSystem;
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::metainfo::Info;
use crate::proto::piece::PieceIndex;

/// What went wrong at which file. `kind` drives the policy: full disks pause, the rest stops.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}", path = path.display())]
pub struct StorageError {
    /// The file.
    pub path: PathBuf,
    /// From the system.
    pub source: io::Error,
}

impl StorageError {
    /// No space or quota left: a state that passes, not an error.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// One torrent's files below one folder. All methods take `&self`: reads and writes of different pieces may
/// run at once on different threads.
pub struct Content<F: FileSystem> {
    _skeleton: std::marker::PhantomData<F>,
}

impl<F: FileSystem> Content<F> {
    /// Nothing is touched yet. `selected[i]` says whether file `i` of `info.files` is wanted; blocks of
    /// unwanted files that share a piece with wanted ones go to a parts file.
    pub fn new(info: Info, selected: Vec<bool>, fs: F) -> Self {
        let _ = (info, selected, fs);
        todo!()
    }

    /// The torrent.
    pub fn info(&self) -> &Info {
        todo!()
    }

    /// The pieces that selected files touch.
    pub fn wanted(&self) -> Bitfield {
        todo!()
    }

    /// Reads a span of a piece into `buffer` (`buffer.len()` = `block.len`).
    pub fn read_block(&self, block: Block, buffer: &mut [u8]) -> Result<(), StorageError> {
        let _ = (block, buffer);
        todo!()
    }

    /// Writes a whole piece out of its blocks in order.
    pub fn write_piece(&self, piece: PieceIndex, blocks: &[&[u8]]) -> Result<(), StorageError> {
        let _ = (piece, blocks);
        todo!()
    }

    /// Reads and hashes a piece; a missing or short file is `Ok(false)`.
    pub fn check_piece(&self, piece: PieceIndex, scratch: &mut Vec<u8>) -> Result<bool, StorageError> {
        let _ = (piece, scratch);
        todo!()
    }

    /// Whether any file of the content exists (else a check at start can be skipped).
    pub fn exists(&self) -> Result<bool, StorageError> {
        todo!()
    }

    /// Makes empty files and executable bits, and syncs; called when every wanted piece is there.
    pub fn finish(&self) -> Result<(), StorageError> {
        todo!()
    }

    /// Makes what was written durable.
    pub fn sync(&self) -> Result<(), StorageError> {
        todo!()
    }
}
