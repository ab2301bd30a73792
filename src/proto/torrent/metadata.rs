//! The info dictionary for those who have only the infohash (BEP 9): the giving side.
//!
//! Requests wait in a queue a peer and leave in turns with the blocks, under the same rate limit. One connection
//! gets the whole at most [`COPIES_MAX`] times, the rest is refused; so nobody can make a small request cost us
//! an upload without end. All payloads lie in one buffer, made when somebody first asks and dropped with the
//! last who asked. The shell copies what it is handed, and does not say when that has left: so one connection is
//! handed at most [`WINDOW_COUNT`] pieces a second, and the rest waits here as numbers.
//!
//! Invariants: no piece waits twice for one peer; nobody waits for what was refused.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::event::ConnId;
use crate::proto::wire::metadata::{
    METADATA_PIECE_LEN, MetadataMessage, metadata_piece_count, metadata_piece_len,
};

/// How many times one connection may have the whole: once, and what it lost or mistrusts again. More is refused.
const COPIES_MAX: usize = 2;

/// Pieces handed out to one connection between two seconds of upkeep, 256 KiB: an ordinary description at once, one
/// of 32 MiB in two minutes. More wait.
const WINDOW_COUNT: usize = 16;

/// One peer's requests.
#[derive(Debug, Default)]
struct Asker {
    waiting: VecDeque<u32>,
    /// Pieces granted so far, those that wait included.
    granted: usize,
    /// Pieces handed out since the last upkeep.
    handed: usize,
}

/// The giving side.
#[derive(Debug)]
pub(super) struct Metadata {
    bytes: Bytes,
    /// All payloads, each with the place where it begins; None while nobody asks.
    payloads: Option<Payloads>,
    askers: BTreeMap<ConnId, Asker>,
}

/// The answers to all requests, one after another.
#[derive(Debug)]
struct Payloads {
    all: Bytes,
    starts: Vec<usize>,
}

impl Metadata {
    /// Gives out these bytes; none: gives nothing.
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes, payloads: None, askers: BTreeMap::new() }
    }

    /// A peer asks for a piece; false: it is refused.
    pub(super) fn ask(&mut self, conn: ConnId, piece: u32) -> bool {
        let count = metadata_piece_count(self.len()) as usize;
        if piece as usize >= count {
            return false;
        }
        let asker = self.askers.entry(conn).or_default();
        if asker.granted >= COPIES_MAX * count || asker.waiting.contains(&piece) {
            return false;
        }
        asker.granted += 1;
        asker.waiting.push_back(piece);
        true
    }

    /// Bytes of the piece that the peer gets next; None if nothing waits or it had enough for now.
    pub(super) fn next_len(&self, conn: ConnId) -> Option<u32> {
        let asker = self.askers.get(&conn).filter(|asker| asker.handed < WINDOW_COUNT)?;
        Some(metadata_piece_len(self.len(), *asker.waiting.front()?))
    }

    /// Some time passed: those who wait for more may have it.
    pub(super) fn upkeep(&mut self) -> Vec<ConnId> {
        self.askers.values_mut().for_each(|asker| asker.handed = 0);
        let waiting = self.askers.iter().filter(|(_, asker)| !asker.waiting.is_empty());
        waiting.map(|(conn, _)| *conn).collect()
    }

    /// The payload that the peer gets next.
    pub(super) fn pop(&mut self, conn: ConnId) -> Option<Bytes> {
        let asker = self.askers.get_mut(&conn).filter(|asker| asker.handed < WINDOW_COUNT)?;
        let piece = asker.waiting.pop_front()?;
        asker.handed += 1;
        let payloads = self.payloads.get_or_insert_with(|| Payloads::new(&self.bytes));
        payloads.of(piece)
    }

    /// The peer is gone.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.askers.remove(&conn);
        if self.askers.is_empty() {
            self.payloads = None;
        }
    }

    fn len(&self) -> u32 {
        self.bytes.len() as u32
    }
}

impl Payloads {
    fn new(bytes: &Bytes) -> Self {
        let total_len = bytes.len() as u32;
        let (mut all, mut starts) = (BytesMut::new(), Vec::new());
        let pieces = (0..metadata_piece_count(total_len)).zip(bytes.chunks(METADATA_PIECE_LEN as usize));
        for (piece, content) in pieces {
            starts.push(all.len());
            let bytes = bytes.slice_ref(content);
            all.extend_from_slice(&MetadataMessage::Data { piece, total_len, bytes }.encode());
        }
        Self { all: all.freeze(), starts }
    }

    fn of(&self, piece: u32) -> Option<Bytes> {
        let from = *self.starts.get(piece as usize)?;
        let to = self.starts.get(piece as usize + 1).copied().unwrap_or(self.all.len());
        Some(self.all.slice(from..to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: ConnId = ConnId(1);

    fn given(metadata: &mut Metadata) -> Vec<Bytes> {
        std::iter::from_fn(|| metadata.pop(PEER)).collect()
    }

    #[test]
    fn every_piece_is_given_as_it_is_and_shares_one_buffer() {
        let bytes: Bytes = (0..40_000_u32).map(|at| at as u8).collect::<Vec<_>>().into();
        let mut metadata = Metadata::new(bytes.clone());
        assert!((0..3).all(|piece| metadata.ask(PEER, piece)) && !metadata.ask(PEER, 3));
        assert_eq!(metadata.next_len(PEER), Some(16_384));
        let payloads = given(&mut metadata);
        for (piece, payload) in (0..).zip(&payloads) {
            let part = bytes.slice(piece as usize * 16_384..(piece as usize * 16_384 + 16_384).min(40_000));
            let data = MetadataMessage::Data { piece, total_len: 40_000, bytes: part };
            assert_eq!(MetadataMessage::decode(payload), Ok(data));
        }
        assert!(metadata.ask(PEER, 0));
        assert_eq!(given(&mut metadata)[0].as_ptr(), payloads[0].as_ptr(), "not made again");
        metadata.forget(PEER);
        assert!(metadata.payloads.is_none() && metadata.next_len(PEER).is_none());
    }

    #[test]
    fn one_connection_gets_the_whole_twice_and_no_piece_waits_twice() {
        let mut metadata = Metadata::new(vec![0; 20_000].into());
        assert!(metadata.ask(PEER, 0) && !metadata.ask(PEER, 0));
        given(&mut metadata);
        let granted = (0..100).filter(|_| {
            let granted = metadata.ask(PEER, 0);
            given(&mut metadata);
            granted
        });
        assert_eq!(granted.count(), 3);
        assert!(metadata.ask(ConnId(2), 0) && !Metadata::new(Bytes::new()).ask(PEER, 0));
    }
}
