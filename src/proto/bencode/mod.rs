//! Bencode (BEP 3): an iterative scanner in front of every decode, typed decoding behind it, canonical encoding.
//!
//! Nothing here sees a byte that [`scan`] has not approved: serde_bencode recurses and takes junk such as
//! `i+1e`, so it gets exactly the scanned span, whose depth is bounded. Where a message shall be read in spite
//! of optional keys of the wrong kind, or without copying, [`Value`] is the borrowed reader.
//!
//! Invariants: any bytes give a value or a typed error; no recursion deeper than [`DEPTH_MAX`]; memory at most
//! proportional to the input. This module does not know what any key means.

mod scanner;
mod value;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use scanner::scan;
pub use value::{Dict, Kind, List, Value};

/// Nested lists and dictionaries that any preset may allow: what the fixed stack of the scanner holds and what
/// typed decoding may recurse. Deeper input is refused, whatever `depth_max` says.
pub const DEPTH_MAX: usize = 64;

/// What an input may cost before it is refused.
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
    /// What to do about dictionary keys that are unordered or come twice.
    pub keys: Keys,
    /// What to do about numbers that have more than one spelling.
    pub numbers: Numbers,
}

impl Limits {
    /// A .torrent file: 32 MiB is 1.6 million pieces, 4,000,000 tokens is half a million files. Only the bytes of
    /// its `info` decide which torrent it is, so around them any form is accepted.
    pub const METAINFO: Self = Self {
        len_max: 32 << 20,
        depth_max: DEPTH_MAX,
        token_max: 4_000_000,
        trailing: Trailing::Ignored,
        keys: Keys::LastWins,
        numbers: Numbers::AnySpelling,
    };
    /// An `info` dictionary, in a .torrent file or as peers send it. A key that comes twice is refused: two clients
    /// could read two contents under one infohash.
    pub const INFO: Self = Self { trailing: Trailing::Refused, keys: Keys::Unique, ..Self::METAINFO };
    /// A .torrent file in the one form that BEP 3 allows.
    pub const METAINFO_CANONICAL: Self = Self {
        trailing: Trailing::Refused,
        keys: Keys::Ascending,
        numbers: Numbers::Canonical,
        ..Self::METAINFO
    };
    /// The extension handshake (BEP 10): those of today's clients take some 300 bytes and 60 tokens.
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
    /// Messages of the DHT: a datagram; one of 1,500 bytes has no room for more than 200 tokens that mean
    /// anything.
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

/// Integers and lengths of strings that are not written as BEP 3 asks: `i-0e`, `i03e`, `03:abc`, and integers that
/// do not fit in 64 bits.
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

/// Scans, then decodes into `T` by serde.
///
/// Keys that `T` does not name are ignored as long as they are UTF-8; a named key of the wrong kind is an error
/// of the whole: read with [`Value`] where that is too strict. Strings become `String` only if they are UTF-8,
/// so bytes of others belong into `serde_bytes`.
///
/// # Errors
/// What [`scan`] refuses, and a root value that is not a `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limits: &Limits) -> Result<T, BencodeError> {
    let scanned = scanner::scan_root(bytes, limits)?;
    let root = &bytes[..scanned.len];
    let typed = if scanned.duplicates_possible {
        // Serde refuses a field that comes twice, so only the last of each is handed to it.
        serde_bencode::from_bytes(&value::last_wins(root))
    } else {
        serde_bencode::from_bytes(root)
    };
    typed.map_err(|error| BencodeError { at: 0, what: mismatch(&error) })
}

/// What serde missed, in words for people.
fn mismatch(error: &serde_bencode::Error) -> &'static str {
    match error {
        serde_bencode::Error::MissingField(_) => "a required key is missing in the value",
        serde_bencode::Error::InvalidLength(_) => "a list has the wrong number of elements in the value",
        serde_bencode::Error::DuplicateField(_) => "a key comes twice in the value",
        serde_bencode::Error::UnknownVariant(_)
        | serde_bencode::Error::UnknownField(_)
        | serde_bencode::Error::InvalidType(_)
        | serde_bencode::Error::InvalidValue(_)
        | serde_bencode::Error::Custom(_)
        | serde_bencode::Error::IoError(_)
        | serde_bencode::Error::EndOfStream => "a key or value is of another kind than expected in the value",
    }
}

/// The value's canonical form: keys sorted, absent options left out.
///
/// For types of integers, strings, lists, dictionaries and options of them.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    serde_bencode::to_bytes(&value).expect("types that are encoded have no floating-point numbers")
}

/// A dictionary of values that are encoded already, keys sorted; for what must be kept byte for byte.
/// The caller gives each key once.
pub fn encode_dict<'a>(entries: impl IntoIterator<Item = (&'a [u8], Vec<u8>)>) -> Vec<u8> {
    let mut entries: Vec<_> = entries.into_iter().collect();
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

/// Appends what stands before the `len` bytes of a string, which the caller appends.
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

/// Appends a number in decimal, without an allocation of its own: each string of each message has one.
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
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Reply {
        interval: u32,
        #[serde(rename = "min interval")]
        min_interval: Option<u32>,
        #[serde(with = "serde_bytes")]
        peers: Vec<u8>,
    }

    const REPLY: &[u8] = b"d8:intervali1800e12:min intervali60e5:peers6:\xff\0\0\x01\x1a\xe1e";

    #[test]
    fn typed_values_round_trip_in_canonical_order() {
        let reply: Reply = decode(REPLY, &Limits::TRACKER_REPLY).unwrap();
        assert_eq!(reply.min_interval, Some(60));
        assert_eq!(encode(&reply), REPLY);
        let without = Reply { min_interval: None, ..reply };
        assert_eq!(encode(&without), b"d8:intervali1800e5:peers6:\xff\0\0\x01\x1a\xe1e");
    }

    #[test]
    fn the_last_of_duplicate_keys_wins_where_that_is_the_rule() {
        let twice = b"d8:intervali1e5:peers0:8:intervali2e4:zzzzd1:ai1e1:ai2ee5:peers1:xe junk";
        let reply: Reply = decode(twice, &Limits::TRACKER_REPLY).unwrap();
        assert_eq!(reply, Reply { interval: 2, min_interval: None, peers: b"x".to_vec() });
        let strict = Limits { trailing: Trailing::Ignored, ..Limits::INFO };
        assert_eq!(decode::<Reply>(twice, &strict).unwrap_err().what, "a dictionary key comes twice");
    }

    #[test]
    fn a_value_of_another_shape_is_an_error_in_words() {
        let error = |bytes: &[u8]| decode::<Reply>(bytes, &Limits::TRACKER_REPLY).unwrap_err().to_string();
        assert!(error(b"d5:peers0:e").starts_with("a required key is missing"));
        assert!(error(b"d8:intervalle5:peers0:e").starts_with("a key or value is of another kind"));
        assert!(error(b"d8:intervali-1e5:peers0:e").starts_with("a key or value is of another kind"));
    }

    #[test]
    fn serde_never_sees_what_the_scanner_refuses() {
        assert!(
            serde_bencode::from_bytes::<i64>(b"i+1e").is_ok(),
            "if this fails, the scanner could be relaxed"
        );
        assert!(decode::<i64>(b"i+1e", &Limits::EXTENSION).is_err());
        assert!(decode::<i64>(b"i1e-", &Limits::INFO).is_err());
        assert_eq!(decode::<i64>(b"i1e-", &Limits::EXTENSION), Ok(1));
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
    fn encoded_values_are_kept_as_they_are() {
        let dict = encode_dict([(b"b".as_slice(), b"d1:zi1e1:ai1ee".to_vec()), (b"a", encode("x"))]);
        assert_eq!(dict, b"d1:a1:x1:bd1:zi1e1:ai1eee");
    }
}
