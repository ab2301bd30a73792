//! The task of the UDP sockets: tracker announces of all torrents, the DHT node, the embedded
//! tracker, and refusing uTP.
//!
//! One socket per listening address, all on the peer port. A datagram from a tracker that we asked
//! is the client's; else KRPC, known by its first byte, is the DHT's, and what remains the embedded
//! tracker's, or else, if it opens a uTP connection, is answered that there are none. The task
//! moves datagrams; transactions are `proto`'s. A datagram that a socket does not take at once is
//! dropped, as any router on its way might: nothing here ever waits for the network, and every
//! machine asks again by itself.

use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::task::{Context as TaskContext, Poll, ready};

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;

use crate::datagram::{self, Control, LocalAddr, Received};
use crate::engine::clock::Clock;
use crate::engine::discovery::dht_host::{DhtHost, Event};
use crate::proto::compact;
use crate::proto::rng::Rng;
use crate::proto::time::Instant;
use crate::proto::tracker::service::Service;
use crate::proto::tracker::udp_client::{Output, UdpClient};
use crate::proto::tracker::{Announce, AnnounceReply, TrackerError};
use crate::proto::utp;

/// Longest datagram read: an Ethernet frame's worth and room for loopback; the rest of a longer one
/// is cut.
pub(crate) const DATAGRAM_LEN_MAX: usize = 4096;
/// Most datagrams read at one wake-up before timers and requests have their turn: some milliseconds
/// of work.
const BATCH_MAX: usize = 64;

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
    sockets: Sockets,
    requests: mpsc::Receiver<Request>,
    client: UdpClient<u64>,
    dht: Option<DhtHost>,
    service: Option<Service>,
    utp: utp::Refuser,
    waiting: BTreeMap<u64, oneshot::Sender<Result<AnnounceReply, TrackerError>>>,
    request_count: u64,
}

/// Where a datagram came from, at which socket and local address: answers leave from the address
/// that was asked.
#[derive(Clone, Copy)]
struct Origin {
    socket: usize,
    from: SocketAddr,
    local: Option<LocalAddr>,
}

impl UdpTask {
    /// Ready to run; `embedded_tracker`: answer as a tracker; `dht`: be a node.
    pub(crate) fn new(
        clock: Clock,
        sockets: Vec<UdpSocket>,
        requests: mpsc::Receiver<Request>,
        embedded_tracker: bool,
        dht: Option<DhtHost>,
        mut rng: Rng,
    ) -> Self {
        let client = UdpClient::new(rng.fork("udp client"));
        let service = embedded_tracker.then(|| Service::new(rng.fork("embedded tracker"), clock.now()));
        let utp = utp::Refuser::new(rng.fork("utp"), clock.now());
        let (sockets, waiting) = (Sockets::new(sockets), BTreeMap::new());
        Self { clock, sockets, requests, client, dht, service, utp, waiting, request_count: 0 }
    }

    /// Serves until it is dropped.
    pub(crate) async fn run(mut self) {
        self.sockets.writable().await;
        let mut bytes = [0; DATAGRAM_LEN_MAX];
        let mut answer = Vec::new();
        loop {
            self.drain(None);
            let deadline = self.poll_timeout();
            let timer = self.clock.timer(deadline.unwrap_or_default());
            tokio::select! {
                Some(request) = self.requests.recv() => self.handle_request(request),
                event = next_event(&mut self.dht) => {
                    if let Some(dht) = &mut self.dht {
                        dht.handle_event(self.clock.now(), event);
                    }
                }
                (socket, received) = self.sockets.receive(&mut bytes) => {
                    self.handle_received(socket, received, &bytes, &mut answer);
                    for _ in 1..BATCH_MAX {
                        match self.sockets.try_receive(socket, &mut bytes) {
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                            received => self.handle_received(socket, received, &bytes, &mut answer),
                        }
                    }
                }
                () = sleep_until(timer), if deadline.is_some() => self.handle_timeout(self.clock.now()),
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let service = self.service.as_ref().and_then(Service::poll_timeout);
        let dht = self.dht.as_ref().and_then(DhtHost::poll_timeout);
        self.client.poll_timeout().into_iter().chain(service).chain(dht).min()
    }

    fn handle_request(&mut self, request: Request) {
        let Request { tracker, url_data, announce, reply } = request;
        self.request_count += 1;
        self.waiting.insert(self.request_count, reply);
        self.client.handle_announce(self.clock.now(), self.request_count, tracker, &url_data, announce);
    }

    /// A datagram, or an ICMP message about an earlier one: of that the timers know.
    fn handle_received(
        &mut self,
        socket: usize,
        received: io::Result<Received>,
        bytes: &[u8],
        answer: &mut Vec<u8>,
    ) {
        let Ok(Received { len, from, local }) = received else { return };
        let origin = Origin { socket, from: compact::canonical(from), local };
        self.handle_datagram(origin, &bytes[..len], answer);
        self.drain(Some(origin));
    }

    fn handle_datagram(&mut self, origin: Origin, bytes: &[u8], answer: &mut Vec<u8>) {
        let (now, from) = (self.clock.now(), origin.from);
        let is_taken = self.client.handle_datagram(now, from, bytes)
            || self.dht.as_mut().is_some_and(|dht| dht.handle_datagram(now, from, bytes));
        if is_taken {
            return;
        }
        if let Some(service) = &mut self.service
            && service.handle_datagram(now, from, bytes, answer)
        {
            self.sockets.send(Some(origin), from, answer);
        } else if let Some(reset) = self.utp.handle_datagram(now, from, bytes) {
            self.sockets.send(Some(origin), from, &reset);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now);
        if let Some(dht) = &mut self.dht {
            dht.handle_timeout(now);
        }
        if let Some(service) = &mut self.service {
            service.handle_timeout(now);
        }
    }

    /// Carries out what the machines decided, after a datagram from `origin` if there was one.
    fn drain(&mut self, origin: Option<Origin>) {
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Datagram { to, bytes } => self.sockets.send(origin, to, &bytes),
                Output::Reply { key, reply } => {
                    if let Some(waiting) = self.waiting.remove(&key) {
                        // A torrent that has ended needs no answer.
                        let _ = waiting.send(reply);
                    }
                }
            }
        }
        while let Some((to, bytes)) = self.dht.as_mut().and_then(DhtHost::poll_send) {
            self.sockets.send(origin, to, &bytes);
        }
    }
}

/// What the DHT node waits for; nothing, ever, without one.
async fn next_event(dht: &mut Option<DhtHost>) -> Event {
    match dht {
        Some(dht) => dht.next_event().await,
        None => pending().await,
    }
}

/// UDP sockets that are read as one.
#[derive(Debug)]
pub(crate) struct Sockets {
    sockets: Vec<UdpSocket>,
    /// Of each, whether it is of IPv4.
    v4: Vec<bool>,
    /// Which is read first the next time, so that a flood at one does not silence the others.
    first: usize,
    control: Control,
}

impl Sockets {
    /// All of them.
    pub(crate) fn new(sockets: Vec<UdpSocket>) -> Self {
        let is_v4 = |socket: &UdpSocket| socket.local_addr().is_ok_and(|local| local.is_ipv4());
        Self { v4: sockets.iter().map(is_v4).collect(), sockets, first: 0, control: Control::default() }
    }

    /// Waits until each has been writable once: before, tokio would call it full.
    async fn writable(&self) {
        for socket in &self.sockets {
            if let Err(error) = socket.writable().await {
                tracing::warn!(%error, "a UDP socket is unusable");
            }
        }
    }

    /// The next datagram at any of them, and at which.
    pub(crate) async fn receive(&mut self, bytes: &mut [u8]) -> (usize, io::Result<Received>) {
        let (socket, received) = poll_fn(|task| {
            let count = self.sockets.len();
            for at in (self.first..count).chain(0..self.first) {
                if let Poll::Ready(received) = poll_one(&self.sockets[at], task, bytes, &mut self.control) {
                    return Poll::Ready((at, received));
                }
            }
            Poll::Pending
        })
        .await;
        self.first = (socket + 1) % self.sockets.len();
        (socket, received)
    }

    /// One more datagram at that socket, if it is there already.
    fn try_receive(&mut self, socket: usize, bytes: &mut [u8]) -> io::Result<Received> {
        receive(&self.sockets[socket], bytes, &mut self.control)
    }

    /// Sends a datagram: an answer from the address that was asked, others from the first socket of
    /// their family. One that does not leave counts as lost on the way.
    fn send(&self, origin: Option<Origin>, to: SocketAddr, bytes: &[u8]) {
        let asked = origin.filter(|origin| origin.from == to);
        let of_family = || self.v4.iter().position(|&is_v4| is_v4 == to.is_ipv4());
        let socket = asked.map(|origin| origin.socket).or_else(of_family).and_then(|at| self.sockets.get(at));
        let local = asked.and_then(|origin| origin.local);
        if let Some(socket) = socket
            && let Err(error) = socket.try_io(Interest::WRITABLE, || datagram::send(socket, bytes, to, local))
        {
            tracing::debug!(%to, %error, "datagram not sent");
        }
    }
}

fn receive(socket: &UdpSocket, bytes: &mut [u8], control: &mut Control) -> io::Result<Received> {
    socket.try_io(Interest::READABLE, || datagram::receive(socket, bytes, control))
}

fn poll_one(
    socket: &UdpSocket,
    task: &mut TaskContext<'_>,
    bytes: &mut [u8],
    control: &mut Control,
) -> Poll<io::Result<Received>> {
    loop {
        ready!(socket.poll_recv_ready(task))?;
        match receive(socket, bytes, control) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return Poll::Ready(received),
        }
    }
}
