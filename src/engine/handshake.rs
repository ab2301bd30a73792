//! The 68 bytes that open a connection (BEP 3), for both directions, and the time they may take.
//!
//! Knows which torrents there are and under which name we are known in each; not whether a peer is welcome:
//! its torrent says so.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use super::context::{Control, Entry, Established, Registry};
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::torrent::event::{Connected, Direction};
use crate::proto::wire::handshake::{Capabilities, HANDSHAKE_LEN, Handshake, NotBitTorrent};

/// Time for a TCP connection to open; then the address counts as unreachable.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the peer's handshake; then the connection is closed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What we can do: BEP 6, BEP 10, and BEP 5 if the torrent has a node of the DHT.
fn capabilities(dht: bool) -> Capabilities {
    Capabilities { dht, fast: true, extensions: true, v2: false }
}

/// Dials a peer of `infohash`, where we are called `peer_id`; `dht`: it may know that we are a node.
///
/// # Errors
/// It cannot be reached, is silent, or is no peer of this torrent.
pub(crate) async fn dial(
    addr: SocketAddr,
    infohash: InfoHash,
    peer_id: PeerId,
    dht: bool,
) -> io::Result<Established> {
    let mut stream = timeout(DIAL_TIMEOUT, TcpStream::connect(addr)).await??;
    stream.set_nodelay(true)?;
    let ours = Handshake { capabilities: capabilities(dht), infohash, peer_id };
    let theirs = timeout(HANDSHAKE_TIMEOUT, async {
        stream.write_all(&ours.encode()).await?;
        read(&mut stream).await
    });
    let theirs = theirs.await??;
    if theirs.infohash != infohash {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer has another torrent there"));
    }
    Ok(established(stream, addr, Direction::Outgoing, theirs))
}

/// Answers one who dialled us and hands the connection to its torrent. Who speaks another protocol or asks
/// for a torrent that is not here is told nothing.
pub(crate) async fn accept(mut stream: TcpStream, addr: SocketAddr, torrents: &Registry) {
    let answered = timeout(HANDSHAKE_TIMEOUT, async {
        stream.set_nodelay(true)?;
        let theirs = read(&mut stream).await?;
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

async fn read(stream: &mut TcpStream) -> io::Result<Handshake> {
    let mut bytes = [0; HANDSHAKE_LEN];
    stream.read_exact(&mut bytes).await?;
    Handshake::decode(&bytes)
        .map_err(|error: NotBitTorrent| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn established(stream: TcpStream, addr: SocketAddr, direction: Direction, theirs: Handshake) -> Established {
    let Handshake { capabilities, peer_id, infohash: _ } = theirs;
    Established { stream, connected: Connected { addr, direction, peer_id, capabilities } }
}
