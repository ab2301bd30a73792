//! What all tasks of an engine share, and the inputs that they give each other.
//!
//! Only handles and constants: nothing here has state of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Duration;

use super::clock::Clock;
use super::config::Config;
use super::dht;
use super::disk::DiskQueue;
use super::http::HttpClient;
use super::lsd;
use super::mailbox::Mail;
use super::ourselves::Ourselves;
use super::pool::{BlockBuf, BlockPool, Place};
use super::supervisor;
use super::turns::Turns;
use super::udp;
use crate::proto::block::Block;
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::torrent::event::{Command, ConnId, Connected, Source};
use crate::proto::wire::message::Message;
use crate::storage::content::LostPiece;
use crate::storage::fs::RealFs;
use crate::storage::handles::Handles;

/// Handles to everything that torrents share.
pub(crate) struct Context {
    /// Time.
    pub(crate) clock: Clock,
    /// Buffers for blocks.
    pub(crate) pool: BlockPool,
    /// Disk threads.
    pub(crate) disk: DiskQueue,
    /// Files kept open, of all torrents.
    pub(crate) handles: Arc<Handles>,
    /// Where journals are; None: none are kept.
    pub(crate) journals: Option<Arc<RealFs>>,
    /// Our own addresses.
    pub(crate) ourselves: Ourselves,
    /// Announces by UDP.
    pub(crate) udp: mpsc::Sender<udp::Request>,
    /// The DHT node; None: we take no part.
    pub(crate) dht: Option<mpsc::Sender<dht::Request>>,
    /// Torrents for the local network to know; None: we do not look there.
    pub(crate) lsd: Option<mpsc::Sender<lsd::Request>>,
    /// Announces by HTTP.
    pub(crate) http: HttpClient,
    /// Whose turn it is to announce.
    pub(crate) announces: Turns,
    /// Leases and demands.
    pub(crate) supervisor: mpsc::Sender<supervisor::Input>,
    /// Where we listen, TCP and UDP.
    pub(crate) port: u16,
    /// The user's settings.
    pub(crate) config: Config,
}

impl Context {
    /// Tells the DHT node of another one. A queue that is full has better ones.
    pub(crate) fn hint(&self, addr: SocketAddr) {
        if let Some(dht) = &self.dht {
            let _ = dht.try_send(dht::Request::Hint(addr));
        }
    }
}

/// The torrents that accept connections, by infohash; replaced whole when one comes or goes.
pub(crate) type Registry = watch::Receiver<Arc<BTreeMap<InfoHash, Entry>>>;

/// How to reach a torrent.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Our name in its swarm.
    pub(crate) peer_id: PeerId,
    /// Whether its peers may know that we are a node of the DHT: not those of a private torrent.
    pub(crate) dht: bool,
    /// Where accepted connections go.
    pub(crate) control: Mail,
}

/// A connection after both handshakes.
#[derive(Debug)]
pub(crate) struct Established {
    /// The socket, positioned after the handshake.
    pub(crate) stream: TcpStream,
    /// What the handshake said.
    pub(crate) connected: Connected,
}

/// What users, the listener and the supervisor tell a torrent.
#[derive(Debug)]
pub(crate) enum Control {
    /// A peer dialled us.
    Accepted(Established),
    /// An encrypted connection came from there, for this torrent or another one.
    Encrypted(IpAddr),
    /// From the user; answered when it is done.
    Command(Command, oneshot::Sender<()>),
    /// Addresses from the user, or from the local network.
    Peers(Source, Vec<SocketAddr>),
    /// Leave the swarm within this time; the sender is dropped when that is done.
    Stop(Duration, oneshot::Sender<()>),
}

/// What connections tell their torrent.
#[derive(Debug)]
pub(crate) enum Input {
    /// Everything that one wake-up brought, in order.
    Received(ConnId, Vec<Incoming>),
    /// So many blocks, of so many bytes, have left.
    Sent(ConnId, usize, u64),
    /// So many messages with metadata have left.
    MetadataSent(ConnId, usize),
    /// A block could not be read, in words; the connection ends.
    ReadFailed(String),
    /// Pieces that were asked for are there no more.
    PiecesLost(Vec<LostPiece>),
    /// These blocks will not be sent: their pieces are those lost just before.
    Unsent(ConnId, Vec<Block>),
    /// The socket is closed; nothing follows.
    Closed(ConnId),
}

/// One thing received.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A message, and the places that its payload takes until it is handled.
    Message(Message, Option<Place>),
    /// A block.
    Block(Block, BlockBuf),
}

/// One thing to send.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A message.
    Message(Message),
    /// A metadata message; `Input::MetadataSent` follows when it is sent.
    Metadata(Message),
    /// A block, to be read from the disk first.
    Block(Block),
}
