//! What hosts the DHT machine on the task of the UDP sockets: requests by their channels, bootstrap
//! names by lookups, good nodes by a file. It decides nothing and touches no socket.
//!
//! Invariant: whoever waits for a request hears of its end, however slowly it reads: the place for
//! that is reserved from the start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, timeout};

use crate::engine::api::config::DhtConfig;
use crate::engine::discovery::dht::{DhtRequest, Found, Request};
use crate::engine::task;
use crate::engine::task::Tasks;
use crate::proto::compact;
use crate::proto::dht::Dht;
use crate::proto::dht::event::{Config, Output, RequestId};
use crate::proto::dht::node_id::{Node, NodeId};
use crate::proto::dht::saved::{STATE_LEN_MAX, State, StateError};
use crate::proto::rng::Rng;
use crate::proto::time::Instant;
use crate::storage::state_file;

/// Time for looking up one bootstrap name; then it is as if it had no address.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Most addresses of one bootstrap name that are asked: a name of thousands would make us a flood.
const NAME_ADDR_MAX: usize = 8;
/// Good nodes are written so often, and at the end: what a crash forgets is found again in seconds.
const SAVE_INTERVAL: Duration = Duration::from_secs(600);
/// How soon a request ends for which nobody waits any more.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Why the state of the last time is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file cannot be read as one.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What a task of the host brings.
pub(crate) enum Ended {
    /// The state of the last time, and the claim on its ids.
    Loaded(Result<State, LoadError>, Option<File>),
    /// The addresses of a bootstrap name.
    LookedUp(Vec<SocketAddr>),
    /// The file is written, or is not.
    Saved,
}

/// What the host waits for, beside datagrams and time.
pub(crate) enum Event {
    /// A task or a user wants something of the node.
    Request(Request),
    /// A task of its own has ended.
    Ended(Ended),
}

/// Who waits for a request.
struct Waiting {
    found: mpsc::Sender<Found>,
    /// The place of the last finding.
    end: OwnedPermit<Found>,
}

/// What is kept from one start to the next.
#[derive(Default)]
struct Kept {
    /// The state of the last time: its nodes until this run has lasted long enough to know better,
    /// its ids for the process that has the claim.
    earlier: State,
    /// Held by the one process whose node has the ids in the file.
    claim: Option<File>,
    is_writing: bool,
    /// Written next.
    next: Option<State>,
    /// Dropped when all is written.
    waiting: Vec<oneshot::Sender<()>>,
}

/// A DHT node without its sockets.
pub(crate) struct DhtHost {
    machine: Dht,
    config: DhtConfig,
    /// Families that we speak: IPv4, IPv6.
    families: [bool; 2],
    requests: mpsc::Receiver<Request>,
    waiting: BTreeMap<RequestId, Waiting>,
    request_count: u64,
    sweep_at: Option<Instant>,
    save_at: Instant,
    kept: Kept,
    /// Whether the nodes of the last time are known; before, nothing is asked of the machine.
    is_ready: bool,
    /// Bootstrap names that are being looked up.
    lookup_count: usize,
    tasks: Tasks<Ended>,
    rng: Rng,
}

impl DhtHost {
    /// A node on `port` of one socket or two; `families`: whether there is one for IPv4 and for
    /// IPv6.
    pub(crate) fn new(
        config: DhtConfig,
        families: [bool; 2],
        port: u16,
        requests: mpsc::Receiver<Request>,
        mut rng: Rng,
        now: Instant,
    ) -> Self {
        let [v4, v6] = families;
        let machine_config = Config { v4, v6, port, read_only: config.read_only, external: None };
        let machine = Dht::new(machine_config, rng.fork("node"), now);
        let mut tasks = Tasks::new();
        let path = config.state_file.clone();
        tasks.spawn("load nodes", async move {
            let Some(path) = path else { return Ended::Loaded(Ok(State::default()), None) };
            let claimed = task::blocking(move || (state_file::claim(&path), load(&path))).await;
            let (claim, loaded) = claimed.unwrap_or_else(|| (None, Ok(State::default())));
            Ended::Loaded(loaded, claim)
        });
        Self {
            machine,
            config,
            families,
            requests,
            waiting: BTreeMap::new(),
            request_count: 0,
            sweep_at: None,
            save_at: now + SAVE_INTERVAL,
            kept: Kept::default(),
            is_ready: false,
            lookup_count: 0,
            tasks,
            rng,
        }
    }

    /// The next thing to handle. May be dropped and called again.
    pub(crate) async fn next_event(&mut self) -> Event {
        tokio::select! {
            Some(request) = self.requests.recv(), if self.is_ready => Event::Request(request),
            ended = self.tasks.next() => Event::Ended(ended),
        }
    }

    /// Handles it; then [`DhtHost::poll_send`].
    pub(crate) fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Request(Request::Start(request, found)) => self.begin(now, request, found),
            Event::Request(Request::Hint(addr)) => self.machine.handle_hint(now, compact::canonical(addr)),
            Event::Request(Request::Snapshot(reply)) => {
                // Who does not wait any more needs no figures.
                let _ = reply.send(self.machine.snapshot(now));
            }
            Event::Request(Request::Save(done)) => self.save(Some(done)),
            Event::Ended(Ended::Loaded(loaded, claim)) => self.loaded(now, loaded, claim),
            Event::Ended(Ended::LookedUp(addrs)) => self.looked_up(now, addrs),
            Event::Ended(Ended::Saved) => {
                self.kept.is_writing = false;
                self.write_next();
                if !self.kept.is_writing {
                    self.kept.waiting.clear();
                }
            }
        }
    }

    /// Whether the datagram was for the node; then [`DhtHost::poll_send`].
    pub(crate) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> bool {
        self.is_ready && self.machine.handle_datagram(now, from, bytes)
    }

    /// Time passed; then [`DhtHost::poll_send`].
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if !self.is_ready {
            return;
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep(now);
        }
        if self.save_at <= now {
            self.save_at = now + SAVE_INTERVAL;
            self.kept.earlier.nodes.clear();
            self.save(None);
        }
        self.machine.handle_timeout(now);
    }

    /// When to call [`DhtHost::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let machine = self.machine.poll_timeout();
        let own = self.sweep_at.into_iter().chain([self.save_at]);
        if self.is_ready { machine.into_iter().chain(own).min() } else { None }
    }

    /// The next datagram to send; findings are handed out on the way.
    pub(crate) fn poll_send(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { to, bytes } => return Some((to, bytes)),
                Output::Found { request, found } => self.find(request, found),
                Output::Bootstrap => self.look_up(),
                Output::External(addr) => tracing::info!(%addr, "others see us there"),
            }
        }
        None
    }

    fn begin(&mut self, now: Instant, request: DhtRequest, found: mpsc::Sender<Found>) {
        let end = match found.clone().try_reserve_owned() {
            Ok(end) => end,
            // Nobody waits for it.
            Err(TrySendError::Closed(_)) => return,
            Err(TrySendError::Full(_)) => {
                tracing::warn!("a DHT request came with a channel that is full, and is dropped");
                return;
            }
        };
        self.request_count += 1;
        let id = RequestId(self.request_count);
        self.waiting.insert(id, Waiting { found, end });
        self.sweep_at.get_or_insert(now + SWEEP_INTERVAL);
        self.machine.handle_request(now, id, request);
    }

    /// A finding for whoever waits; one who reads too slowly misses all but the end.
    fn find(&mut self, request: RequestId, found: Found) {
        match found {
            Found::Peers { .. } | Found::Item(_) => {
                if let Some(waiting) = self.waiting.get(&request) {
                    // Closed: the next sweep cancels.
                    let _ = waiting.found.try_send(found);
                }
            }
            Found::Done(_) => {
                if let Some(waiting) = self.waiting.remove(&request) {
                    waiting.end.send(found);
                }
            }
        }
    }

    /// Cancels requests for which nobody waits any more.
    fn sweep(&mut self, now: Instant) {
        let Self { waiting, machine, .. } = self;
        waiting.retain(|&id, waiting| {
            let is_waited_for = !waiting.found.is_closed();
            if !is_waited_for {
                machine.handle_cancel(id);
            }
            is_waited_for
        });
        self.sweep_at = (!self.waiting.is_empty()).then_some(now + SWEEP_INTERVAL);
    }

    fn loaded(&mut self, now: Instant, loaded: Result<State, LoadError>, claim: Option<File>) {
        let (state, may_replace) = match loaded {
            Ok(state) => (state, true),
            Err(error) => (State::default(), self.not_loaded(&error)),
        };
        self.is_ready = true;
        self.kept.claim = claim;
        if self.kept.claim.is_some() {
            self.machine.handle_ids(now, state.ids);
        }
        self.machine.handle_saved(now, &state.nodes);
        self.machine.handle_timeout(now);
        self.kept.earlier = state;
        if may_replace && self.kept.claim.is_some() && self.ids() != self.kept.earlier.ids {
            // At once, so that a run that ends before it finds a node keeps its ids, too.
            self.write(self.kept.earlier.nodes.clone());
        }
    }

    /// The state of the last time could not be loaded; whether a state without nodes may replace
    /// it.
    fn not_loaded(&mut self, error: &LoadError) -> bool {
        let path = self.config.state_file.as_ref().map(|path| path.display().to_string());
        tracing::warn!(path, %error, "no DHT nodes of the last time");
        match error {
            LoadError::State(StateError::Damaged) => true,
            LoadError::State(StateError::Version) => {
                // The file is a later program's.
                self.config.state_file = None;
                true
            }
            // Its nodes may be readable at the next start: only other nodes replace them, not an
            // empty list.
            LoadError::Io(_) => false,
        }
    }

    /// The ids that belong into the file.
    fn ids(&self) -> [Option<NodeId>; 2] {
        self.kept.earlier.with_ids(self.machine.ids())
    }

    /// Looks up all bootstrap names, unless that is under way.
    fn look_up(&mut self) {
        if self.lookup_count > 0 {
            return;
        }
        for name in &self.config.bootstrap {
            self.lookup_count += 1;
            self.tasks.spawn("bootstrap name", look_up(name.clone()));
        }
    }

    fn looked_up(&mut self, now: Instant, addrs: Vec<SocketAddr>) {
        self.lookup_count -= 1;
        let [v4, v6] = self.families;
        let addrs = addrs.into_iter().map(compact::canonical);
        let is_spoken = |addr: &SocketAddr| if addr.is_ipv4() { v4 } else { v6 };
        for addr in addrs.filter(is_spoken).take(NAME_ADDR_MAX) {
            self.machine.handle_hint(now, addr);
        }
    }

    /// Writes the good nodes, if there are any; `done` is dropped when all is written.
    fn save(&mut self, done: Option<oneshot::Sender<()>>) {
        let nodes = self.kept.earlier.with_good(self.machine.good_nodes());
        if !nodes.is_empty() {
            self.write(nodes);
        }
        if self.kept.is_writing {
            self.kept.waiting.extend(done);
        }
    }

    fn write(&mut self, nodes: Vec<Node>) {
        self.kept.next = Some(State { ids: self.ids(), nodes });
        self.write_next();
    }

    /// Writes what is next, unless an earlier state is being written: the last one stays.
    fn write_next(&mut self) {
        if self.kept.is_writing {
            return;
        }
        let next = self.kept.next.take();
        let Some((path, state)) = self.config.state_file.clone().zip(next) else { return };
        self.kept.is_writing = true;
        let (is_owner, nonce) = (self.kept.claim.is_some(), self.rng.bits());
        self.tasks.spawn("save nodes", async move {
            let count = state.nodes.len();
            let shown = path.display().to_string();
            let save = move || {
                // Those of another process's node stay.
                let ids = if is_owner { state.ids } else { load(&path).map_or([None; 2], |there| there.ids) };
                state_file::replace(&path, &State { ids, ..state }.encode(), nonce)
            };
            match task::blocking(save).await {
                Some(Ok(())) => tracing::debug!(path = shown, count, "DHT nodes kept"),
                Some(Err(error)) => tracing::warn!(path = shown, %error, "DHT nodes not kept"),
                None => {}
            }
            Ended::Saved
        });
    }
}

/// What is in the file; nothing if there is no file.
fn load(path: &Path) -> Result<State, LoadError> {
    match state_file::read(path, STATE_LEN_MAX)? {
        Some(bytes) => Ok(State::decode(&bytes)?),
        None => Ok(State::default()),
    }
}

/// The addresses of a bootstrap name; none if it has none, or not in time.
async fn look_up(name: String) -> Ended {
    let found = timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(&name)).await;
    let addrs = match found.map_err(std::io::Error::from).flatten() {
        Ok(addrs) => addrs.collect(),
        Err(error) => {
            tracing::debug!(name, %error, "bootstrap name not found");
            Vec::new()
        }
    };
    Ended::LookedUp(addrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host that has read the file of nodes `path`, or failed to.
    async fn started(path: &Path) -> DhtHost {
        let config = DhtConfig { state_file: Some(path.to_owned()), ..DhtConfig::default() };
        let (_sender, requests) = mpsc::channel(1);
        let now = Instant::default();
        let mut host = DhtHost::new(config, [true; 2], 1, requests, Rng::from_number(1), now);
        let event = host.tasks.next().await;
        host.handle_event(now, Event::Ended(event));
        host
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_not_replaced_before_there_are_nodes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dht-nodes");
        assert!(started(&path).await.kept.is_writing, "the ids are kept at once");
        std::fs::write(&path, "damaged").unwrap();
        assert!(started(&path).await.kept.is_writing);
        std::fs::remove_file(&path).unwrap();
        // Reading a link to itself is an error of the system.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let host = started(&path).await;
        assert!(host.kept.claim.is_some() && host.config.state_file.is_some());
        assert!(!host.kept.is_writing);
    }
}
