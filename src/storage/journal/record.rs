//! The content of a journal and its encoding: a header, and records of kind, length, payload and
//! CRC-32.

use std::collections::BTreeMap;

use crate::proto::bitfield::Bitfield;
use crate::proto::infohash::InfoHash;
use crate::proto::piece::{Geometry, PieceIndex};
use crate::storage::fs::Stamp;
use crate::storage::pieces::Spilled;

/// First bytes of every journal.
const MAGIC: [u8; 8] = *b"spratjnl";
/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;
/// Magic, version, infohash, total length, piece length, file count, CRC.
const HEADER_LEN: usize = 8 + 4 + 20 + 8 + 4 + 4 + 4;
/// Kind and length before a record's payload, bytes.
const PREFIX_LEN: usize = 5;
/// The CRC after the payload, bytes.
const CRC_LEN: usize = 4;
/// Length of a stamp in a record, bytes.
const STAMP_LEN: usize = 4 + 4 * 8;
/// Flag of a piece in a record: its bytes of unselected files lie in the parts file.
const IN_PARTS: u32 = 1 << 31;

const KIND_SNAPSHOT: u8 = 1;
const KIND_INTENDED: u8 = 2;
const KIND_KEPT: u8 = 3;
const KIND_LOST: u8 = 4;
const KIND_CLEAN: u8 = 5;
const KIND_BLOCKS: u8 = 6;
const KIND_OWNED: u8 = 7;
const KIND_SELECTED: u8 = 8;

/// The torrent that a journal belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The torrent.
    pub infohash: InfoHash,
    /// Its piece lengths.
    pub geometry: Geometry,
    /// Its files, pad files included; the parts file comes after the last.
    pub file_count: u32,
}

/// A piece on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kept {
    /// The piece.
    pub piece: PieceIndex,
    /// Whether its bytes of unselected files lie in the parts file.
    pub in_parts: bool,
}

/// Files that this program may write, whatever they contain: it began them or took them over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The files, by number, including those that are still to be created.
    pub files: Bitfield,
    /// The device of their folder.
    pub device: u64,
    /// Identifies the boot of the system at which this was written.
    pub boot: u64,
}

/// The content of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Pieces that were durable.
    pub kept: Bitfield,
    /// Of these, those with bytes in the parts file.
    pub in_parts: Bitfield,
    /// The files that were selected then, by number; `None` if unknown.
    pub selected: Option<Bitfield>,
    /// Pieces that may have been written since, with the wall clock at that time, microseconds
    /// since 1970.
    pub intended: BTreeMap<PieceIndex, u64>,
    /// Written blocks of pieces that are not kept: their number in the piece, and the CRC-32 of
    /// their bytes.
    pub blocks: BTreeMap<PieceIndex, BTreeMap<u32, u32>>,
    /// Stamps of files when they were last made durable, by number.
    pub stamps: BTreeMap<u32, Stamp>,
    /// Files that this program may write; `None` if it never wrote here.
    pub owned: Option<Owned>,
    /// Whether it ended with everything durable and all stamps recorded.
    pub clean: bool,
    /// Whether it was read to its end; if not, pieces may be present that it does not name.
    pub whole: bool,
}

impl Record {
    /// Returns the record of a torrent without a journal.
    pub(in crate::storage) fn nothing(piece_count: u32) -> Self {
        Self {
            kept: Bitfield::new(piece_count),
            in_parts: Bitfield::new(piece_count),
            selected: None,
            intended: BTreeMap::new(),
            blocks: BTreeMap::new(),
            stamps: BTreeMap::new(),
            owned: None,
            clean: false,
            whole: false,
        }
    }

    pub(super) fn keep(&mut self, piece: Kept) {
        self.kept.set(piece.piece);
        if piece.in_parts {
            self.in_parts.set(piece.piece);
        } else {
            self.in_parts.clear(piece.piece);
        }
        self.intended.remove(&piece.piece);
        self.blocks.remove(&piece.piece);
    }

    pub(super) fn note_blocks(&mut self, piece: PieceIndex, blocks: &[Spilled]) {
        self.blocks.entry(piece).or_default().extend(blocks.iter().map(|block| (block.index, block.crc)));
    }

    /// Returns the files of ours, without those that these stamps show as replaced.
    pub(super) fn owned_as_before(&self, stamps: &BTreeMap<u32, Stamp>) -> Option<Owned> {
        let inode = |stamps: &BTreeMap<u32, Stamp>, file| stamps.get(&file).map(|stamp| stamp.inode);
        let mut owned = self.owned.clone()?;
        let files = owned.files.iter_set().filter(|&file| inode(stamps, file) != inode(&self.stamps, file));
        let others: Vec<u32> = files.collect();
        others.into_iter().for_each(|file| {
            owned.files.clear(file);
        });
        Some(owned)
    }

    /// Notes that a piece is not kept.
    fn doubt(&mut self, piece: PieceIndex) {
        self.kept.clear(piece);
        self.in_parts.clear(piece);
    }

    /// Notes that a piece and its blocks are lost.
    pub(super) fn lose(&mut self, piece: PieceIndex) {
        self.doubt(piece);
        self.blocks.remove(&piece);
    }

    /// Encodes a journal with exactly this content.
    pub(super) fn encode(&self, owner: &Owner) -> Vec<u8> {
        let mut bytes = header(owner);
        let mut payload = Vec::new();
        payload.extend_from_slice(self.kept.as_bytes());
        payload.extend_from_slice(self.in_parts.as_bytes());
        let stamps: Vec<_> = self.stamps.iter().map(|(&file, &stamp)| (file, stamp)).collect();
        encode_stamps(&stamps, &mut payload);
        bytes.extend(encode(KIND_SNAPSHOT, &payload));
        for (&piece, &at) in &self.intended {
            bytes.extend(intended(at, piece));
        }
        for (&piece, noted) in &self.blocks {
            bytes.extend(blocks(piece, noted.iter().map(|(&index, &crc)| Spilled { index, crc })));
        }
        if let Some(selected) = &self.selected {
            bytes.extend(encode(KIND_SELECTED, selected.as_bytes()));
        }
        if let Some(owned) = &self.owned {
            bytes.extend(encode(KIND_OWNED, &encode_owned(owned)));
        }
        if self.clean {
            bytes.extend(encode(KIND_CLEAN, &[]));
        }
        bytes
    }
}

fn header(owner: &Owner) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&owner.infohash.0);
    bytes.extend_from_slice(&owner.geometry.total_len().to_le_bytes());
    bytes.extend_from_slice(&owner.geometry.piece_len().to_le_bytes());
    bytes.extend_from_slice(&owner.file_count.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn encode(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX_LEN + payload.len() + CRC_LEN);
    bytes.push(kind);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Encodes that this piece, which is not kept, is about to be written, at `at` by the wall clock.
pub(super) fn intended(at: u64, piece: PieceIndex) -> Vec<u8> {
    let payload: Vec<u8> = at.to_le_bytes().into_iter().chain(piece.to_le_bytes()).collect();
    encode(KIND_INTENDED, &payload)
}

/// Encodes that these pieces are durable, in files with these stamps.
pub(super) fn kept(pieces: &[Kept], stamps: &[(u32, Stamp)]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(4 + pieces.len() * 4 + stamps.len() * STAMP_LEN);
    payload.extend_from_slice(&(pieces.len() as u32).to_le_bytes());
    for piece in pieces {
        let flag = if piece.in_parts { IN_PARTS } else { 0 };
        payload.extend_from_slice(&(piece.piece | flag).to_le_bytes());
    }
    encode_stamps(stamps, &mut payload);
    encode(KIND_KEPT, &payload)
}

/// Encodes that these pieces are lost.
pub(super) fn lost(pieces: &[PieceIndex]) -> Vec<u8> {
    let payload: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_le_bytes()).collect();
    encode(KIND_LOST, &payload)
}

/// Encodes that these blocks of a piece were written.
pub(super) fn blocks(piece: PieceIndex, blocks: impl Iterator<Item = Spilled>) -> Vec<u8> {
    let mut payload = piece.to_le_bytes().to_vec();
    for block in blocks {
        payload.extend_from_slice(&block.index.to_le_bytes());
        payload.extend_from_slice(&block.crc.to_le_bytes());
    }
    encode(KIND_BLOCKS, &payload)
}

fn encode_owned(owned: &Owned) -> Vec<u8> {
    let numbers = [owned.device.to_le_bytes(), owned.boot.to_le_bytes()];
    [numbers.as_flattened(), owned.files.as_bytes()].concat()
}

fn encode_stamps(stamps: &[(u32, Stamp)], out: &mut Vec<u8>) {
    for (file, stamp) in stamps {
        out.extend_from_slice(&file.to_le_bytes());
        out.extend_from_slice(&stamp.len.to_le_bytes());
        out.extend_from_slice(&stamp.modified.to_le_bytes());
        out.extend_from_slice(&stamp.changed.to_le_bytes());
        out.extend_from_slice(&stamp.inode.to_le_bytes());
    }
}

/// Decodes a journal; `None` if it belongs to another torrent or is no journal.
///
/// # Errors
/// Its version, if it is newer than [`VERSION`].
pub(super) fn decode(bytes: &[u8], owner: &Owner) -> Result<Option<Record>, u32> {
    let Some((head, mut rest)) = bytes.split_at_checked(HEADER_LEN) else { return Ok(None) };
    let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if head[..8] == MAGIC && version > VERSION {
        return Err(version);
    }
    if head != header(owner) {
        return Ok(None);
    }
    let mut record = Record::nothing(owner.geometry.piece_count());
    while let Some((kind, payload, after)) = split_record(rest) {
        if apply(&mut record, kind, payload, owner).is_none() {
            break;
        }
        rest = after;
    }
    record.whole = rest.is_empty() && bytes.len() > HEADER_LEN;
    // The missing rest may have withdrawn it.
    record.clean &= record.whole;
    Ok(Some(record))
}

/// Splits off the first record: kind, payload, and the bytes after it; `None` if it is torn or
/// invalid.
fn split_record(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[kind, a, b, c, d], _) = bytes.split_first_chunk::<PREFIX_LEN>()?;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    let (checked, rest) = bytes.split_at_checked(PREFIX_LEN.checked_add(len)?)?;
    let (crc, rest) = rest.split_first_chunk::<CRC_LEN>()?;
    (crc32fast::hash(checked) == u32::from_le_bytes(*crc)).then_some((kind, &checked[PREFIX_LEN..], rest))
}

/// Applies a record; `None` if the payload is invalid for its kind.
fn apply(record: &mut Record, kind: u8, payload: &[u8], owner: &Owner) -> Option<()> {
    record.clean = false;
    match kind {
        KIND_SNAPSHOT => apply_snapshot(record, payload, owner)?,
        KIND_INTENDED => {
            let (at, piece) = payload.split_first_chunk::<8>()?;
            let piece = piece_of(<[u8; 4]>::try_from(piece).ok()?, owner)?;
            record.doubt(piece);
            record.intended.insert(piece, u64::from_le_bytes(*at));
        }
        KIND_KEPT => apply_kept(record, payload, owner)?,
        KIND_LOST => {
            let (pieces, rest) = payload.as_chunks::<4>();
            let pieces: Option<Vec<_>> = pieces.iter().map(|&piece| piece_of(piece, owner)).collect();
            pieces.filter(|_| rest.is_empty())?.into_iter().for_each(|piece| record.lose(piece));
        }
        KIND_BLOCKS => apply_blocks(record, payload, owner)?,
        KIND_SELECTED => record.selected = Some(Bitfield::from_wire(payload, owner.file_count).ok()?),
        KIND_OWNED => record.owned = Some(owned(payload, owner)?),
        KIND_CLEAN => {
            record.intended.clear();
            record.clean = true;
        }
        _ => return None,
    }
    Some(())
}

fn apply_snapshot(record: &mut Record, payload: &[u8], owner: &Owner) -> Option<()> {
    let piece_count = owner.geometry.piece_count();
    let (kept, rest) = payload.split_at_checked(Bitfield::byte_len(piece_count))?;
    let (in_parts, rest) = rest.split_at_checked(Bitfield::byte_len(piece_count))?;
    let stamps = stamps(rest, owner)?;
    *record = Record {
        kept: Bitfield::from_wire(kept, piece_count).ok()?,
        in_parts: Bitfield::from_wire(in_parts, piece_count).ok()?,
        selected: None,
        intended: BTreeMap::new(),
        blocks: BTreeMap::new(),
        stamps,
        owned: None,
        clean: false,
        whole: false,
    };
    Some(())
}

fn apply_kept(record: &mut Record, payload: &[u8], owner: &Owner) -> Option<()> {
    let (count, rest) = payload.split_first_chunk::<4>()?;
    let (pieces, rest) = rest.split_at_checked((u32::from_le_bytes(*count) as usize).checked_mul(4)?)?;
    let stamps = stamps(rest, owner)?;
    let piece = |bytes: &[u8; 4]| {
        let word = u32::from_le_bytes(*bytes);
        let piece = piece_of((word & !IN_PARTS).to_le_bytes(), owner)?;
        Some(Kept { piece, in_parts: word & IN_PARTS != 0 })
    };
    let pieces: Vec<Kept> = pieces.as_chunks::<4>().0.iter().map(piece).collect::<Option<_>>()?;
    pieces.into_iter().for_each(|piece| record.keep(piece));
    record.stamps.extend(stamps);
    Some(())
}

fn apply_blocks(record: &mut Record, payload: &[u8], owner: &Owner) -> Option<()> {
    let (piece, blocks) = payload.split_first_chunk::<4>()?;
    let piece = piece_of(*piece, owner)?;
    let (blocks, rest) = blocks.as_chunks::<8>();
    let block = |&[a, b, c, d, crc @ ..]: &[u8; 8]| {
        let index = u32::from_le_bytes([a, b, c, d]);
        let is_block = index < owner.geometry.block_count(piece);
        is_block.then_some(Spilled { index, crc: u32::from_le_bytes(crc) })
    };
    let blocks: Vec<_> = blocks.iter().map(block).collect::<Option<_>>().filter(|_| rest.is_empty())?;
    record.note_blocks(piece, &blocks);
    Some(())
}

fn owned(payload: &[u8], owner: &Owner) -> Option<Owned> {
    let (device, rest) = payload.split_first_chunk::<8>()?;
    let (boot, files) = rest.split_first_chunk::<8>()?;
    let files = Bitfield::from_wire(files, owner.file_count).ok()?;
    Some(Owned { files, device: u64::from_le_bytes(*device), boot: u64::from_le_bytes(*boot) })
}

fn stamps(bytes: &[u8], owner: &Owner) -> Option<BTreeMap<u32, Stamp>> {
    let (stamps, rest) = bytes.as_chunks::<STAMP_LEN>();
    if !rest.is_empty() {
        return None;
    }
    let word = |bytes: &[u8; STAMP_LEN], at: usize| bytes[at..].first_chunk::<8>().copied();
    let stamp = |bytes: &[u8; STAMP_LEN]| {
        let file = u32::from_le_bytes(*bytes.first_chunk()?);
        let stamp = Stamp {
            len: u64::from_le_bytes(word(bytes, 4)?),
            modified: i64::from_le_bytes(word(bytes, 12)?),
            changed: i64::from_le_bytes(word(bytes, 20)?),
            inode: u64::from_le_bytes(word(bytes, 28)?),
        };
        (file <= owner.file_count).then_some((file, stamp))
    };
    stamps.iter().map(stamp).collect()
}

fn piece_of(bytes: [u8; 4], owner: &Owner) -> Option<PieceIndex> {
    Some(u32::from_le_bytes(bytes)).filter(|&piece| piece < owner.geometry.piece_count())
}
