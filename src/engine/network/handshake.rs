//! The 68 bytes that open a connection (BEP 3), for both directions, and the time they may take.
//!
//! Knows which torrents there are and under which name we are known in each; not whether a peer is
//! welcome: its torrent says so.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use crate::engine::inputs::{Control, Established};
use crate::engine::registry::{Entry, Registry};
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::torrent::dial::refusals::looks_encrypted;
use crate::proto::torrent::event::{Connected, Direction};
use crate::proto::wire::handshake::{Capabilities, HANDSHAKE_LEN, Handshake, NotBitTorrent};

/// Time for a TCP connection to open; then the address counts as unreachable.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the peer's handshake; then the connection is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A handshake by which an unencrypted connection begins, or something else.
enum Opening {
    Plain(Handshake),
    Encrypted,
}

/// Why a dial brought no peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPeer {
    /// It was reached, and closed the connection without a byte.
    #[error("the peer closed the connection without a handshake")]
    Closed,
    /// It cannot be reached, is silent, or is no peer of this torrent.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// Most torrents that are notified of an encrypted connection; with more torrents none is.
const TOLD_MAX: usize = 16;

/// What we can do: BEP 6, BEP 10, and BEP 5 if the torrent has a node of the DHT.
fn capabilities(dht: bool) -> Capabilities {
    Capabilities { dht, fast: true, extensions: true, v2: false }
}

/// Dials a peer of `infohash`, where we are called `peer_id`; `dht`: it may know that we are a
/// node.
///
/// # Errors
/// It closes the connection, cannot be reached, is silent, or is no peer of this torrent.
pub(crate) async fn dial(
    addr: SocketAddr,
    infohash: InfoHash,
    peer_id: PeerId,
    dht: bool,
) -> Result<Established, NoPeer> {
    let mut stream = timeout(DIAL_TIMEOUT, TcpStream::connect(addr)).await.map_err(io::Error::from)??;
    stream.set_nodelay(true)?;
    let ours = Handshake { capabilities: capabilities(dht), infohash, peer_id };
    let theirs = timeout(HANDSHAKE_TIMEOUT, async {
        stream.write_all(&ours.encode()).await.map_err(closed_or_failed)?;
        read_reply(&mut stream).await
    });
    let theirs = theirs.await.map_err(io::Error::from)??;
    if theirs.infohash != infohash {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer has another torrent there").into());
    }
    Ok(established(stream, addr, Direction::Outgoing, theirs))
}

/// Answers one who dialled us and hands the connection to its torrent. Who speaks another protocol
/// or asks for a torrent that is not here is told nothing.
pub(crate) async fn accept(mut stream: TcpStream, addr: SocketAddr, torrents: &Registry) {
    let answered = timeout(HANDSHAKE_TIMEOUT, async {
        stream.set_nodelay(true)?;
        let theirs = match read_opening(&mut stream).await? {
            Opening::Plain(theirs) => theirs,
            Opening::Encrypted => {
                tell_encrypted(addr.ip(), torrents);
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it looks encrypted"));
            }
        };
        let entry = torrents.borrow().get(&theirs.infohash).cloned();
        let entry = entry.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such torrent here"))?;
        let Entry { peer_id, dht, .. } = entry;
        let ours = Handshake { capabilities: capabilities(dht), infohash: theirs.infohash, peer_id };
        stream.write_all(&ours.encode()).await?;
        io::Result::Ok((theirs, entry))
    });
    match answered.await.map_err(io::Error::from).flatten() {
        Ok((theirs, entry)) => {
            let accepted = established(stream, addr, Direction::Incoming, theirs);
            // A torrent that is gone by now closes the connection by dropping it.
            let _ = entry.control.send(Control::Accepted(accepted)).await;
        }
        Err(error) => tracing::debug!(%addr, %error, "no handshake"),
    }
}

/// The beginning of a connection that came to us.
async fn read_opening(stream: &mut TcpStream) -> io::Result<Opening> {
    let mut bytes = [0; HANDSHAKE_LEN];
    stream.read_exact(&mut bytes).await?;
    match Handshake::decode(&bytes) {
        Ok(theirs) => Ok(Opening::Plain(theirs)),
        Err(_) if looks_encrypted(&bytes) => Ok(Opening::Encrypted),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

/// The answer to our handshake.
async fn read_reply(stream: &mut TcpStream) -> Result<Handshake, NoPeer> {
    let mut bytes = [0; HANDSHAKE_LEN];
    let len = stream.read(&mut bytes).await.map_err(closed_or_failed)?;
    if len == 0 {
        return Err(NoPeer::Closed);
    }
    stream.read_exact(&mut bytes[len..]).await?;
    let decoded = Handshake::decode(&bytes);
    decoded.map_err(|error: NotBitTorrent| io::Error::new(io::ErrorKind::InvalidData, error).into())
}

/// What an error before the first byte of the peer means.
fn closed_or_failed(error: io::Error) -> NoPeer {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    let is_closed = [ConnectionReset, ConnectionAborted, BrokenPipe].contains(&error.kind());
    if is_closed { NoPeer::Closed } else { NoPeer::Failed(error) }
}

/// Notifies every torrent, up to `TOLD_MAX`, because encryption hides which torrent the peer wants.
fn tell_encrypted(ip: IpAddr, torrents: &Registry) {
    let torrents = torrents.borrow();
    if torrents.len() <= TOLD_MAX {
        for entry in torrents.values() {
            // A full control channel drops the notice; a busy torrent has peers and does not need
            // it.
            let _ = entry.control.try_send(Control::Encrypted(ip));
        }
    }
}

fn established(stream: TcpStream, addr: SocketAddr, direction: Direction, theirs: Handshake) -> Established {
    let Handshake { capabilities, peer_id, infohash: _ } = theirs;
    Established { stream, connected: Connected { addr, direction, peer_id, capabilities } }
}
