//! The info dictionary between peers (BEP 9): sent to peers that ask for it ([`upload`]), and
//! fetched from them when only the infohash is known.
//!
//! [`fetch`] decides which piece is asked of which [`source`] and which of them lied; an
//! [`assembly`] is one copy of the dictionary with the pieces received so far.

pub(super) mod assembly;
pub(super) mod fetch;
pub(super) mod source;
pub(super) mod stage;
pub(super) mod upload;

/// Longest info dictionary that is fetched, bytes; a peer that claims a longer one is not asked.
pub const METADATA_LEN_MAX: u32 = 32 << 20;

/// Bytes missing as trackers are told while the metadata is fetched: not 0, which would make us a
/// seed.
pub const LEFT_UNKNOWN: u64 = 16 << 10;

/// How far the fetch of the metadata is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetadataProgress {
    /// Connected peers that claim to have it.
    pub source_count: usize,
    /// Bytes received of the assembly that is furthest.
    pub done_len: u32,
    /// Bytes of that assembly, or as most peers claim; 0: no peer has claimed anything.
    pub total_len: u32,
}
