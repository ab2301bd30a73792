//! The values that enter and leave a torrent machine.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
pub use crate::proto::connection::{ConnId, Connected, Direction, DisconnectReason, Settings};
use crate::proto::piece::PieceIndex;
pub use crate::proto::piece::{BlockHashes, PieceResult};
use crate::proto::wire::message::Message;

/// Where an address came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Typed by the user: dialled first, again soon and for ever, loopback and private allowed.
    User,
    /// Named by a magnet link (`x.pe`): dialled first, loopback and private allowed, for a link may
    /// be for the office. Who wrote it may be anybody: hosts have their rest, and what fails is
    /// given up.
    Magnet,
    /// A tracker at this address kind: `local` if the tracker itself is on a local network, which
    /// may then name local addresses.
    Tracker {
        /// The tracker is itself on a loopback or private address.
        local: bool,
    },
    /// The DHT: `local` if the node that named it is on a local network.
    Dht {
        /// The node is itself on a loopback or private address.
        local: bool,
    },
    /// Gossip (BEP 11): `local` if the peer that named it is on a local network.
    Pex {
        /// The peer is itself on a loopback or private address.
        local: bool,
    },
    /// The local network (BEP 14).
    Lsd,
}

impl Source {
    /// Whether it may name peers of a private torrent (BEP 27).
    pub fn may_be_private(self) -> bool {
        match self {
            Self::User | Self::Magnet | Self::Tracker { .. } => true,
            Self::Dht { .. } | Self::Pex { .. } | Self::Lsd => false,
        }
    }
}

/// What to do with a received block's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Receipt {
    /// Put them into the piece's buffer.
    Keep,
    /// Drop them: not asked for, twice, or abandoned.
    Discard,
}

/// What the user may want at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Neither ask nor serve; connections stay closed.
    Pause,
    /// Go on.
    Resume,
    /// Which pieces to fetch from now on.
    Want(Bitfield),
    /// Pieces in order, or rarest first.
    Sequential(bool),
    /// Bytes per second for this torrent alone: upload, download.
    Limit {
        /// Sent.
        upload_rate: Option<u64>,
        /// Received.
        download_rate: Option<u64>,
    },
}

/// The torrent's decisions. Order matters: messages and blocks of one connection go out in the
/// order given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// Send a message.
    Send(ConnId, Message),
    /// Read the block from storage and send it; its leaving is told by `handle_blocks_sent`.
    SendBlock(ConnId, Block),
    /// Send a message with a piece of the metadata; its leaving is told by `handle_metadata_sent`.
    SendMetadata(ConnId, Message),
    /// Close the connection.
    Disconnect(ConnId, DisconnectReason),
    /// Dial; answered by `handle_connected` or `handle_dial_failed`.
    Dial(SocketAddr),
    /// All blocks of the piece are in its buffer: hash, write, answer by `handle_piece_result`.
    VerifyPiece {
        /// The piece.
        piece: PieceIndex,
        /// Also hash each block even if the piece is good: someone is under suspicion.
        block_hashes: bool,
    },
    /// The piece's buffer is not needed any more.
    DropPiece(PieceIndex),
    /// Room for so many bytes of metadata is needed, of what the process allows all torrents
    /// together; answered by `handle_metadata_reserved`. What is reserved and not released is free
    /// again when the metadata is received.
    ReserveMetadata(u32),
    /// So many reserved bytes are not needed any more.
    ReleaseMetadata(u32),
    /// The info dictionary, whose hash is right; answered by `handle_content` when its files are
    /// open.
    Metadata(Bytes),
    /// A peer has a DHT node at this address (PORT message, BEP 5).
    DhtNode(SocketAddr),
    /// For people and for the tracker client.
    Event(Event),
}

/// What users notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A piece is verified and on disk.
    PieceCompleted(PieceIndex),
    /// Every wanted piece is there.
    Completed,
    /// A handshake ended well.
    PeerConnected(SocketAddr),
    /// A connection is gone.
    PeerDisconnected(SocketAddr, Option<DisconnectReason>),
    /// This address lied and will not be talked to again.
    PeerBanned(SocketAddr),
    /// This address says that the metadata has so many bytes, which are more than are fetched.
    MetadataTooLong(SocketAddr, u32),
    /// Pieces failed their hash: bytes thrown away.
    PieceFailed(PieceIndex),
}

/// Figures of one torrent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TorrentSnapshot {
    /// Pieces verified.
    pub have_count: u32,
    /// Pieces in all.
    pub piece_count: u32,
    /// Bytes of wanted pieces that are verified.
    pub wanted_done_len: u64,
    /// Bytes of wanted pieces.
    pub wanted_len: u64,
    /// Bytes of all pieces that are missing, as `left` in announces.
    pub left: u64,
    /// What passed, and how fast.
    pub traffic: TrafficSnapshot,
    /// Each connection.
    pub peers: Vec<PeerSnapshot>,
    /// Addresses known and not connected.
    pub candidate_count: usize,
    /// Copies of the rarest piece among the connected peers, ours not counted.
    pub availability_min: u32,
    /// Whether every wanted piece is there.
    pub complete: bool,
    /// Whether the user paused it.
    pub paused: bool,
}

/// What passed between one torrent and all its peers, those that are gone included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficSnapshot {
    /// Content bytes sent.
    pub uploaded: u64,
    /// Content bytes received and kept.
    pub downloaded: u64,
    /// Content bytes received and thrown away.
    pub wasted: u64,
    /// Bytes of availability messages sent (bitfield, have, have-all/none, sp_have).
    pub availability_sent: u64,
    /// Bytes a second sent lately.
    pub upload_rate: u64,
    /// Bytes a second received lately.
    pub download_rate: u64,
}

/// Figures of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSnapshot {
    /// The other end.
    pub addr: SocketAddr,
    /// Who opened it.
    pub direction: Direction,
    /// Client name, from the extension handshake or the peer id.
    pub client: String,
    /// Pieces they have.
    pub have_count: u32,
    /// We choke them.
    pub am_choking: bool,
    /// We want something of theirs.
    pub am_interested: bool,
    /// They choke us.
    pub peer_choking: bool,
    /// They want something of ours.
    pub peer_interested: bool,
    /// Bytes a second to them.
    pub upload_rate: u64,
    /// Bytes a second from them.
    pub download_rate: u64,
    /// Content bytes to them.
    pub uploaded: u64,
    /// Content bytes from them.
    pub downloaded: u64,
}
