//! From messages and blocks to a socket: the sending half of a connection.
//!
//! Messages go out as they come and may overtake blocks that wait. Blocks are read some at a time,
//! into pool buffers, and written by one vectored call with their headers between them. What the
//! system has in memory is read right here: a hand-over to a disk thread and back costs more than
//! the read. What it has not, a disk thread waits for. Nothing is read before the socket has room,
//! so that a peer who does not read costs no buffers. How block content reaches the socket is known
//! to this file alone.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, OnceLock};

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;

use crate::engine::disk::DiskQueue;
use crate::engine::inputs::{Input, Outgoing};
use crate::engine::network::pool::{BlockBuf, BlockPool};
use crate::proto::block::Block;
use crate::proto::torrent::event::ConnId;
use crate::proto::wire::message::{Message, block_header};
use crate::storage::disk::{Done, Job, SharedStore};

/// Blocks read and written at once, 256 KiB: a few wake-ups per MiB, and little to hold when a peer
/// slows down.
const SEND_BATCH_MAX: usize = 16;
/// Things taken out of the queue at once.
const TAKE_MAX: usize = 256;
/// Bytes of messages that are written together, and of the buffer that is kept for the next ones.
const MESSAGES_LEN: usize = 16 << 10;

/// Where blocks are read from.
#[derive(Clone)]
pub(crate) struct BlockSource {
    /// The threads that read.
    pub(crate) disk: DiskQueue,
    /// The torrent's files; unset while its description is still being fetched.
    pub(crate) content: Arc<OnceLock<SharedStore>>,
    /// Where buffers come from.
    pub(crate) pool: BlockPool,
}

/// The sending half.
pub(crate) struct Sender {
    socket: OwnedWriteHalf,
    conn: ConnId,
    source: BlockSource,
    outbox: mpsc::Receiver<Outgoing>,
    inbox: mpsc::Sender<Input>,
    /// Encoded messages.
    messages: Vec<u8>,
    /// Blocks to send, in order.
    blocks: VecDeque<Block>,
}

impl Sender {
    /// Nothing to send yet.
    pub(crate) fn new(
        socket: OwnedWriteHalf,
        conn: ConnId,
        source: BlockSource,
        outbox: mpsc::Receiver<Outgoing>,
        inbox: mpsc::Sender<Input>,
    ) -> Self {
        Self { socket, conn, source, outbox, inbox, messages: Vec::new(), blocks: VecDeque::new() }
    }

    /// Sends until the torrent closes the queue.
    ///
    /// # Errors
    /// The socket fails, or a block cannot be read.
    pub(crate) async fn run(&mut self) -> io::Result<()> {
        let mut taken = Vec::new();
        loop {
            if self.blocks.is_empty() {
                if self.outbox.recv_many(&mut taken, TAKE_MAX).await == 0 {
                    return Ok(());
                }
            } else {
                taken.extend(std::iter::from_fn(|| self.outbox.try_recv().ok()).take(TAKE_MAX));
            }
            let mut metadata_count = 0;
            for outgoing in taken.drain(..) {
                match outgoing {
                    Outgoing::Message(message) => self.queue(&message).await?,
                    Outgoing::Metadata(message) => {
                        metadata_count += 1;
                        self.queue(&message).await?;
                    }
                    Outgoing::Block(block) => self.blocks.push_back(block),
                }
            }
            self.send_messages().await?;
            if metadata_count > 0 {
                self.tell(Input::MetadataSent(self.conn, metadata_count)).await?;
            }
            if !self.blocks.is_empty() {
                self.send_blocks().await?;
            }
        }
    }

    /// Encodes a message, and sends what is encoded if that is enough.
    async fn queue(&mut self, message: &Message) -> io::Result<()> {
        message.encode(&mut self.messages);
        if self.messages.len() >= MESSAGES_LEN { self.send_messages().await } else { Ok(()) }
    }

    async fn send_messages(&mut self) -> io::Result<()> {
        if !self.messages.is_empty() {
            self.socket.write_all(&self.messages).await?;
            self.messages.clear();
            self.messages.shrink_to(MESSAGES_LEN);
        }
        Ok(())
    }

    /// Sends the first few blocks and tells the torrent that there is room.
    async fn send_blocks(&mut self) -> io::Result<()> {
        self.socket.writable().await?;
        let blocks = self.read_blocks().await?;
        if blocks.is_empty() {
            return Ok(());
        }
        let headers: Vec<_> = blocks.iter().map(|&(block, _)| block_header(block)).collect();
        let mut parts = Vec::with_capacity(2 * blocks.len());
        for (header, (_, content)) in headers.iter().zip(&blocks) {
            parts.push(IoSlice::new(header));
            parts.push(IoSlice::new(content.as_ref()));
        }
        let mut left = &mut parts[..];
        while !left.is_empty() {
            match self.socket.write_vectored(left).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => IoSlice::advance_slices(&mut left, written),
            }
        }
        let len = blocks.iter().map(|(block, _)| u64::from(block.len)).sum();
        let count = blocks.len();
        drop(parts);
        drop(blocks);
        self.tell(Input::Sent(self.conn, count, len)).await
    }

    /// The first few blocks with their content: those that can be had at once, or else all from a
    /// disk thread. None if one of their pieces is lost.
    async fn read_blocks(&mut self) -> io::Result<Vec<(Block, BlockBuf)>> {
        let mut blocks = self.take_blocks().await;
        let content = self.source.content.get().expect("blocks are only sent of content that is open");
        let read_count = content.content().read_at_once(&mut blocks);
        if read_count == 0 {
            return self.fetch_blocks(blocks).await;
        }
        for (block, _) in blocks.drain(read_count..).rev() {
            self.blocks.push_front(block);
        }
        Ok(blocks)
    }

    /// Takes the first few blocks out of the queue, with buffers for them.
    async fn take_blocks(&mut self) -> Vec<(Block, BlockBuf)> {
        let mut blocks = Vec::with_capacity(self.blocks.len().min(SEND_BATCH_MAX));
        while let Some(&block) = self.blocks.front() {
            let content = if blocks.is_empty() {
                self.source.pool.take(block.len).await
            } else if blocks.len() < SEND_BATCH_MAX && self.source.pool.is_ample() {
                let Some(content) = self.source.pool.try_take(block.len) else { break };
                content
            } else {
                break;
            };
            blocks.push((block, content));
            self.blocks.pop_front();
        }
        blocks
    }

    /// Has a disk thread read them; none if one of their pieces is lost. Then its blocks are not
    /// sent, and those of others are read again, for one may have been read before it was lost.
    async fn fetch_blocks(&mut self, blocks: Vec<(Block, BlockBuf)>) -> io::Result<Vec<(Block, BlockBuf)>> {
        let content = self.source.content.get().expect("blocks are only sent of content that is open");
        let error = match self.source.disk.run(content, Job::Read { blocks }).await {
            Some(Done::Read { blocks, outcome: Ok(lost) }) if lost.is_empty() => return Ok(blocks),
            Some(Done::Read { blocks, outcome: Ok(lost) }) => {
                let is_lost = |block: &Block| lost.iter().any(|lost| lost.piece == block.piece);
                let blocks = blocks.into_iter().map(|(block, _)| block);
                let (unsent, rest): (Vec<_>, Vec<_>) = blocks.partition(is_lost);
                rest.into_iter().rev().for_each(|block| self.blocks.push_front(block));
                self.tell(Input::PiecesLost(lost)).await?;
                self.tell(Input::Unsent(self.conn, unsent)).await?;
                return Ok(Vec::new());
            }
            Some(Done::Read { outcome: Err(error), .. }) => error.to_string(),
            Some(Done::Store(..) | Done::Spill(..) | Done::Check(_)) | None => {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        };
        self.tell(Input::ReadFailed(error.clone())).await?;
        Err(io::Error::other(error))
    }

    async fn tell(&self, input: Input) -> io::Result<()> {
        self.inbox.send(input).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
