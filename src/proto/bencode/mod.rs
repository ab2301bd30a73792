//! Bencode (BEP 3): an iterative scanner before every read, a borrowing reader, canonical encoding.
//!
//! A [`Value`] exists only for bytes that [`scan`] has accepted, so the depth of a walk is bounded.
//! It reads in place, and its reader decides whether a key of the wrong kind counts as absent.
//!
//! Invariants: any bytes give a value or a typed error; no recursion deeper than [`DEPTH_MAX`];
//! memory at most proportional to the input. Does not know the meaning of keys.

mod scanner;
mod value;

pub use scanner::scan;
pub use value::{Dict, Kind, List, Value};

/// Most nested lists and dictionaries of any preset: the size of the scanner's stack. Deeper input
/// is refused, whatever `depth_max` says.
pub const DEPTH_MAX: usize = 64;

/// The limits beyond which input is refused.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the root value; more input than that is refused where bytes may not follow it.
    pub len_max: usize,
    /// Nested lists and dictionaries, at most [`DEPTH_MAX`].
    pub depth_max: usize,
    /// Integers, strings (keys too), lists and dictionaries together.
    pub token_max: usize,
    /// Whether bytes may follow the root value.
    pub trailing: Trailing,
    /// Treatment of dictionary keys that are unordered or repeated.
    pub keys: Keys,
    /// Treatment of numbers with several spellings.
    pub numbers: Numbers,
}

impl Limits {
    /// A .torrent file: 32 MiB is 1.6 million pieces, 4,000,000 tokens is half a million files.
    /// Only the bytes of its `info` decide which torrent it is, so around them any form is
    /// accepted.
    pub const METAINFO: Self = Self {
        len_max: 32 << 20,
        depth_max: DEPTH_MAX,
        token_max: 4_000_000,
        trailing: Trailing::Ignored,
        keys: Keys::LastWins,
        numbers: Numbers::AnySpelling,
    };
    /// An `info` dictionary, in a .torrent file or from peers. Repeated keys are refused, because
    /// two clients could read different contents under one infohash.
    pub const INFO: Self = Self { trailing: Trailing::Refused, keys: Keys::Unique, ..Self::METAINFO };
    /// A .torrent file in the one form that BEP 3 allows.
    pub const METAINFO_CANONICAL: Self = Self {
        trailing: Trailing::Refused,
        keys: Keys::Ascending,
        numbers: Numbers::Canonical,
        ..Self::METAINFO
    };
    /// The extension handshake (BEP 10), in which present clients use some 300 bytes and 60 tokens.
    pub const EXTENSION: Self = Self {
        len_max: 16 << 10,
        depth_max: 16,
        token_max: 1_024,
        trailing: Trailing::Ignored,
        keys: Keys::LastWins,
        numbers: Numbers::Canonical,
    };
    /// Answers of HTTP trackers, after inflating; a dictionary per peer is 6 tokens and more.
    pub const TRACKER_REPLY: Self = Self {
        len_max: 2 << 20,
        depth_max: 8,
        token_max: 400_000,
        trailing: Trailing::Ignored,
        keys: Keys::LastWins,
        numbers: Numbers::Canonical,
    };
    /// Messages of the DHT: a datagram of 1,500 bytes has no room for more than 200 meaningful
    /// tokens.
    pub const KRPC: Self = Self {
        len_max: 64 << 10,
        depth_max: 8,
        token_max: 256,
        trailing: Trailing::Ignored,
        keys: Keys::LastWins,
        numbers: Numbers::Canonical,
    };
}

/// Bytes after the root value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailing {
    /// An error.
    Refused,
    /// Ignored.
    Ignored,
}

/// Keys of dictionaries that are not strictly ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Unordered and duplicate keys refused (v2 file tree).
    Ascending,
    /// Unordered accepted, duplicates refused (v1 metainfo).
    Unique,
    /// Accepted, the last one wins (extension handshakes, answers of trackers).
    LastWins,
}

/// Integers and string lengths in another form than BEP 3 requires: `i-0e`, `i03e`, `03:abc`, and
/// integers beyond 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// An error.
    Canonical,
    /// Read as the number that they mean; an integer beyond 64 bits as the nearest one that fits.
    AnySpelling,
}

/// Why bytes are no bencode, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct BencodeError {
    /// Offset from the start of the input.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// Returns an encoded integer.
pub fn encode_integer(integer: i64) -> Vec<u8> {
    let mut out = Vec::new();
    write_integer(&mut out, integer);
    out
}

/// Returns an encoded byte string.
pub fn encode_bytes(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut out = Vec::with_capacity(bytes.len() + 8);
    write_bytes(&mut out, bytes);
    out
}

/// Returns a list of encoded values.
pub fn encode_list(values: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut out = vec![b'l'];
    values.into_iter().for_each(|value| out.extend(value));
    out.push(b'e');
    out
}

/// Returns a dictionary of encoded values, with its keys sorted. Entries without a value are left
/// out. Each key is given once.
pub fn encode_dict<'a>(entries: impl IntoIterator<Item = (&'a str, Option<Vec<u8>>)>) -> Vec<u8> {
    let present = entries.into_iter().filter_map(|(key, value)| Some((key.as_bytes(), value?)));
    let mut entries: Vec<_> = present.collect();
    entries.sort_unstable_by_key(|&(key, _)| key);
    let mut out =
        Vec::with_capacity(2 + entries.iter().map(|(key, value)| key.len() + value.len() + 8).sum::<usize>());
    out.push(b'd');
    for (key, value) in entries {
        write_bytes(&mut out, key);
        out.extend_from_slice(&value);
    }
    out.push(b'e');
    out
}

/// Appends a byte string.
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends the length prefix of a string of `len` bytes, which the caller appends.
pub fn write_len(out: &mut Vec<u8>, len: usize) {
    write_digits(out, len as u64);
    out.push(b':');
}

/// Appends an integer.
pub fn write_integer(out: &mut Vec<u8>, integer: i64) {
    out.push(b'i');
    if integer < 0 {
        out.push(b'-');
    }
    write_digits(out, integer.unsigned_abs());
    out.push(b'e');
}

/// Appends a number in decimal without an allocation, because each string of each message has one.
fn write_digits(out: &mut Vec<u8>, mut number: u64) {
    // 2^64 has 20 digits.
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn bytes_after_the_root_are_refused_or_ignored_by_the_limits() {
        assert!(scan(b"i1e-", &Limits::INFO).is_err());
        assert_eq!(scan(b"i1e-", &Limits::EXTENSION), Ok(3));
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [0, 1, -1, 9, 10, -10, 1_234_567_890, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            write_integer(&mut out, number);
            assert_eq!(out, format!("i{number}e").into_bytes());
        }
        let mut out = Vec::new();
        write_bytes(&mut out, &[b'x'; 100]);
        write_bytes(&mut out, b"");
        assert_eq!(out, format!("100:{}0:", "x".repeat(100)).into_bytes());
    }

    #[test]
    fn dictionaries_are_sorted_and_absent_values_are_left_out() {
        let list = encode_list([encode_integer(-1), encode_bytes("x")]);
        let dict = encode_dict([("b", Some(b"d1:zi1ee".to_vec())), ("c", None), ("a", Some(list))]);
        assert_eq!(dict, b"d1:ali-1e1:xe1:bd1:zi1eee");
    }
}
