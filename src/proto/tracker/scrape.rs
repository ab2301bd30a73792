//! Scrape (BEP 48, and BEP 15's action 2): how many peers a torrent has, without announcing.

/// Most torrents in one UDP scrape: what fits a datagram (BEP 15). More are not answered.
pub const UDP_TORRENT_MAX: usize = 74;
/// Most torrents in one HTTP scrape; further ones are not answered.
pub const HTTP_TORRENT_MAX: usize = 100;

/// What a tracker knows of one torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scraped {
    /// Complete peers.
    pub seeders: u32,
    /// Times `completed` was announced, as far as the tracker remembers.
    pub completed: u32,
    /// Incomplete peers.
    pub leechers: u32,
}
