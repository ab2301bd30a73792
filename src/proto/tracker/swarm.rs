//! The peers of each torrent that a tracker knows: store, choice, expiry.
