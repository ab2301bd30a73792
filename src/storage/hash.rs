//! SHA-1 of pieces and blocks: several messages of one length side by side where the machine has
//! suitable vectors, otherwise one by one with the `sha1` crate, which uses the processor's SHA
//! instructions.
//!
//! One message cannot be split, because each of its blocks depends on the one before; but a torrent
//! has many messages. A single lane is slower than one stream (measured: 16 lanes of AVX-512 at
//! 0.64 GB/s each, one stream at 1.95), so a caller with fewer messages than [`Kind::best`]
//! requires hashes them one by one. [`side_by_side`] is the number to collect. `cargo bench --bench
//! hashing` shows all kinds on the present machine.
//!
//! | 1 MiB each, one core of a Zen 5 | GB/s | cycles a byte |
//! |---|---|---|
//! | one by one, SHA instructions | 1.93 | 1.94 |
//! | 8 lanes, AVX2 | 3.41 | 1.10 |
//! | 16 lanes, AVX-512 | 9.37 | 0.40 |
//!
//! Beyond that the copy out of the page cache takes longer: `verify` of 2 GiB in memory spends
//! 0.21 s in hashing and 0.25 s in the system.
//!
//! Knows no files: the caller passes the bytes, or a function that reads them.

mod choice;
#[cfg(not(target_arch = "x86_64"))]
#[path = "hash/none.rs"]
mod vectors;
#[cfg(target_arch = "x86_64")]
#[path = "hash/x86.rs"]
mod vectors;

use sha1::{Digest, Sha1};

use vectors::Vectors;

/// Lanes of the widest vectors.
pub const LANE_MAX: usize = 16;

/// Bytes of one read of a single message: stays in the processor's cache until it is hashed, and
/// makes the cost of the system call negligible.
const READ_LEN: usize = 256 << 10;
/// The same for each of several messages: [`LANE_MAX`] of them still fit the cache.
const LANE_READ_LEN: usize = 64 << 10;
/// Bytes of one message to fetch from a disk in one operation while several are read in turn. The
/// system takes reads at many places for random ones: with the usual 128 KiB of read-ahead it was
/// seen to fetch 75 KiB at a time, a tenth of the speed of a rotating disk; with the hint, 800 KiB.
/// A multiple of [`LANE_READ_LEN`], and no more than the system fetches by one hint.
pub const FETCH_LEN: usize = 1 << 20;
/// Gap between the buffers of two lanes. At a distance of a power of two, the same offsets of all
/// buffers would compete for the same few cache lines.
const LANE_GAP: usize = BLOCK_LEN;

/// Bytes of a SHA-1 block.
const BLOCK_LEN: usize = 64;
const INITIAL: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
#[cfg(target_arch = "x86_64")]
const ROUND_CONSTANTS: [u32; 4] = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6];

/// The five state words of each lane.
type State = [[u32; LANE_MAX]; 5];
/// Complete blocks of one lane.
type Row<'a> = &'a [[u8; BLOCK_LEN]];

/// A way of hashing that this machine supports.
#[derive(Clone, Copy)]
pub struct Kind(Option<Vectors>);

impl Kind {
    /// One message after the other.
    pub const ONE_BY_ONE: Self = Self(None);

    /// Returns all kinds of this machine, one by one first.
    pub fn available() -> impl Iterator<Item = Self> {
        [Self::ONE_BY_ONE].into_iter().chain(Vectors::available().map(|vectors| Self(Some(vectors))))
    }

    /// Returns the fastest kind for `count` messages of one length. The first call measures for a
    /// quarter of a millisecond.
    pub fn best(count: usize) -> Self {
        choice::best(count)
    }

    /// Most messages of a [`Group`].
    pub fn lanes(self) -> usize {
        self.0.map_or(1, Vectors::lanes)
    }

    /// A name for display.
    pub fn name(self) -> &'static str {
        self.0.map_or("one by one", Vectors::name)
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.lanes() == other.lanes()
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name())
    }
}

/// Returns how many messages to hash together, if there are as many.
pub fn side_by_side() -> usize {
    Kind::best(LANE_MAX).lanes()
}

/// Returns the SHA-1s of messages, each given in parts. Neighbours whose parts have equal lengths
/// are hashed side by side.
pub fn digests(messages: &[&[&[u8]]]) -> Vec<[u8; 20]> {
    let mut digests = Vec::with_capacity(messages.len());
    let same_lens = |one: &&[&[u8]], other: &&[&[u8]]| {
        one.iter().map(|part| part.len()).eq(other.iter().map(|part| part.len()))
    };
    for alike in messages.chunk_by(same_lens) {
        let kind = Kind::best(alike.len());
        for together in alike.chunks(kind.lanes()) {
            let mut group = Group::of_kind(kind, together.len());
            for at in 0..together[0].len() {
                let parts: Vec<&[u8]> = together.iter().map(|message| message[at]).collect();
                group.update(&parts);
            }
            digests.append(&mut group.finish());
        }
    }
    digests
}

/// Returns the SHA-1s of `count` messages of `len` bytes each, side by side if that is faster.
/// `read` fills a buffer with the bytes of a message (by number) from an offset, in turn with the
/// other messages, so that [`FETCH_LEN`] helps; its error becomes the message's result, and it is
/// not called for that message again. `scratch` is a buffer to use again in the next call: 1 MiB at
/// most.
pub fn digests_of_reads<E>(
    count: usize,
    len: usize,
    scratch: &mut Vec<u8>,
    mut read: impl FnMut(usize, usize, &mut [u8]) -> Result<(), E>,
) -> Vec<Result<[u8; 20], E>> {
    let kind = Kind::best(count);
    let mut digests = Vec::with_capacity(count);
    for first in (0..count).step_by(kind.lanes()) {
        let group = Group::of_kind(kind, kind.lanes().min(count - first));
        let read = |message: usize, offset, buffer: &mut [u8]| read(first + message, offset, buffer);
        digests.append(&mut group.digests_of_reads(len, scratch, read));
    }
    digests
}

/// Messages of one length that are hashed together, part by part.
pub struct Group(Hashing);

enum Hashing {
    OneByOne(Vec<Sha1>),
    SideBySide(Box<Lanes>),
}

impl Group {
    /// Starts `count` messages, at most [`Kind::lanes`].
    ///
    /// # Panics
    /// If there are more.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unreachable_code, reason = "where there are no vectors, no kind has any")
    )]
    pub fn of_kind(kind: Kind, count: usize) -> Self {
        assert!(count <= kind.lanes(), "{count} messages for {kind:?}");
        Self(match kind.0 {
            None => Hashing::OneByOne(vec![Sha1::new(); count]),
            Some(vectors) => Hashing::SideBySide(Box::new(Lanes::new(vectors, count))),
        })
    }

    /// Adds the next part of each message; all parts have the same length.
    ///
    /// # Panics
    /// If they have not, or their number differs from that of the messages.
    pub fn update(&mut self, parts: &[&[u8]]) {
        match &mut self.0 {
            Hashing::OneByOne(hashes) => {
                assert_eq!(parts.len(), hashes.len(), "one part a message");
                hashes.iter_mut().zip(parts).for_each(|(hash, part)| hash.update(part));
            }
            Hashing::SideBySide(lanes) => lanes.update(parts),
        }
    }

    /// Returns the SHA-1s of the messages.
    pub fn finish(self) -> Vec<[u8; 20]> {
        match self.0 {
            Hashing::OneByOne(hashes) => hashes.into_iter().map(|hash| hash.finalize().into()).collect(),
            Hashing::SideBySide(lanes) => lanes.finish(),
        }
    }

    fn count(&self) -> usize {
        match &self.0 {
            Hashing::OneByOne(hashes) => hashes.len(),
            Hashing::SideBySide(lanes) => lanes.count,
        }
    }

    fn digests_of_reads<E>(
        mut self,
        len: usize,
        scratch: &mut Vec<u8>,
        mut read: impl FnMut(usize, usize, &mut [u8]) -> Result<(), E>,
    ) -> Vec<Result<[u8; 20], E>> {
        let count = self.count();
        let read_len = len.min(if count > 1 { LANE_READ_LEN } else { READ_LEN });
        let stride = read_len + LANE_GAP;
        if scratch.len() < count * stride {
            scratch.resize(count * stride, 0);
        }
        let mut results: Vec<Result<(), E>> = (0..count).map(|_| Ok(())).collect();
        let mut offset = 0;
        while offset < len && results.iter().any(Result::is_ok) {
            let part_len = read_len.min(len - offset);
            for (at, (result, buffer)) in results.iter_mut().zip(scratch.chunks_mut(stride)).enumerate() {
                if result.is_ok() {
                    *result = read(at, offset, &mut buffer[..part_len]);
                }
            }
            let parts: Vec<&[u8]> =
                scratch.chunks(stride).take(count).map(|buffer| &buffer[..part_len]).collect();
            self.update(&parts);
            offset += part_len;
        }
        let digests = self.finish();
        results.into_iter().zip(digests).map(|(result, digest)| result.map(|()| digest)).collect()
    }
}

/// Messages side by side in vectors. Lanes beyond `count` repeat the work of the first.
struct Lanes {
    vectors: Vectors,
    count: usize,
    state: State,
    /// Bytes of each message so far.
    len: u64,
    /// The incomplete block of each message: its first `len % BLOCK_LEN` bytes.
    begun: [[u8; BLOCK_LEN]; LANE_MAX],
}

impl Lanes {
    fn new(vectors: Vectors, count: usize) -> Self {
        let state = INITIAL.map(|word| [word; LANE_MAX]);
        Self { vectors, count, state, len: 0, begun: [[0; BLOCK_LEN]; LANE_MAX] }
    }

    fn update(&mut self, parts: &[&[u8]]) {
        assert_eq!(parts.len(), self.count, "one part a message");
        let Some(part_len) = parts.first().map(|part| part.len()) else { return };
        assert!(parts.iter().all(|part| part.len() == part_len), "parts of one length");
        let begun_len = (self.len % BLOCK_LEN as u64) as usize;
        self.len += part_len as u64;
        let mut parts: [&[u8]; LANE_MAX] = std::array::from_fn(|lane| *parts.get(lane).unwrap_or(&parts[0]));
        if begun_len > 0 {
            let taken_len = part_len.min(BLOCK_LEN - begun_len);
            for (begun, part) in self.begun.iter_mut().zip(&mut parts) {
                let (taken, rest) = part.split_at(taken_len);
                begun[begun_len..begun_len + taken_len].copy_from_slice(taken);
                *part = rest;
            }
            if begun_len + taken_len < BLOCK_LEN {
                return;
            }
            self.vectors.compress(&mut self.state, &self.begun.each_ref().map(std::slice::from_ref));
        }
        self.vectors.compress(&mut self.state, &parts.map(|part| part.as_chunks().0));
        for (begun, part) in self.begun.iter_mut().zip(parts) {
            let rest = part.as_chunks::<BLOCK_LEN>().1;
            begun[..rest.len()].copy_from_slice(rest);
        }
    }

    fn finish(mut self) -> Vec<[u8; 20]> {
        // SHA-1 padding: a one bit, zeros, and the message's length in bits in the last 8 bytes.
        let mut padding = [0; BLOCK_LEN + 8];
        padding[0] = 0x80;
        let zeros_end = BLOCK_LEN - (self.len + 8) as usize % BLOCK_LEN;
        padding[zeros_end..zeros_end + 8].copy_from_slice(&(self.len * 8).to_be_bytes());
        self.update(&[&padding[..zeros_end + 8]; LANE_MAX][..self.count]);
        let digest = |lane: usize| {
            let mut digest = [0; 20];
            for (bytes, word) in digest.chunks_mut(4).zip(&self.state) {
                bytes.copy_from_slice(&word[lane].to_be_bytes());
            }
            digest
        };
        (0..self.count).map(digest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages that differ in every block.
    fn messages(count: usize, len: usize) -> Vec<Vec<u8>> {
        let byte = |message: usize, at: usize| (at * 31 + at / 64 * 7 + message * 101 + 3) as u8;
        (0..count).map(|message| (0..len).map(|at| byte(message, at)).collect()).collect()
    }

    fn expected(messages: &[Vec<u8>]) -> Vec<[u8; 20]> {
        messages.iter().map(|message| Sha1::digest(message).into()).collect()
    }

    /// Hashes by every kind, in as many groups as needed, in parts of `part_len` bytes.
    fn require_all_kinds(messages: &[Vec<u8>], part_len: usize) {
        for kind in Kind::available() {
            let mut digests = Vec::new();
            for together in messages.chunks(kind.lanes()) {
                let mut group = Group::of_kind(kind, together.len());
                for start in (0..together[0].len()).step_by(part_len) {
                    let end = together[0].len().min(start + part_len);
                    let parts: Vec<&[u8]> = together.iter().map(|message| &message[start..end]).collect();
                    group.update(&parts);
                }
                digests.append(&mut group.finish());
            }
            let len = messages[0].len();
            assert_eq!(digests, expected(messages), "{kind:?}, {} of {len} bytes", messages.len());
        }
    }

    #[test]
    fn every_kind_agrees_for_every_length_up_to_some_blocks() {
        for len in 0..200 {
            require_all_kinds(&messages(LANE_MAX, len), usize::MAX);
        }
    }

    #[test]
    fn every_kind_agrees_for_every_count_and_for_partial_blocks() {
        for count in 1..=LANE_MAX + 1 {
            require_all_kinds(&messages(count, 1_000 + count), usize::MAX);
        }
        for len in [4_095, 4_096, 16_384, 100_003] {
            require_all_kinds(&messages(LANE_MAX, len), usize::MAX);
        }
    }

    #[test]
    fn parts_may_end_anywhere() {
        let messages = messages(3, 331);
        (1..=200).for_each(|part_len| require_all_kinds(&messages, part_len));
    }

    #[test]
    fn the_empty_message_has_its_known_digest() {
        let nothing = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
        for kind in Kind::available() {
            let digests = Group::of_kind(kind, 1).finish();
            assert_eq!(data_encoding::HEXLOWER.encode(&digests[0]), nothing);
            assert!(Group::of_kind(kind, 0).finish().is_empty());
        }
    }

    #[test]
    fn messages_of_different_parts_and_lengths_are_each_hashed() {
        let bytes = messages(40, 5_000);
        let cut = |at: usize| match at {
            0..20 => vec![&bytes[at][..1_000], &bytes[at][1_000..]],
            20..37 => vec![&bytes[at][..]],
            _ => vec![&bytes[at][..at], &[], &bytes[at][at..4_000 + at]],
        };
        let parts: Vec<Vec<&[u8]>> = (0..40).map(cut).collect();
        let messages: Vec<&[&[u8]]> = parts.iter().map(Vec::as_slice).collect();
        let expected: Vec<[u8; 20]> = parts.iter().map(|parts| Sha1::digest(parts.concat()).into()).collect();
        assert_eq!(digests(&messages), expected);
        assert!(digests(&[]).is_empty());
    }

    #[test]
    fn a_failed_read_is_the_result_of_its_message_only() {
        for (count, len) in [(1, 300_000), (5, 1_000), (16, 200_000), (19, 65_536), (3, 0)] {
            let messages = messages(count, len);
            let mut scratch = Vec::new();
            let results = digests_of_reads(count, len, &mut scratch, |message, offset, buffer| {
                if message % 4 == 1 && offset + buffer.len() > len / 2 {
                    return Err(message);
                }
                buffer.copy_from_slice(&messages[message][offset..offset + buffer.len()]);
                Ok(())
            });
            for (message, digest) in expected(&messages).into_iter().enumerate() {
                let fails = message % 4 == 1 && len > 0;
                assert_eq!(results[message], if fails { Err(message) } else { Ok(digest) });
            }
            assert!(results.len() == count && scratch.len() < 2 << 20);
        }
    }

    #[test]
    fn a_failed_message_is_not_read_again() {
        let mut reads = 0;
        let results = digests_of_reads(4, 1 << 20, &mut Vec::new(), |_, _, _| {
            reads += 1;
            Err::<(), _>("gone")
        });
        assert_eq!((results, reads), (vec![Err("gone"); 4], 4));
    }
}
