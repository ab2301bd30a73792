//! Local service discovery on real sockets (BEP 14): one task with a multicast socket a family.
//!
//! A network without multicast, or a port that another program keeps for itself, is no error: then
//! nobody is found there. Interfaces are looked at anew with every announce, so that a network that
//! comes later is joined.

use std::future::pending;
use std::net::{IpAddr, SocketAddr};

use tokio::sync::mpsc;
use tokio::time::{Duration, sleep, sleep_until};

use crate::engine::clock::Clock;
use crate::engine::inputs::Control;
use crate::engine::network::multicast::{GroupSocket, interfaces};
use crate::engine::registry::Registry;
use crate::proto::compact;
use crate::proto::infohash::InfoHash;
use crate::proto::lsd::{Group, Lsd, Output};
use crate::proto::rng::Rng;
use crate::proto::torrent::event::Source;

/// Longest datagram read, bytes; the BEP keeps announces below 1,400, and the rest of a longer one
/// is cut.
const DATAGRAM_LEN_MAX: usize = 2_048;
/// Pause after a socket could not be read.
const READ_BACKOFF: Duration = Duration::from_secs(1);

/// What torrents tell it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// A public torrent runs.
    Add(InfoHash),
    /// It has left.
    Remove(InfoHash),
}

/// The state of the task.
pub(crate) struct LsdTask {
    clock: Clock,
    machine: Lsd,
    requests: mpsc::Receiver<Request>,
    torrents: Registry,
    /// Addresses that we listen on; empty: all.
    listen: Vec<IpAddr>,
    v4: Option<GroupSocket>,
    v6: Option<GroupSocket>,
}

impl LsdTask {
    /// Ready to run, for peers that listen on `port` of `listen`.
    pub(crate) fn new(
        clock: Clock,
        listen: Vec<IpAddr>,
        port: u16,
        requests: mpsc::Receiver<Request>,
        torrents: Registry,
        rng: Rng,
    ) -> Self {
        let machine = Lsd::new(port, rng, clock.now());
        let speaks = |family: fn(&IpAddr) -> bool, group: Group| {
            (listen.is_empty() || listen.iter().any(family)).then_some(group)
        };
        let v4 = speaks(IpAddr::is_ipv4, Group::V4).and_then(bind);
        let v6 = speaks(IpAddr::is_ipv6, Group::V6).and_then(bind);
        let mut task = Self { clock, machine, requests, torrents, listen, v4, v6 };
        task.join();
        task
    }

    /// Listens and announces until it is dropped.
    pub(crate) async fn run(mut self) {
        let (mut bytes4, mut bytes6) = ([0; DATAGRAM_LEN_MAX], [0; DATAGRAM_LEN_MAX]);
        loop {
            self.drain().await;
            let deadline = self.machine.poll_timeout();
            let timer = self.clock.timer(deadline.unwrap_or_default());
            tokio::select! {
                Some(request) = self.requests.recv() => match request {
                    Request::Add(infohash) => self.machine.handle_added(self.clock.now(), infohash),
                    Request::Remove(infohash) => self.machine.handle_removed(infohash),
                },
                (len, from) = receive(self.v4.as_ref(), &mut bytes4) => self.hear(from, &bytes4[..len]),
                (len, from) = receive(self.v6.as_ref(), &mut bytes6) => self.hear(from, &bytes6[..len]),
                () = sleep_until(timer), if deadline.is_some() => self.machine.handle_timeout(self.clock.now()),
            }
        }
    }

    fn hear(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.machine.handle_datagram(self.clock.now(), compact::canonical(from), bytes);
    }

    async fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Announce(group, bytes) => {
                    self.join();
                    let socket = match group {
                        Group::V4 => &self.v4,
                        Group::V6 => &self.v6,
                    };
                    if let Some(socket) = socket {
                        socket.send(&bytes).await;
                    }
                }
                Output::Peer(infohash, addr) => {
                    if let Some(entry) = self.torrents.borrow().get(&infohash) {
                        // A torrent that is busy hears of it again in five minutes.
                        let _ = entry.control.try_send(Control::Peers(Source::Lsd, vec![addr]));
                    }
                }
            }
        }
    }

    /// Joins the groups on every interface that there is now.
    fn join(&mut self) {
        let interfaces = interfaces(&self.listen);
        for socket in self.v4.iter_mut().chain(&mut self.v6) {
            socket.join(&interfaces);
        }
    }
}

fn bind(group: Group) -> Option<GroupSocket> {
    let bound = GroupSocket::bind(group.addr());
    bound.inspect_err(|error| tracing::info!(?group, %error, "no peers from the local network")).ok()
}

/// The next datagram; nothing, ever, without a socket.
async fn receive(socket: Option<&GroupSocket>, bytes: &mut [u8]) -> (usize, SocketAddr) {
    let Some(socket) = socket else { return pending().await };
    loop {
        match socket.receive(bytes).await {
            Ok(received) => return received,
            Err(error) => {
                tracing::debug!(%error, "nothing heard from the local network");
                sleep(READ_BACKOFF).await;
            }
        }
    }
}
