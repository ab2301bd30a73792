//! Bencode (BEP 3): an iterative scanner in front of every decode, typed decoding behind it, canonical encoding.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What an input may cost before it is refused.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes.
    pub len_max: usize,
    /// Nested lists and dictionaries.
    pub depth_max: usize,
    /// Integers, strings, lists and dictionaries together.
    pub token_max: usize,
    /// Whether bytes may follow the root value.
    pub trailing: Trailing,
    /// What to do about dictionary keys that are unordered or come twice.
    pub keys: Keys,
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
    /// Unordered accepted, duplicates refused (v1 metainfo).
    Unique,
    /// Accepted, the last one wins (extension messages, KRPC).
    LastWins,
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

/// Checks the bytes without building anything: the length of the root value. No recursion, no allocation
/// beyond `depth_max` small entries.
pub fn scan(bytes: &[u8], limits: &Limits) -> Result<usize, BencodeError> {
    let _ = (bytes, limits);
    todo!()
}

/// Scans, then decodes into `T` by serde.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limits: &Limits) -> Result<T, BencodeError> {
    let _ = (bytes, limits);
    todo!()
}

/// The value's canonical form: keys sorted.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let _ = value;
    todo!()
}
