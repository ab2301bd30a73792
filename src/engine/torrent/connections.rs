//! The connections of one torrent, by the name that its machine knows them by.
//!
//! Sending never waits: a connection whose queue is full has not taken anything for thousands of
//! messages and is given up.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::sync::mpsc;

use crate::engine::channels::{INBOX, OUTBOX};
use crate::engine::context::Context;
use crate::engine::inputs::{Established, Input, Outgoing};
use crate::engine::network::connection;
use crate::engine::network::connection::Wiring;
use crate::engine::network::pool::Intake;
use crate::engine::network::send::BlockSource;
use crate::engine::task;
use crate::engine::task::Task;
use crate::proto::torrent::event::ConnId;
use crate::storage::disk::SharedStore;

/// All connections.
pub(super) struct Connections {
    open: BTreeMap<ConnId, Connection>,
    opened_count: u32,
    source: BlockSource,
    /// Made with the first connection, and gone with the last, as the inbox is.
    intake: Option<Intake>,
    /// Made with the first connection, and given back with the last: most torrents of many have
    /// none.
    inbox: Option<mpsc::Sender<Input>>,
    /// The other end, until somebody listens.
    unheard: Option<mpsc::Receiver<Input>>,
}

/// Where a torrent hears its connections.
#[derive(Default)]
pub(super) struct Inbox {
    receiver: Option<mpsc::Receiver<Input>>,
}

/// One connection; dropping it closes the socket.
struct Connection {
    outbox: mpsc::Sender<Outgoing>,
    task: Task,
}

/// The peer does not read what it is sent.
#[derive(Debug)]
pub(super) struct Stalled;

impl Connections {
    /// None yet.
    pub(super) fn new(context: &Context) -> Self {
        let (disk, pool) = (context.disk.clone(), context.pool.clone());
        let source = BlockSource { disk, content: Arc::default(), pool };
        Self { open: BTreeMap::new(), opened_count: 0, source, intake: None, inbox: None, unheard: None }
    }

    /// The content is known: connections can read blocks of it, and know how many pieces there are.
    pub(super) fn describe(&self, content: &SharedStore) {
        let is_first = self.source.content.set(content.clone()).is_ok();
        debug_assert!(is_first, "a torrent is described once");
    }

    /// Starts the task of a connection; its name was never used before.
    pub(super) fn open(&mut self, established: Established) -> ConnId {
        let conn = ConnId(self.opened_count);
        self.opened_count += 1;
        let (outbox, receiver) = mpsc::channel(OUTBOX);
        let intake = self.intake.get_or_insert_with(|| Intake::new(&self.source.pool)).connection();
        let (inbox, source) = (self.inbox(), self.source.clone());
        let wiring = Wiring { conn, inbox, source, intake, outbox: receiver };
        let task = task::spawn("connection", connection::run(established, wiring));
        self.open.insert(conn, Connection { outbox, task });
        conn
    }

    fn inbox(&mut self) -> mpsc::Sender<Input> {
        let Self { inbox, unheard, .. } = self;
        let make = || {
            let (sender, receiver) = mpsc::channel(INBOX);
            *unheard = Some(receiver);
            sender
        };
        inbox.get_or_insert_with(make).clone()
    }

    /// Whether there ever was one.
    pub(super) fn has_opened(&self) -> bool {
        self.opened_count > 0
    }

    /// Whether it is still open: what it sent before it was closed is nobody's business any more.
    pub(super) fn is_open(&self, conn: ConnId) -> bool {
        self.open.contains_key(&conn)
    }

    /// Queues something to send; to a connection that has closed: nothing.
    pub(super) fn send(&self, conn: ConnId, outgoing: Outgoing) -> Result<(), Stalled> {
        let Some(connection) = self.open.get(&conn) else { return Ok(()) };
        match connection.outbox.try_send(outgoing) {
            // A closed queue: the end of the connection is on its way to us.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Stalled),
        }
    }

    /// Closes it; whether it was open.
    pub(super) fn close(&mut self, conn: ConnId) -> bool {
        let was_open = self.open.remove(&conn).is_some();
        self.compact();
        was_open
    }

    /// Without connections there is nothing to be heard, once what they said is taken, and no room
    /// is needed.
    fn compact(&mut self) {
        if self.open.is_empty() {
            (self.open, self.intake, self.inbox) = (BTreeMap::new(), None, None);
        }
    }

    /// Sends what is queued and then closes all; the future ends when every peer has closed, too.
    /// Dropping it closes at once.
    pub(super) fn finish(&mut self) -> impl Future<Output = ()> + Send + use<> {
        // Dropping the queues tells the connections.
        let mut tasks: Vec<_> =
            std::mem::take(&mut self.open).into_values().map(|connection| connection.task).collect();
        async move {
            for task in &mut tasks {
                task.join().await;
            }
        }
    }
}

impl Inbox {
    /// Listens to these connections from now on, if there is none left to listen to.
    pub(super) fn attend(&mut self, connections: &mut Connections) {
        if self.receiver.is_none() {
            self.receiver = connections.unheard.take();
        }
    }

    /// The next input; None: the last connection has ended, and there may be others to
    /// [`Inbox::attend`] to. Waits for ever while there is none. May be dropped and called again.
    pub(super) fn recv(&mut self) -> impl Future<Output = Option<Input>> {
        poll_fn(|cx| {
            let Some(receiver) = &mut self.receiver else { return Poll::Pending };
            let input = ready!(receiver.poll_recv(cx));
            if input.is_none() {
                self.receiver = None;
            }
            Poll::Ready(input)
        })
    }

    /// What is there already.
    pub(super) fn try_recv(&mut self) -> Option<Input> {
        self.receiver.as_mut()?.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::disk::DiskQueue;
    use crate::engine::network::pool::BlockPool;

    #[tokio::test]
    async fn who_comes_after_the_last_has_gone_is_heard_when_all_is_heard_that_that_one_said() {
        let (disk, pool) = (DiskQueue::start(1).unwrap(), BlockPool::new());
        let source = BlockSource { disk, content: Arc::default(), pool };
        let mut connections = Connections {
            open: BTreeMap::new(),
            opened_count: 0,
            source,
            intake: None,
            inbox: None,
            unheard: None,
        };
        let mut inbox = Inbox::default();
        let first = connections.inbox();
        inbox.attend(&mut connections);
        first.try_send(Input::Closed(ConnId(0))).unwrap();
        connections.close(ConnId(0));
        let second = connections.inbox();
        second.try_send(Input::Closed(ConnId(1))).unwrap();
        inbox.attend(&mut connections);
        assert!(matches!(inbox.recv().await, Some(Input::Closed(ConnId(0)))));
        drop(first);
        assert!(inbox.recv().await.is_none(), "the first one has ended");
        inbox.attend(&mut connections);
        assert!(matches!(inbox.recv().await, Some(Input::Closed(ConnId(1)))));
    }
}
