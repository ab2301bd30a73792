//! Carries the questions of a torrent's [`Discovery`] to trackers, the DHT node, the local
//! network's task and the system's resolver, and brings the answers back. It decides nothing.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{self, Poll};

use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};

use super::trackers;
use crate::engine::api::event::Event;
use crate::engine::channels::FOUND;
use crate::engine::context::Context;
use crate::engine::discovery::dht;
use crate::engine::discovery::dht::{DhtRequest, Found, Outcome};
use crate::engine::discovery::http::Answer;
use crate::engine::discovery::lsd;
use crate::engine::discovery::turns::Turn;
use crate::engine::task::Tasks;
use crate::proto::compact;
use crate::proto::discovery::Discovery;
use crate::proto::discovery::event;
use crate::proto::infohash::InfoHash;
use crate::proto::time::Instant;
use crate::proto::torrent::event::Source;
use crate::proto::tracker::Announce;
use crate::proto::tracker::announcer::RequestId;

/// Time for looking up the name of a peer or node; then it is left out.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The questions that are not answered yet.
pub(super) struct Sources {
    context: Arc<Context>,
    infohash: InfoHash,
    /// Findings of the lookup under way.
    lookup: Option<mpsc::Receiver<Found>>,
    tasks: Tasks<Answered>,
}

/// An announce to be sent.
pub(super) struct Asked {
    pub(super) request: RequestId,
    pub(super) url: String,
    pub(super) announce: Announce,
}

/// What answers a question; boxed, as each torrent has room for it all its life.
pub(super) enum Answered {
    /// An announce that waited may be sent.
    Turn(Box<Asked>, Turn),
    /// By a tracker.
    Announce(RequestId, Box<Answer>),
    /// By the DHT node.
    Lookup(Box<Found>),
    /// The addresses of a peer's name.
    Resolved(Vec<SocketAddr>),
    /// Somebody was told something.
    Told,
}

impl Sources {
    /// Nothing asked yet.
    pub(super) fn new(context: Arc<Context>, infohash: InfoHash) -> Self {
        Self { context, infohash, lookup: None, tasks: Tasks::new() }
    }

    /// The next answer; may be dropped and called again.
    pub(super) fn next(&mut self) -> impl Future<Output = Answered> {
        poll_fn(|cx| self.poll_next(cx))
    }

    fn poll_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Answered> {
        let answered = self.tasks.poll_next(cx);
        match &mut self.lookup {
            Some(lookup) if answered.is_pending() => lookup.poll_recv(cx).map(|found| {
                // A node that is gone has found nothing.
                Answered::Lookup(Box::new(found.unwrap_or_else(|| Found::Done(Outcome::default()))))
            }),
            Some(_) | None => answered,
        }
    }

    /// Gives an answer to the machine.
    pub(super) fn handle(&mut self, now: Instant, machine: &mut Discovery, answered: Answered) {
        match answered {
            Answered::Turn(asked, turn) => {
                if machine.handle_turn(now, asked.request) {
                    self.send(*asked, Some(turn));
                }
            }
            Answered::Announce(request, answer) => {
                let Answer { reply, local } = *answer;
                machine.handle_reply(now, request, reply, local);
            }
            Answered::Lookup(found) => {
                if let Found::Done(_) = *found {
                    self.lookup = None;
                }
                machine.handle_found(now, *found);
            }
            Answered::Resolved(addrs) => machine.handle_peers(Source::Magnet, addrs),
            Answered::Told => {}
        }
    }

    /// Sends an announce, when it is its turn.
    pub(super) fn announce(&mut self, now: Instant, machine: &mut Discovery, asked: Asked) {
        let is_complete = asked.announce.left == 0;
        let turn = self.context.announces.take(is_complete);
        if turn.is_some() || !machine.handle_queued(now, asked.request) {
            return self.send(asked, turn);
        }
        let turns = self.context.announces.clone();
        self.tasks
            .spawn("turn", async move { Answered::Turn(Box::new(asked), turns.wait(is_complete).await) });
    }

    /// Looks up the addresses of a peer's name.
    pub(super) fn resolve_peer(&mut self, name: String) {
        let lookup = tokio::net::lookup_host(name);
        self.tasks.spawn("peer name", async { Answered::Resolved(resolve(lookup).await) });
    }

    /// The findings of the lookup under way are not wanted any more.
    pub(super) fn cancel_lookup(&mut self) {
        self.lookup = None;
    }

    fn send(&mut self, asked: Asked, turn: Option<Turn>) {
        let context = self.context.clone();
        let Asked { request, url, announce } = asked;
        self.tasks.spawn("announce", async move {
            let answer = trackers::announce(&context, &url, announce).await;
            drop(turn);
            Answered::Announce(request, Box::new(answer))
        });
    }

    /// Asks the DHT node.
    pub(super) fn look_up(&mut self, request: DhtRequest) {
        let (sender, findings) = mpsc::channel(FOUND);
        self.lookup = Some(findings);
        // An engine that has ended drops the sender, which ends the lookup.
        self.tell(self.context.dht.clone(), dht::Request::Start(request, sender));
    }

    /// Has the torrent announced on the local network, or not any more.
    pub(super) fn tell_lsd(&mut self, is_on: bool) {
        let request = if is_on { lsd::Request::Add } else { lsd::Request::Remove };
        self.tell(self.context.lsd.clone(), request(self.infohash));
    }

    /// Tells a task something; a queue that is full is waited for elsewhere.
    fn tell<T: Send + 'static>(&mut self, queue: Option<mpsc::Sender<T>>, request: T) {
        let Some(queue) = queue else { return };
        if let Err(mpsc::error::TrySendError::Full(request)) = queue.try_send(request) {
            self.tasks.spawn("queue", async move {
                let _ = queue.send(request).await;
                Answered::Told
            });
        }
    }

    /// Tells the DHT of a node that the torrent names.
    pub(super) fn hint(&mut self, host: String, port: u16) {
        let context = self.context.clone();
        self.tasks.spawn("node name", async move {
            let addrs = resolve(tokio::net::lookup_host((host, port))).await;
            addrs.into_iter().for_each(|addr| context.hint(addr));
            Answered::Told
        });
    }
}

/// The addresses that a lookup gives in time.
async fn resolve<I: Iterator<Item = SocketAddr>>(
    lookup: impl Future<Output = std::io::Result<I>>,
) -> Vec<SocketAddr> {
    match timeout(LOOKUP_TIMEOUT, lookup).await {
        Ok(Ok(addrs)) => addrs.map(compact::canonical).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// What the machine tells people, in the words of the engine's user.
pub(super) fn shown(event: event::Event) -> Event {
    match event {
        event::Event::TrackerAnswered { url, peers } => Event::TrackerOk { url, peers },
        event::Event::TrackerWarning { url, text } => Event::TrackerWarning { url, text },
        event::Event::TrackerFailed { url, error } => Event::TrackerFailed { url, error: error.to_string() },
        event::Event::DhtAnswered { nodes, peers } => Event::DhtAnswered { nodes, peers },
    }
}
