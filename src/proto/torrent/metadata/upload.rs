//! The info dictionary for peers that have only the infohash (BEP 9): the sending side.
//!
//! Requests wait in a queue a peer and leave in turns with the blocks, under the same rate limit.
//! One connection gets the whole at most [`COPIES_MAX`] times and further requests are rejected, so
//! that a peer cannot cause an endless upload with small requests. All payloads lie in one buffer,
//! which is made at the first request and dropped with the last peer that requested. The shell
//! copies the pieces that it is given and reports when they have been sent: of one connection it
//! holds at most [`WINDOW_COUNT`] pieces, and the rest waits here as numbers. So metadata goes as
//! fast as the connection takes it.
//!
//! All connections from one network ([`compact::site`]), which one operator can easily have,
//! together get [`BURST_LEN_MIN`] or [`COPIES_MAX`] copies at once, and [`SITE_RATE`] from then on;
//! further requests wait. Local networks are exempt, since all peers of a cluster may be in one.
//!
//! Invariants: no piece waits twice for one peer; a rejected piece does not wait.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use bytes::{Bytes, BytesMut};

use crate::proto::compact;
use crate::proto::time::Instant;
use crate::proto::torrent::event::ConnId;
use crate::proto::wire::metadata::{
    METADATA_PIECE_LEN, MetadataMessage, metadata_piece_count, metadata_piece_len,
};

/// How many times one connection may have the whole: once, and what it lost or mistrusts again.
/// More is refused.
const COPIES_MAX: usize = 2;

/// Pieces, 256 KiB, that the shell holds unsent for one connection. More wait.
const WINDOW_COUNT: usize = 16;

/// Bytes per second of metadata for all connections of one network together, after a burst. More
/// wait.
const SITE_RATE: u64 = 256 << 10;
/// Least such burst, bytes: a few dozen copies of ordinary metadata.
const BURST_LEN_MIN: u64 = 8 << 20;
/// Networks whose debts are known. With more, those that are not known wait.
const SITES_MAX: usize = 4_096;

/// One peer's requests.
#[derive(Debug)]
struct Asker {
    /// Its network; None: local, and exempt.
    site: Option<IpAddr>,
    waiting: VecDeque<u32>,
    /// Pieces granted so far, those that wait included.
    granted: usize,
    /// Pieces that the shell holds.
    in_hand_count: usize,
}

/// What a network had beyond [`SITE_RATE`], bytes, as of some time.
#[derive(Clone, Copy, Debug)]
struct Debt {
    len: u64,
    at: Instant,
}

impl Debt {
    /// What is left of it.
    fn left(self, now: Instant) -> u64 {
        let paid = (now - self.at).as_micros() * u128::from(SITE_RATE) / 1_000_000;
        self.len.saturating_sub(u64::try_from(paid).unwrap_or(u64::MAX))
    }
}

/// The giving side.
#[derive(Debug)]
pub(crate) struct MetadataUpload {
    bytes: Bytes,
    /// All payloads, each with the place where it begins; None while nobody asks.
    payloads: Option<Payloads>,
    askers: BTreeMap<ConnId, Asker>,
    debts: BTreeMap<IpAddr, Debt>,
}

/// The answers to all requests, one after another.
#[derive(Debug)]
struct Payloads {
    all: Bytes,
    starts: Vec<usize>,
}

impl MetadataUpload {
    /// Gives out these bytes; none: gives nothing.
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, payloads: None, askers: BTreeMap::new(), debts: BTreeMap::new() }
    }

    /// Whether anything is given.
    pub(crate) fn is_given(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// A peer at this address asks for a piece; false: it is refused.
    pub(crate) fn ask(&mut self, conn: ConnId, ip: IpAddr, piece: u32) -> bool {
        let count = metadata_piece_count(self.len()) as usize;
        if piece as usize >= count {
            return false;
        }
        let asker = self.askers.entry(conn).or_insert_with(|| Asker {
            site: (!compact::is_local(ip)).then(|| compact::site(ip)),
            waiting: VecDeque::new(),
            granted: 0,
            in_hand_count: 0,
        });
        if asker.granted >= COPIES_MAX * count || asker.waiting.contains(&piece) {
            return false;
        }
        asker.granted += 1;
        asker.waiting.push_back(piece);
        true
    }

    /// Bytes of the piece that the peer gets next; None if nothing waits or it had enough for now.
    pub(crate) fn next_len(&self, now: Instant, conn: ConnId) -> Option<u32> {
        let asker = self.askers.get(&conn).filter(|asker| asker.in_hand_count < WINDOW_COUNT)?;
        let len = metadata_piece_len(self.len(), *asker.waiting.front()?);
        self.site_may_have(now, asker.site, len).then_some(len)
    }

    /// Some time passed: those who wait for more may have it.
    pub(crate) fn upkeep(&mut self, now: Instant) -> Vec<ConnId> {
        self.debts.retain(|_, debt| debt.left(now) > 0);
        let waiting = self.askers.iter().filter(|(_, asker)| !asker.waiting.is_empty());
        waiting.map(|(conn, _)| *conn).collect()
    }

    /// The payload that the peer gets next, of which [`MetadataUpload::next_len`] told. The shell
    /// has it in hand from now on.
    pub(crate) fn pop(&mut self, now: Instant, conn: ConnId) -> Option<Bytes> {
        let len = u64::from(self.next_len(now, conn)?);
        let asker = self.askers.get_mut(&conn)?;
        let piece = asker.waiting.pop_front()?;
        asker.in_hand_count += 1;
        if let Some(site) = asker.site {
            let debt = self.debts.entry(site).or_insert(Debt { len: 0, at: now });
            *debt = Debt { len: debt.left(now) + len, at: now };
        }
        let payloads = self.payloads.get_or_insert_with(|| Payloads::new(&self.bytes));
        payloads.of(piece)
    }

    /// So many pieces that the shell had in hand have left.
    pub(crate) fn sent(&mut self, conn: ConnId, count: usize) {
        if let Some(asker) = self.askers.get_mut(&conn) {
            asker.in_hand_count = asker.in_hand_count.saturating_sub(count);
        }
    }

    fn site_may_have(&self, now: Instant, site: Option<IpAddr>, len: u32) -> bool {
        let Some(site) = site else { return true };
        let burst_len = BURST_LEN_MIN.max(COPIES_MAX as u64 * u64::from(self.len()));
        match self.debts.get(&site) {
            Some(debt) => debt.left(now) + u64::from(len) <= burst_len,
            None => self.debts.len() < SITES_MAX,
        }
    }

    /// The peer is gone.
    pub(crate) fn forget(&mut self, conn: ConnId) {
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
    use crate::proto::time::Duration;

    const PEER: ConnId = ConnId(1);
    const NOW: Instant = Instant::ZERO;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn far() -> IpAddr {
        ip("80.1.1.1")
    }

    /// Hands out all that may be, which leaves at once.
    fn given(metadata: &mut MetadataUpload, now: Instant, conn: ConnId) -> Vec<Bytes> {
        let pop = || {
            let payload = metadata.pop(now, conn);
            metadata.sent(conn, 1);
            payload
        };
        std::iter::from_fn(pop).collect()
    }

    #[test]
    fn every_piece_is_given_as_it_is_and_shares_one_buffer() {
        let bytes: Bytes = (0..40_000_u32).map(|at| at as u8).collect::<Vec<_>>().into();
        let mut metadata = MetadataUpload::new(bytes.clone());
        assert!((0..3).all(|piece| metadata.ask(PEER, far(), piece)) && !metadata.ask(PEER, far(), 3));
        assert_eq!(metadata.next_len(NOW, PEER), Some(16_384));
        let payloads = given(&mut metadata, NOW, PEER);
        for (piece, payload) in (0..).zip(&payloads) {
            let part = bytes.slice(piece as usize * 16_384..(piece as usize * 16_384 + 16_384).min(40_000));
            let data = MetadataMessage::Data { piece, total_len: 40_000, bytes: part };
            assert_eq!(MetadataMessage::decode(payload), Ok(data));
        }
        assert!(metadata.ask(PEER, far(), 0));
        let again = given(&mut metadata, NOW, PEER);
        assert_eq!(again[0].as_ptr(), payloads[0].as_ptr(), "not made again");
        metadata.forget(PEER);
        assert!(metadata.payloads.is_none() && metadata.next_len(NOW, PEER).is_none());
    }

    #[test]
    fn one_connection_gets_the_whole_twice_and_no_piece_waits_twice() {
        let mut metadata = MetadataUpload::new(vec![0; 20_000].into());
        assert!(metadata.ask(PEER, far(), 0) && !metadata.ask(PEER, far(), 0));
        given(&mut metadata, NOW, PEER);
        let granted = (0..100).filter(|_| {
            let granted = metadata.ask(PEER, far(), 0);
            given(&mut metadata, NOW, PEER);
            granted
        });
        assert_eq!(granted.count(), 3);
        assert!(metadata.ask(ConnId(2), far(), 0) && !MetadataUpload::new(Bytes::new()).ask(PEER, far(), 0));
    }

    #[test]
    fn a_network_gets_two_copies_at_once_however_often_it_connects_and_a_local_one_what_it_asks() {
        let count = 640;
        let mut metadata = MetadataUpload::new(vec![0; count * 16_384].into());
        let mut get = |conn: u32, from: &str, now: Instant| {
            let conn = ConnId(conn);
            (0..count as u32).for_each(|piece| _ = metadata.ask(conn, ip(from), piece));
            let given_count = given(&mut metadata, now, conn).len();
            metadata.forget(conn);
            given_count
        };
        assert_eq!([1, 2, 3].map(|conn| get(conn, "80.1.1.1", NOW)), [count, count, 0]);
        assert_eq!((get(4, "80.1.1.200", NOW), get(5, "80.1.2.1", NOW)), (0, count), "by network");
        let later = NOW + Duration::from_secs(10);
        assert_eq!(get(6, "80.1.1.1", later), 160, "256 KiB a second");
        assert!([7, 8, 9, 10].into_iter().all(|conn| get(conn, "10.0.0.1", NOW) == count));
    }

    #[test]
    fn small_metadata_goes_to_many_of_one_network() {
        let mut metadata = MetadataUpload::new(vec![0; 100_000].into());
        let served = (0..100).filter(|&conn| {
            (0..7).for_each(|piece| _ = metadata.ask(ConnId(conn), far(), piece));
            let given_count = given(&mut metadata, NOW, ConnId(conn)).len();
            metadata.forget(ConnId(conn));
            given_count == 7
        });
        assert_eq!(served.count(), 83, "8 MiB");
    }

    #[test]
    fn the_debts_of_networks_are_forgotten_when_paid() {
        let mut metadata = MetadataUpload::new(vec![0; 100].into());
        for conn in 0..2 * SITES_MAX as u32 {
            let [_, high, low, _] = (conn << 8).to_be_bytes();
            metadata.ask(ConnId(conn), ip(&format!("80.{high}.{low}.1")), 0);
            given(&mut metadata, NOW, ConnId(conn));
        }
        assert_eq!(metadata.debts.len(), SITES_MAX);
        let later = NOW + Duration::from_secs(1);
        assert_eq!((metadata.upkeep(later).len(), metadata.debts.len()), (SITES_MAX, 0));
    }
}
