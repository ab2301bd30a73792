//! A played peer that gives a description, true or false, and has no content.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use sprat::engine::InfoHash;
use sprat::proto::peer_id::PeerId;
use sprat::proto::wire::decoder::{Decoder, Frame};
use sprat::proto::wire::extension::ExtensionHandshake;
use sprat::proto::wire::handshake::{Capabilities, HANDSHAKE_LEN, Handshake};
use sprat::proto::wire::message::Message;
use sprat::proto::wire::metadata::{METADATA_PIECE_LEN, MetadataMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Its number for metadata messages.
const OUR_ID: u8 = 3;

/// One that listens.
pub(super) struct MetadataPeer {
    listener: TcpListener,
    infohash: InfoHash,
    /// What it gives out as the description.
    bytes: Bytes,
    /// What it says the description's length is.
    claimed_len: u32,
}

impl MetadataPeer {
    /// Gives these bytes out, and says of them what is true.
    pub(super) async fn new(infohash: InfoHash, bytes: Bytes) -> Self {
        let claimed_len = bytes.len() as u32;
        Self::claiming(infohash, bytes, claimed_len).await
    }

    /// Says that there are so many, and gives zeros where there are fewer.
    pub(super) async fn claiming(infohash: InfoHash, bytes: Bytes, claimed_len: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, infohash, bytes, claimed_len }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Answers everybody, one after another, for ever; `hung_up` is told each time somebody is done
    /// with it.
    pub(super) async fn run(&self, hung_up: impl Fn()) {
        loop {
            let (socket, _) = self.listener.accept().await.unwrap();
            // That it is hung up on is no error.
            let _ = self.answer(socket).await;
            hung_up();
        }
    }

    async fn answer(&self, mut socket: TcpStream) -> std::io::Result<()> {
        let capabilities = Capabilities { extensions: true, ..Capabilities::default() };
        let mut peer_id = PeerId(*b"-XX0000-abcdefghijkl");
        peer_id.0[18..].copy_from_slice(&self.addr().port().to_be_bytes());
        let ours = Handshake { capabilities, infohash: self.infohash, peer_id };
        socket.write_all(&ours.encode()).await?;
        socket.read_exact(&mut [0; HANDSHAKE_LEN]).await?;
        let greeting = ExtensionHandshake {
            ut_metadata: Some(OUR_ID),
            metadata_size: Some(self.claimed_len),
            ..ExtensionHandshake::default()
        };
        send(&mut socket, 0, greeting.encode()).await?;
        let (mut decoder, mut buffer, mut their_id) = (Decoder::new(None), BytesMut::new(), 0);
        loop {
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                match frame {
                    Frame::Message(Message::Extended { id: 0, payload }) => {
                        let theirs = ExtensionHandshake::decode(&payload).unwrap();
                        their_id = theirs.ut_metadata.unwrap_or(their_id);
                    }
                    Frame::Message(Message::Extended { id: OUR_ID, payload }) => {
                        if let Ok(MetadataMessage::Request(piece)) = MetadataMessage::decode(&payload) {
                            send(&mut socket, their_id, self.piece(piece).encode()).await?;
                        }
                    }
                    Frame::Message(_) | Frame::Block(_) => {}
                }
            }
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    fn piece(&self, piece: u32) -> MetadataMessage {
        let start = (piece * METADATA_PIECE_LEN) as usize;
        let end = (start + METADATA_PIECE_LEN as usize).min(self.claimed_len as usize);
        let mut bytes = vec![0; end - start];
        let there = self.bytes.get(start..).unwrap_or_default();
        let there = &there[..there.len().min(bytes.len())];
        bytes[..there.len()].copy_from_slice(there);
        MetadataMessage::Data { piece, total_len: self.claimed_len, bytes: bytes.into() }
    }
}

async fn send(socket: &mut TcpStream, id: u8, payload: Bytes) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    Message::Extended { id, payload }.encode(&mut bytes);
    socket.write_all(&bytes).await
}
