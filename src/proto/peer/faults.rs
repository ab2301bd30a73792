//! Counts misbehaviour: each kind is tolerated up to a limit.
//!
//! A correct peer may do each of these a few times, because messages cross on the wire. A peer that
//! continues is disconnected, so that no kind of spam is free.

use crate::proto::connection::DisconnectReason;

/// Most requests outside the content, of invalid length or for missing pieces before a disconnect.
pub const INVALID_REQUEST_MAX: u32 = 300;
/// Most requests while choked, beyond those that cross with a choke, before a disconnect.
pub const CHOKED_REQUEST_MAX: u32 = 2_000;
/// Requests over the queue's limits; beyond: disconnected.
pub const FLOODED_REQUEST_MAX: u32 = 10_000;
/// Most unrequested blocks before a disconnect; late ones after a cancel or a choke count too.
pub const UNSOLICITED_BLOCK_MAX: u32 = 1_000;
/// Most rejects without a request before a disconnect.
pub const UNSOLICITED_REJECT_MAX: u32 = 1_000;
/// Most times in a row that new requests were rejected without a block between, while unchoked,
/// before a disconnect.
pub const REJECT_RUN_MAX: u32 = 50;
/// Most allowed-fast and suggest messages beyond those that are kept before a disconnect.
pub const HINT_MAX: u32 = 1_000;
/// Most refused metadata requests before a disconnect.
pub const REFUSED_METADATA_MAX: u32 = 300;
/// Most unrequested metadata messages before a disconnect; late answers to requests of the metadata
/// stage count too.
pub const UNSOLICITED_METADATA_MAX: u32 = 100;
/// Most PEX messages that come more often than once a minute or are unreadable before a disconnect.
pub const GOSSIP_MAX: u32 = 10;

/// Most retractions of pieces that the peer did not have, or beyond one for each piece of the
/// torrent, before a disconnect. A cache that drops all its content once stays below it; each
/// connection counts separately.
pub const RETRACTION_MAX: u32 = 10_000;

/// A kind of misbehaviour with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A request that can never be served.
    InvalidRequest,
    /// A request while choked.
    ChokedRequest,
    /// A request beyond the limits of the queue.
    FloodedRequest,
    /// An unrequested block.
    UnsolicitedBlock,
    /// A reject without a request.
    UnsolicitedReject,
    /// A reject while unchoked, of a request sent after the last reject.
    Reject,
    /// A hint that is not kept.
    Hint,
    /// A metadata request that is refused.
    RefusedMetadata,
    /// Unrequested metadata, or an unrequested refusal of it.
    UnsolicitedMetadata,
    /// PEX too early, or unreadable.
    Gossip,
    /// A retraction of a piece that the peer did not have, or repeated retractions.
    Retraction,
}

/// The number of each kind.
#[derive(Debug, Default)]
pub struct Faults {
    invalid_requests: u32,
    choked_requests: u32,
    flooded_requests: u32,
    unsolicited_blocks: u32,
    unsolicited_rejects: u32,
    reject_run: u32,
    hints: u32,
    refused_metadata: u32,
    unsolicited_metadata: u32,
    gossip: u32,
    retractions: u32,
}

impl Faults {
    /// Counts one.
    ///
    /// # Errors
    /// The limit is exceeded: the peer must be disconnected.
    pub fn count(&mut self, fault: Fault) -> Result<(), DisconnectReason> {
        let (counter, max, text) = match fault {
            Fault::InvalidRequest => {
                (&mut self.invalid_requests, INVALID_REQUEST_MAX, "too many invalid requests")
            }
            Fault::ChokedRequest => {
                (&mut self.choked_requests, CHOKED_REQUEST_MAX, "too many requests while choked")
            }
            Fault::FloodedRequest => (&mut self.flooded_requests, FLOODED_REQUEST_MAX, "too many requests"),
            Fault::UnsolicitedBlock => {
                (&mut self.unsolicited_blocks, UNSOLICITED_BLOCK_MAX, "too many blocks not asked for")
            }
            Fault::UnsolicitedReject => {
                (&mut self.unsolicited_rejects, UNSOLICITED_REJECT_MAX, "too many rejects of nothing")
            }
            Fault::Reject => (&mut self.reject_run, REJECT_RUN_MAX, "rejects everything"),
            Fault::Hint => (&mut self.hints, HINT_MAX, "too many hints"),
            Fault::RefusedMetadata => {
                (&mut self.refused_metadata, REFUSED_METADATA_MAX, "too many requests of metadata")
            }
            Fault::UnsolicitedMetadata => {
                (&mut self.unsolicited_metadata, UNSOLICITED_METADATA_MAX, "metadata not asked for")
            }
            Fault::Gossip => (&mut self.gossip, GOSSIP_MAX, "too much gossip"),
            Fault::Retraction => (&mut self.retractions, RETRACTION_MAX, "takes back too many pieces"),
        };
        *counter += 1;
        if *counter > max { Err(DisconnectReason::Protocol(text)) } else { Ok(()) }
    }

    /// A block came, so the peer does not reject everything.
    pub fn block_came(&mut self) {
        self.reject_run = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_tolerated_up_to_its_limit() {
        let mut faults = Faults::default();
        for _ in 0..REJECT_RUN_MAX {
            faults.count(Fault::Reject).unwrap();
        }
        faults.block_came();
        for _ in 0..INVALID_REQUEST_MAX {
            faults.count(Fault::InvalidRequest).unwrap();
            faults.count(Fault::ChokedRequest).unwrap();
        }
        assert!(faults.count(Fault::InvalidRequest).is_err());
        assert_eq!(faults.count(Fault::Reject), Ok(()));
    }
}
