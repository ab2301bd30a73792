//! The values that describe a connection of a torrent, which the torrent's machine and the state of
//! its connections ([`crate::proto::peer`]) share.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::time::Duration;
use crate::proto::wire::handshake::Capabilities;

/// The shell's identifier of a connection, unique within its torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u32);

/// The settings of a torrent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The torrent (needed for allowed-fast sets).
    pub infohash: InfoHash,
    /// Our peer id in this swarm, by which a connection to ourselves is noticed.
    pub peer_id: PeerId,
    /// Our port in the extension handshake; `None` if the program does not listen.
    pub listen_port: Option<u16>,
    /// How often gained pieces are announced to peers. 1 s unless the user says otherwise.
    pub swarming_interval: Duration,
    /// Whether pieces are requested in order instead of rarest first.
    pub sequential: bool,
    /// The info dictionary, for peers that have only the infohash (BEP 9).
    pub metadata: Bytes,
    /// Whether the torrent is private (BEP 27): neither PEX nor metadata nor PORT.
    pub private: bool,
    /// Whether addresses are exchanged with peers (BEP 11).
    pub pex: bool,
    /// The port of our DHT node (PORT, BEP 5); `None` if there is none.
    pub dht_port: Option<u16>,
    /// Most connections this torrent may have before any lease.
    pub connection_max: usize,
}

impl Settings {
    /// Whether addresses are exchanged with peers (BEP 11): never in a private torrent (BEP 27).
    pub fn gossips(&self) -> bool {
        self.pex && !self.private
    }

    /// Returns the port of our DHT node, unless the torrent is private.
    pub fn dht_port(&self) -> Option<u16> {
        self.dht_port.filter(|_| !self.private)
    }
}

/// The side that opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This end dialled.
    Outgoing,
    /// The peer dialled.
    Incoming,
}

/// The result of both handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The peer's address, canonical.
    pub addr: SocketAddr,
    /// The side that opened it.
    pub direction: Direction,
    /// The peer's id.
    pub peer_id: PeerId,
    /// The capabilities in the peer's reserved bytes.
    pub capabilities: Capabilities,
}

/// Why a connection is closed; the text goes to logs and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DisconnectReason {
    /// It broke the protocol.
    #[error("broke the protocol: {0}")]
    Protocol(&'static str),
    /// It sent wrong data and is banned.
    #[error("sent false data")]
    Poison,
    /// The peer is this program.
    #[error("reached ourselves")]
    Ourselves,
    /// The same peer is connected already.
    #[error("connected already")]
    Duplicate,
    /// Neither can give the other anything.
    #[error("both are complete")]
    BothComplete,
    /// The peer was silent for too long.
    #[error("silent for too long")]
    Idle,
    /// No room.
    #[error("too many connections")]
    Full,
    /// Banned address.
    #[error("banned")]
    Banned,
    /// It does not know which pieces we have, and can only be told on a new connection.
    #[error("to be greeted anew")]
    Anew,
    /// The torrent pauses or stops.
    #[error("stopping")]
    Stopping,
}
