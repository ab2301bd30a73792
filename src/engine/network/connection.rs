//! One connection: a task that reads and writes its socket until either side is done.
//!
//! Both directions are futures of one task, so a connection has one owner and one end. It knows the
//! framing of messages and nothing of their meaning.

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
