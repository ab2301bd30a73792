//! One connection: a task that reads and writes its socket until either side is done.
//!
//! Both directions are futures of one task, so a connection has one owner and one end. It knows the
//! framing of messages and nothing of their meaning.
//!
//! System calls for 1 GiB (65,536 blocks, pieces of 1 MiB) between two hosts over veth on tmpfs,
//! with one thread moving bytes (`perf trace -s`):
//!
//! | | expected | counted |
//! |---|---|---|
//! | out: requests read, 17 bytes each, some 64 together | 1,024 | 470, and 73 other writes |
//! | out: reads of the content, 16 blocks each | 4,096 | 5,106 |
//! | out: stamps of the file | 4,096 | 5,107 |
//! | out: vectored writes, more where the socket has less room | 4,096 | 4,310 |
//! | out: waits for sockets and tasks (`epoll_wait`) | at most one a write | 362 |
//! | in: reads of sockets, a block each with the next header | 65,536 | 60,415 |
//! | in: writes of pieces, and of a journal record each | 2,048 | 1,929 |
//!
//! Each byte is copied twice in each direction, between socket, buffer and page cache; there is no
//! allocation for a block. Two thirds of a seed's time are these copies and the lookup of pages, a
//! sixth is TCP, an eighth the torrent's machine, channels and tasks. Sending from the page cache
//! without a copy (`sendfile`) took as long, slowed the receiver, and queued bytes can change after
//! the file was checked. One thread moves the bytes of up to eight cores: with two, tasks wake each
//! other across threads, which cost a seed a fifth more processor time.

use std::io;

use tokio::sync::mpsc;

use crate::engine::inputs::{Established, Input, Outgoing};
use crate::engine::network::pool::ConnectionIntake;
use crate::engine::network::receive::Receiver;
use crate::engine::network::send::{BlockSource, Sender};
use crate::proto::torrent::event::ConnId;

/// What a connection needs of its torrent.
pub(crate) struct Wiring {
    /// Its name.
    pub(crate) conn: ConnId,
    /// Where received things go.
    pub(crate) inbox: mpsc::Sender<Input>,
    /// Where blocks and buffers come from.
    pub(crate) source: BlockSource,
    /// Where buffers and places for what comes come from.
    pub(crate) intake: ConnectionIntake,
    /// What is to be sent; its end closes the connection.
    pub(crate) outbox: mpsc::Receiver<Outgoing>,
}

/// Runs a connection to its end, and tells the torrent.
///
/// When the torrent closes the queue, what is queued still goes out and the peer is given the time
/// to read it: closing a socket that has unread input would throw away what is on its way.
pub(crate) async fn run(established: Established, wiring: Wiring) {
    let Wiring { conn, inbox, source, intake, outbox } = wiring;
    let addr = established.connected.addr;
    let (read, write) = established.stream.into_split();
    let mut receiver = Receiver::new(read, conn, source.clone(), intake, inbox.clone());
    let mut sender = Sender::new(write, conn, source, outbox, inbox.clone());
    let (ended, by_us): (io::Result<()>, bool) = tokio::select! {
        ended = receiver.run() => (ended, false),
        ended = sender.run() => (ended, true),
    };
    if by_us && ended.is_ok() {
        receiver.discard_rest(sender).await;
    }
    tracing::debug!(%addr, ?ended, "connection closed");
    // A torrent that has ended needs no word.
    let _ = inbox.send(Input::Closed(conn)).await;
}
