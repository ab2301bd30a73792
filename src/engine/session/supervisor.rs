//! The task that owns the torrents of an engine: adds them, shares the session's budgets, ends
//! them.
//!
//! It is the only writer of the registry that the listeners read. Torrents tell it their demand;
//! leases go back by `lease`, where only the latest counts, so neither side ever waits for the
//! other. Folders of torrents are opened by a thread that may wait for them, those that are added
//! together one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, sleep_until, timeout};

use crate::engine::api::handle::TorrentHandle;
use crate::engine::context::Context;
use crate::engine::inputs::Control;
use crate::engine::registry::Entry;
use crate::engine::session::input::{Input, Reply};
use crate::engine::session::lease;
use crate::engine::session::lease::Lessor;
use crate::engine::task;
use crate::engine::task::Tasks;
use crate::engine::torrent;
use crate::engine::torrent::{MetadataMemory, Opened, Spec};
use crate::engine::{AddTorrent, EngineError};
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::rng::Rng;
use crate::proto::session::{Output, Session};

/// What came of opening those that were added together; None: the runtime is shutting down.
type Openings = Option<Vec<Result<Opened, EngineError>>>;

/// The state of the task.
pub(crate) struct Supervisor {
    context: Arc<Context>,
    inputs: mpsc::Receiver<Input>,
    registry: watch::Sender<Arc<BTreeMap<InfoHash, Entry>>>,
    session: Session,
    leases: BTreeMap<InfoHash, Lessor>,
    torrents: Tasks<InfoHash>,
    opening: Tasks<(Openings, Reply)>,
    memory: MetadataMemory,
    rng: Rng,
}

impl Supervisor {
    /// No torrents yet.
    pub(crate) fn new(
        context: Arc<Context>,
        inputs: mpsc::Receiver<Input>,
        registry: watch::Sender<Arc<BTreeMap<InfoHash, Entry>>>,
        rng: Rng,
    ) -> Self {
        let session = Session::new(context.config.limits);
        let memory = MetadataMemory::new();
        Self {
            context,
            inputs,
            registry,
            session,
            leases: BTreeMap::new(),
            torrents: Tasks::new(),
            opening: Tasks::new(),
            memory,
            rng,
        }
    }

    /// Works until the engine is gone.
    pub(crate) async fn run(mut self) {
        let clock = self.context.clock;
        loop {
            self.drain();
            let deadline = self.session.poll_timeout();
            tokio::select! {
                input = self.inputs.recv() => match input {
                    Some(Input::Add(torrents, reply)) => self.open(torrents, reply),
                    Some(Input::Demand(infohash, demand)) => {
                        self.session.handle_demand(clock.now(), infohash, demand);
                    }
                    Some(Input::Private(infohash)) => self.register(|torrents| {
                        if let Some(entry) = torrents.get_mut(&infohash) {
                            entry.dht = false;
                        }
                    }),
                    Some(Input::Shutdown(grace, _reply)) => return self.shutdown(grace).await,
                    None => return,
                },
                infohash = self.torrents.next() => self.remove(infohash),
                (opened, reply) = self.opening.next() => {
                    if let Some(opened) = opened {
                        let added = opened.into_iter().map(|opened| self.add(opened?)).collect();
                        // A caller who does not wait any more has dropped its handles, not the
                        // torrents.
                        let _ = reply.send(added);
                    }
                }
                () = sleep_until(clock.timer(deadline.unwrap_or_default())), if deadline.is_some() => {
                    self.session.handle_timeout(clock.now());
                }
            }
        }
    }

    /// Has a thread look at the torrents' folders, which may be on a disk that stands still: nobody
    /// else waits for it.
    fn open(&mut self, torrents: Vec<AddTorrent>, reply: Reply) {
        let is_there = |torrent: &AddTorrent| {
            torrent.source.infohash().is_some_and(|infohash| self.leases.contains_key(&infohash))
        };
        let torrents: Vec<_> = torrents
            .into_iter()
            .map(|torrent| if is_there(&torrent) { None } else { Some(torrent) })
            .collect();
        let (context, memory) = (self.context.clone(), self.memory.clone());
        let open = move |torrent: Option<AddTorrent>| {
            torrent::open(&context, &memory, torrent.ok_or(EngineError::Duplicate)?)
        };
        self.opening.spawn("opening", async move {
            (task::blocking(move || torrents.into_iter().map(open).collect()).await, reply)
        });
    }

    fn add(&mut self, opened: Opened) -> Result<TorrentHandle, EngineError> {
        let infohash = opened.infohash;
        // Another one may have been quicker.
        if self.leases.contains_key(&infohash) {
            return Err(EngineError::Duplicate);
        }
        let (lessor, lease) = lease::channel();
        let peer_id = PeerId::generate(&mut self.rng);
        let dht = self.context.dht.is_some() && !opened.is_private;
        let rng = self.rng.fork("torrent");
        let spec = Spec { opened, peer_id, lease, rng };
        let (handle, control, life) = torrent::prepare(self.context.clone(), spec);
        self.torrents.spawn("torrent", life);
        self.leases.insert(infohash, lessor);
        self.register(|torrents| {
            torrents.insert(infohash, Entry { peer_id, dht, control });
        });
        self.session.handle_added(self.context.clock.now(), infohash);
        Ok(handle)
    }

    fn remove(&mut self, infohash: InfoHash) {
        self.leases.remove(&infohash);
        self.register(|torrents| {
            torrents.remove(&infohash);
        });
        self.session.handle_removed(self.context.clock.now(), infohash);
    }

    fn register(&self, change: impl FnOnce(&mut BTreeMap<InfoHash, Entry>)) {
        self.registry.send_modify(|torrents| change(Arc::make_mut(torrents)));
    }

    fn drain(&mut self) {
        while let Some(Output::Lease(infohash, lease)) = self.session.poll_output() {
            if let Some(lessor) = self.leases.get(&infohash) {
                lessor.lease(lease);
            }
        }
    }

    /// Ends all torrents at once and waits for them, not longer than `grace`.
    async fn shutdown(mut self, grace: Duration) {
        let torrents = self.registry.borrow().clone();
        let mut farewells = Tasks::new();
        for entry in torrents.values().cloned() {
            farewells.spawn("farewell", async move {
                let (sender, receiver) = oneshot::channel();
                if entry.control.send(Control::Stop(grace, sender)).await.is_ok() {
                    // The torrent drops its end when it is done.
                    let _ = receiver.await;
                }
            });
        }
        let all = async {
            while self.torrents.len() > 0 {
                self.torrents.next().await;
            }
        };
        if timeout(grace, all).await.is_err() {
            tracing::warn!("some torrents did not stop in time");
        }
    }
}
