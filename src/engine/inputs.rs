//! The inputs that tasks give a torrent, and what a torrent gives its connections.

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Duration;

use crate::engine::network::pool::{BlockBuf, Place};
use crate::proto::block::Block;
use crate::proto::torrent::event::{Command, ConnId, Connected, Source};
use crate::proto::wire::message::Message;
use crate::storage::content::LostPiece;

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
