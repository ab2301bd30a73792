//! Misbehaviour that is borne for a while: each kind is counted and has a limit.
//!
//! A well-meaning peer may do each of these a few times (messages cross on the wire). One that goes
//! on is disconnected, so that no kind of spam is free.

use crate::proto::torrent::event::DisconnectReason;

/// Requests outside the content, of bad length or for pieces that we lack; beyond: disconnected.
pub const INVALID_REQUEST_MAX: u32 = 300;
/// Requests while choked, beyond what crosses on the wire after a choke; beyond: disconnected.
pub const CHOKED_REQUEST_MAX: u32 = 2_000;
/// Requests over the queue's limits; beyond: disconnected.
pub const FLOODED_REQUEST_MAX: u32 = 10_000;
/// Blocks that we did not ask for; late ones after a cancel or a choke count too. Beyond:
/// disconnected.
pub const UNSOLICITED_BLOCK_MAX: u32 = 1_000;
/// Rejects without a request of ours; beyond: disconnected.
pub const UNSOLICITED_REJECT_MAX: u32 = 1_000;
/// Times in a row that new requests were rejected without one block between, while unchoked;
/// beyond: disconnected.
pub const REJECT_RUN_MAX: u32 = 50;
/// Allowed-fast and suggest messages beyond those that we keep; beyond: disconnected.
pub const HINT_MAX: u32 = 1_000;
/// Requests of metadata that we refuse; beyond: disconnected.
pub const REFUSED_METADATA_MAX: u32 = 300;
/// Metadata that we did not ask for; what was asked for while the description was being fetched and
/// comes later counts too. Beyond: disconnected.
pub const UNSOLICITED_METADATA_MAX: u32 = 100;
/// Gossip that comes more often than once a minute, or that nobody can read; beyond: disconnected.
pub const GOSSIP_MAX: u32 = 10;

/// Pieces taken back that the peer did not have, or beyond one for each piece of the torrent. A
/// cache that lets go of all that it has once over stays below it, and a later connection counts
/// anew. Beyond: disconnected.
pub const RETRACTION_MAX: u32 = 10_000;

/// A kind of misbehaviour that is borne a number of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A request that we can never serve.
    InvalidRequest,
    /// A request while choked.
    ChokedRequest,
    /// A request beyond the queue.
    FloodedRequest,
    /// A block that we did not ask for.
    UnsolicitedBlock,
    /// A reject of what we did not ask for.
    UnsolicitedReject,
    /// A reject while unchoked, of a request sent after the last one.
    Reject,
    /// A hint that we do not keep.
    Hint,
    /// A request of metadata that we refuse.
    RefusedMetadata,
    /// Metadata, or its refusal, that we did not ask for.
    UnsolicitedMetadata,
    /// Gossip out of turn, or unreadable.
    Gossip,
    /// A piece taken back that the peer did not have, or over and over.
    Retraction,
}

/// How often a peer did what.
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
    /// That was one too many: the peer is to be disconnected.
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

    /// A block came: it does not reject everything.
    pub fn block_came(&mut self) {
        self.reject_run = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_borne_up_to_its_limit() {
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
