//! Scrape (BEP 48, and BEP 15's action 2): how many peers a torrent has, without announcing.

/// Most torrents in one UDP scrape, which fit a datagram (BEP 15); further ones get no answer.
pub const UDP_TORRENT_MAX: usize = 74;
/// Most torrents in one HTTP scrape; further ones get no answer.
pub const HTTP_TORRENT_MAX: usize = 100;

/// The tracker's figures of one torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scraped {
    /// Complete peers.
    pub seeders: u32,
    /// Number of `completed` announces that the tracker remembers.
    pub completed: u32,
    /// Incomplete peers.
    pub leechers: u32,
}
