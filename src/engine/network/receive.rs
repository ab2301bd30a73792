//! From a socket to messages and blocks: the receiving half of a connection.
//!
//! Messages are decoded out of a small buffer. When the decoder meets a block it steps aside: what
//! of the block came already is taken from the buffer, the rest is read from the socket straight
//! into a pool buffer, together with the few bytes that follow it. So but for those few bytes each
//! byte is copied once, from the kernel to where it stays; a call to the system brings up to a
//! block, and one channel operation all that came until the socket was empty.
//!
//! What is received and not handled yet is bounded in bytes, for the connection, its torrent and
//! the process (see `pool`): blocks and messages with a payload take places there, and without one
//! the socket is not read. A peer that sends faster than it is read keeps nothing else from
//! running: after [`TURN_LEN`] bytes the torrent has its turn.

use std::io::{self, IoSliceMut};

use bytes::BytesMut;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;

use crate::engine::channels::RECEIVE_BATCH_MAX;
use crate::engine::inputs::{Incoming, Input};
use crate::engine::network::pool::{BlockBuf, ConnectionIntake, LONG_LEN, Place};
use crate::engine::network::send::{BlockSource, Sender};
use crate::proto::block::Block;
use crate::proto::torrent::event::ConnId;
use crate::proto::wire::decoder::{Decoder, Frame};
use crate::proto::wire::message::Message;

/// Bytes read at once between blocks: messages are small, and what comes of a block's content here
/// is copied a second time.
const READ_LEN: usize = 4096;
/// Bytes read beyond a block: the next header, or a few short messages.
const AHEAD_LEN: usize = 64;
/// Bytes read in a row, as many as a full batch of blocks has; then other tasks have their turn,
/// the torrent among them.
const TURN_LEN: usize = 512 << 10;
/// Messages up to this length take no places: the inbox holds few of them.
const LIGHT_LEN: usize = 256;

/// The receiving half.
pub(crate) struct Receiver {
    socket: OwnedReadHalf,
    conn: ConnId,
    decoder: Decoder,
    /// Whether the decoder knows how many pieces there are.
    is_described: bool,
    source: BlockSource,
    intake: ConnectionIntake,
    inbox: mpsc::Sender<Input>,
    buffer: BytesMut,
    /// Bytes read since other tasks had their turn.
    turn_len: usize,
    /// For the long message that is being received.
    long: Option<Place>,
    batch: Vec<Incoming>,
}

impl Receiver {
    /// Nothing read yet.
    pub(crate) fn new(
        socket: OwnedReadHalf,
        conn: ConnId,
        source: BlockSource,
        intake: ConnectionIntake,
        inbox: mpsc::Sender<Input>,
    ) -> Self {
        Self {
            socket,
            conn,
            decoder: Decoder::new(None),
            is_described: false,
            source,
            intake,
            inbox,
            buffer: BytesMut::new(),
            turn_len: 0,
            long: None,
            batch: Vec::new(),
        }
    }

    /// Reads until the other side closes.
    ///
    /// # Errors
    /// The socket fails, or the peer breaks the framing.
    pub(crate) async fn run(&mut self) -> io::Result<()> {
        loop {
            if let Some(frame) = self.decode()? {
                self.take(frame).await?;
            } else {
                self.prepare().await?;
                if self.read_some().await? == 0 {
                    return self.flush().await;
                }
            }
            if self.turn_len >= TURN_LEN {
                self.flush().await?;
                self.rest().await;
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> io::Result<()> {
        let incoming = match frame {
            Frame::Message(message) => {
                let place = self.place(&message).await?;
                Incoming::Message(message, place)
            }
            Frame::Block(block) => Incoming::Block(block, self.read_block(block).await?),
        };
        self.batch.push(incoming);
        if self.batch.len() >= RECEIVE_BATCH_MAX { self.flush().await } else { Ok(()) }
    }

    /// The places that a message takes until it is handled.
    async fn place(&mut self, message: &Message) -> io::Result<Option<Place>> {
        let len = message.encoded_len();
        if let Some(long) = self.long.take() {
            // Its buffer is not kept for the short ones that follow.
            self.buffer = BytesMut::from(&self.buffer[..]);
            return Ok(Some(long));
        }
        if len <= LIGHT_LEN {
            return Ok(None);
        }
        if let Some(place) = self.intake.try_reserve(len) {
            return Ok(Some(place));
        }
        // Never wait for places while holding some.
        self.flush().await?;
        Ok(Some(self.intake.reserve(len).await))
    }

    /// Before more is read: a message that takes a lot of memory waits until there is some.
    async fn prepare(&mut self) -> io::Result<()> {
        let len = self.buffer.len() + self.decoder.needed(&self.buffer);
        if len > LONG_LEN && self.long.is_none() {
            self.flush().await?;
            self.long = Some(self.source.pool.reserve_long(len).await);
        }
        Ok(())
    }

    /// Other tasks have their turn.
    async fn rest(&mut self) {
        self.turn_len = 0;
        tokio::task::yield_now().await;
    }

    /// Reads and drops what still comes until the other side closes too.
    pub(crate) async fn discard_rest(&mut self, sender: Sender) {
        // Dropping it says that nothing follows.
        drop(sender);
        self.batch.clear();
        loop {
            self.buffer.clear();
            match self.read_some().await {
                Ok(1..) if self.turn_len >= TURN_LEN => self.rest().await,
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }

    fn decode(&mut self) -> io::Result<Option<Frame>> {
        if !self.is_described
            && let Some(content) = self.source.content.get()
        {
            self.decoder.describe(content.info().geometry.piece_count());
            self.is_described = true;
        }
        self.decoder
            .decode(&mut self.buffer)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Tells the torrent all that came since the last time.
    async fn flush(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let told = self.inbox.send(Input::Received(self.conn, batch)).await;
        told.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    /// Reads into the message buffer; 0: the other side has closed.
    async fn read_some(&mut self) -> io::Result<usize> {
        loop {
            self.buffer.reserve(READ_LEN);
            match self.socket.try_read_buf(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait().await?,
                read => {
                    self.turn_len += read.as_ref().copied().unwrap_or(0);
                    return read;
                }
            }
        }
    }

    /// Reads the content of a block, and a little of what follows it.
    async fn read_block(&mut self, block: Block) -> io::Result<BlockBuf> {
        let mut content = match self.intake.try_take(block.len) {
            Some(content) => content,
            None => {
                // Never wait for buffers while holding some.
                self.flush().await?;
                self.intake.take(block.len).await
            }
        };
        let ready = self.buffer.len().min(content.as_ref().len());
        content.as_mut()[..ready].copy_from_slice(&self.buffer.split_to(ready));
        let mut filled = ready;
        while filled < content.as_ref().len() {
            filled += self.read_into(&mut content.as_mut()[filled..]).await?;
        }
        Ok(content)
    }

    /// Reads into `content` and, once that is full, a little into the message buffer; how much of
    /// `content` is filled.
    async fn read_into(&mut self, content: &mut [u8]) -> io::Result<usize> {
        let mut ahead = [0; AHEAD_LEN];
        loop {
            let parts = &mut [IoSliceMut::new(content), IoSliceMut::new(&mut ahead)];
            match self.socket.try_read_vectored(parts) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.turn_len += read;
                    let filled = read.min(content.len());
                    self.buffer.extend_from_slice(&ahead[..read - filled]);
                    return Ok(filled);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// The socket is empty: what came goes to the torrent, then wait for more.
    async fn wait(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.turn_len = 0;
        self.socket.readable().await
    }
}
