//! A played peer that asks a running `sprat` for blocks, one at a time or many, and sees what it
//! claims to have.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use sprat::engine::{Bitfield, Info};
use sprat::proto::block::Block;
use sprat::proto::peer_id::PeerId;
use sprat::proto::wire::decoder::{Decoder, Frame};
use sprat::proto::wire::handshake::{Capabilities, HANDSHAKE_LEN, Handshake};
use sprat::proto::wire::message::Message;

/// Longest silence of the other side.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A connection of ours.
pub(crate) struct RawPeer {
    socket: TcpStream,
    decoder: Decoder,
    buffer: BytesMut,
    /// What the other side says it has.
    pub(crate) claimed: Bitfield,
}

impl RawPeer {
    /// Connects, hears what the other side has, and waits to be unchoked.
    ///
    /// # Errors
    /// The other side hangs up.
    pub(crate) fn connect(port: u16, info: &Info) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut peer_id = PeerId(*b"-XX0000-abcdefghijkl");
        peer_id.0[16..].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let mut socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_read_timeout(Some(SILENCE_MAX))?;
        let greeting = Handshake { capabilities: Capabilities::default(), infohash: info.infohash, peer_id };
        socket.write_all(&greeting.encode())?;
        socket.read_exact(&mut [0; HANDSHAKE_LEN])?;
        let piece_count = info.geometry.piece_count();
        let claimed = Bitfield::new(piece_count);
        let mut peer = Self { socket, decoder: Decoder::new(piece_count), buffer: BytesMut::new(), claimed };
        peer.tell(&[Message::Interested])?;
        while !matches!(peer.frame()?, Frame::Message(Message::Unchoke)) {}
        Ok(peer)
    }

    /// Asks for blocks, at most a few hundred at once.
    ///
    /// # Errors
    /// The other side has hung up.
    pub(crate) fn ask(&mut self, blocks: &[Block]) -> io::Result<()> {
        let requests: Vec<Message> = blocks.iter().map(|&block| Message::Request(block)).collect();
        self.tell(&requests)
    }

    /// The next block that comes, with its bytes.
    ///
    /// # Errors
    /// The other side hangs up.
    pub(crate) fn block(&mut self) -> io::Result<(Block, Vec<u8>)> {
        loop {
            let Frame::Block(block) = self.frame()? else { continue };
            while self.buffer.len() < block.len as usize {
                self.receive()?;
            }
            return Ok((block, self.buffer.split_to(block.len as usize).to_vec()));
        }
    }

    fn tell(&mut self, messages: &[Message]) -> io::Result<()> {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.encode(&mut bytes));
        self.socket.write_all(&bytes)
    }

    fn frame(&mut self) -> io::Result<Frame> {
        loop {
            match self.decoder.decode(&mut self.buffer).unwrap() {
                Some(frame) => {
                    match &frame {
                        Frame::Message(Message::Bitfield(pieces)) => self.claimed = pieces.clone(),
                        Frame::Message(Message::Have(piece)) => {
                            self.claimed.set(*piece);
                        }
                        Frame::Message(_) | Frame::Block(_) => {}
                    }
                    return Ok(frame);
                }
                None => self.receive()?,
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut bytes = [0; 32 * 1024];
        match self.socket.read(&mut bytes)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            len => {
                self.buffer.extend_from_slice(&bytes[..len]);
                Ok(())
            }
        }
    }
}
