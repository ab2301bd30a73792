//! The info dictionary between peers (BEP 9): sent to peers that ask for it ([`upload`]), and
//! fetched from them when only the infohash is known.
//!
//! [`fetch`] decides which piece is asked of which [`source`] and which of them lied; an
//! [`assembly`] is one copy of the dictionary with the pieces received so far.

pub(super) mod assembly;
pub(super) mod fetch;
pub(super) mod source;
pub(super) mod upload;

/// Longest info dictionary that is fetched, bytes; a peer that claims a longer one is not asked.
pub const METADATA_LEN_MAX: u32 = 32 << 20;
