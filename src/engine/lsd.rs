//! Local service discovery on real sockets (BEP 14): one task with a multicast socket a family.

use crate::proto::infohash::InfoHash;

/// What torrents tell it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// A public torrent runs.
    Add(InfoHash),
    /// It has left.
    Remove(InfoHash),
}
