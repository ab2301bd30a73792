//! Magnet links (BEP 9, 53).

use crate::proto::infohash::InfoHash;

/// What a magnet link carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Magnet {
    /// `xt=urn:btih:`
    pub infohash: Option<InfoHash>,
    /// `xt=urn:btmh:1220...`
    pub infohash_v2: Option<[u8; 32]>,
    /// `dn`
    pub name: Option<String>,
    /// `tr`, `tr.1`, ...
    pub trackers: Vec<String>,
    /// `x.pe`: host and port as written.
    pub peers: Vec<String>,
    /// `ws`
    pub web_seeds: Vec<String>,
    /// `so`: inclusive ranges of file numbers.
    pub select: Vec<(u32, u32)>,
}

/// Why a text is no magnet link that we can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MagnetError {
    /// It does not start with `magnet:?`.
    #[error("not a magnet link")]
    Scheme,
}

impl std::str::FromStr for Magnet {
    type Err = MagnetError;

    fn from_str(text: &str) -> Result<Self, MagnetError> {
        let _ = text;
        todo!()
    }
}

impl std::fmt::Display for Magnet {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = out;
        todo!()
    }
}
