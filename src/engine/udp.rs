//! The task of the UDP sockets: tracker announces of all torrents, and the embedded tracker.
//!
//! One socket per listening address, all on the peer port. A datagram from a tracker that we asked is the
//! client's, any other the embedded tracker's. It moves datagrams; transactions are `proto`'s.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context as TaskContext, Poll};

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;

use super::clock::Clock;
use crate::proto::compact;
use crate::proto::rng::Rng;
use crate::proto::time::Instant;
use crate::proto::tracker::service::Service;
use crate::proto::tracker::udp_client::{Output, UdpClient};
use crate::proto::tracker::{Announce, AnnounceReply, TrackerError};

/// Longest datagram read: an Ethernet frame's worth and room for loopback; the rest of a longer one is cut.
const DATAGRAM_LEN_MAX: usize = 4096;

/// An announce by UDP.
#[derive(Debug)]
pub(crate) struct Request {
    /// The tracker.
    pub(crate) tracker: SocketAddr,
    /// Path and query of its URL (BEP 41).
    pub(crate) url_data: String,
    /// What to say.
    pub(crate) announce: Announce,
    /// Where the answer goes.
    pub(crate) reply: oneshot::Sender<Result<AnnounceReply, TrackerError>>,
}

/// The state of the task.
pub(crate) struct UdpTask {
    clock: Clock,
    sockets: Vec<UdpSocket>,
    requests: mpsc::Receiver<Request>,
    client: UdpClient<u64>,
    service: Option<Service>,
    waiting: BTreeMap<u64, oneshot::Sender<Result<AnnounceReply, TrackerError>>>,
    request_count: u64,
}

impl UdpTask {
    /// Ready to run; `embedded_tracker`: answer as a tracker.
    pub(crate) fn new(
        clock: Clock,
        sockets: Vec<UdpSocket>,
        requests: mpsc::Receiver<Request>,
        embedded_tracker: bool,
        mut rng: Rng,
    ) -> Self {
        let client = UdpClient::new(rng.fork("udp client"));
        let service = embedded_tracker.then(|| Service::new(rng.fork("embedded tracker"), clock.now()));
        Self { clock, sockets, requests, client, service, waiting: BTreeMap::new(), request_count: 0 }
    }

    /// Serves until the engine is gone.
    pub(crate) async fn run(mut self) {
        let mut bytes = [0; DATAGRAM_LEN_MAX];
        let mut answer = Vec::new();
        loop {
            self.drain().await;
            let service_timeout = self.service.as_ref().and_then(Service::poll_timeout);
            let deadline = self.client.poll_timeout().into_iter().chain(service_timeout).min();
            let timer = self.clock.timer(deadline.unwrap_or_default());
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.handle_request(request),
                    None => return,
                },
                (socket, received) = receive(&self.sockets, &mut bytes) => {
                    // An error here is an ICMP message about an earlier datagram: the client's timer knows.
                    if let Ok((len, from)) = received {
                        let to = self.handle_datagram(from, &bytes[..len], &mut answer).then_some(from);
                        self.send(socket, &answer, to).await;
                    }
                }
                () = sleep_until(timer), if deadline.is_some() => self.handle_timeout(self.clock.now()),
            }
        }
    }

    fn handle_request(&mut self, request: Request) {
        let Request { tracker, url_data, announce, reply } = request;
        self.request_count += 1;
        self.waiting.insert(self.request_count, reply);
        self.client.handle_announce(self.clock.now(), self.request_count, tracker, &url_data, announce);
    }

    /// Whether `answer` is to be sent back.
    fn handle_datagram(&mut self, from: SocketAddr, bytes: &[u8], answer: &mut Vec<u8>) -> bool {
        let now = self.clock.now();
        let from = compact::canonical(from);
        if self.client.handle_datagram(now, from, bytes) {
            return false;
        }
        self.service.as_mut().is_some_and(|service| service.handle_datagram(now, from, bytes, answer))
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now);
        if let Some(service) = &mut self.service {
            service.handle_timeout(now);
        }
    }

    async fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Datagram { to, bytes } => {
                    let family = |socket: &UdpSocket| {
                        socket.local_addr().is_ok_and(|local| local.is_ipv4() == to.is_ipv4())
                    };
                    let socket = self.sockets.iter().position(family);
                    self.send(socket.unwrap_or(0), &bytes, Some(to)).await;
                }
                Output::Reply { key, reply } => {
                    if let Some(waiting) = self.waiting.remove(&key) {
                        // A torrent that has ended needs no answer.
                        let _ = waiting.send(reply);
                    }
                }
            }
        }
    }

    /// Sends a datagram; one that does not leave counts as lost on the way.
    async fn send(&self, socket: usize, bytes: &[u8], to: Option<SocketAddr>) {
        if let (Some(socket), Some(to)) = (self.sockets.get(socket), to)
            && let Err(error) = socket.send_to(bytes, to).await
        {
            tracing::debug!(%to, %error, "datagram not sent");
        }
    }
}

/// The next datagram at any of the sockets, and at which.
async fn receive(sockets: &[UdpSocket], bytes: &mut [u8]) -> (usize, io::Result<(usize, SocketAddr)>) {
    poll_fn(|task| {
        let ready = sockets.iter().enumerate().map(|(at, socket)| (at, poll_one(socket, task, bytes)));
        for (at, polled) in ready {
            if let Poll::Ready(received) = polled {
                return Poll::Ready((at, received));
            }
        }
        Poll::Pending
    })
    .await
}

fn poll_one(
    socket: &UdpSocket,
    task: &mut TaskContext<'_>,
    bytes: &mut [u8],
) -> Poll<io::Result<(usize, SocketAddr)>> {
    let mut buffer = ReadBuf::new(bytes);
    socket.poll_recv_from(task, &mut buffer).map_ok(|from| (buffer.filled().len(), from))
}
