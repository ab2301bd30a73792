//! Where the peers of one torrent come from.

pub mod finder;
