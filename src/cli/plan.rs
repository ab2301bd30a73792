//! What is meant: the options of a command together, resolved into what the engine takes.

use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{BOOTSTRAP_NONE, BootstrapArgs, LeaveArgs, SwarmArgs};
use super::failure::Failure;
use super::report::Report;
use super::select::{self, Selector};
use super::text::{printable, without_number};
use crate::engine::{
    self, AddTorrent, Config, DhtConfig, Engine, EngineError, Info, Limits, Magnet, Selection, TorrentSource,
};

/// Where peers look first when no port was chosen.
pub(crate) const PORT_USUAL: u16 = 6_881;

/// Taking part in a swarm, ready to start.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// For the engine.
    pub(crate) config: Config,
    /// Whether the user named the port, so that no other will do.
    port_chosen: bool,
    /// Peers to ask first.
    peers: Vec<SocketAddr>,
    /// Trackers that the user named.
    pub(crate) trackers: Vec<String>,
    /// When to leave.
    leave: LeaveArgs,
    report: Report,
}

impl Plan {
    /// Resolves names; one that cannot be resolved is told and left out.
    pub(crate) fn new(swarm: &SwarmArgs, leave: LeaveArgs, report: &Report) -> Self {
        let defaults = Limits::default();
        let config = Config {
            port: swarm.port.unwrap_or(PORT_USUAL),
            limits: Limits {
                torrent_connection_max: swarm.max_peers.map_or(defaults.torrent_connection_max, usize::from),
                connection_max: defaults.connection_max.max(swarm.max_peers.map_or(0, usize::from)),
                upload_rate_max: swarm.up_limit.and_then(|limit| limit.0),
                download_rate_max: swarm.down_limit.and_then(|limit| limit.0),
                ..defaults
            },
            swarming_interval: swarm.swarming_interval,
            dht: (!swarm.discovery.no_dht).then(|| dht(&swarm.discovery.bootstrap)),
            pex: !swarm.discovery.no_pex,
            lsd: !swarm.discovery.no_lsd,
            resume_dir: resume_dir(),
            metadata_dir: metadata_dir(),
            ..Config::default()
        };
        let mut peers = Vec::new();
        for peer in &swarm.peers {
            match peer.to_socket_addrs() {
                Ok(addresses) => peers.extend(addresses),
                Err(_) => report.warn(&format!("no address known for peer {}", printable(peer))),
            }
        }
        let (port_chosen, trackers, report) = (swarm.port.is_some(), swarm.trackers.clone(), report.clone());
        Self { config, port_chosen, peers, trackers, leave, report }
    }

    /// Listens; without a chosen port, on the usual one or else on any.
    pub(crate) async fn start(&self) -> Result<Engine, Failure> {
        let engine = start(&self.config, self.port_chosen).await?;
        if let Some(error) = engine.journals_error() {
            let error = printable(&without_number(&error.to_string()));
            self.report.warn(&format!(
                "{error}; going on without journals: the next start has to check what is there"
            ));
        }
        Ok(engine)
    }

    /// The same for a torrent whose content is not wanted.
    pub(crate) fn without_journals(&self) -> Self {
        let config = Config { resume_dir: None, ..self.config.clone() };
        Self { config, ..self.clone() }
    }

    /// Whether seeding ends by itself, by ratio or time.
    pub(crate) fn leaves(&self) -> bool {
        self.leave.ratio.is_some() || self.leave.seed_time.is_some()
    }

    /// Whether there is any way to find a peer by ourselves, of a torrent that names trackers or
    /// peers or does not.
    pub(crate) fn finds_peers(&self, is_private: bool, names_anyone: bool) -> bool {
        let finds_without_tracker = self.config.dht.is_some() || self.config.lsd;
        (!is_private && finds_without_tracker)
            || !self.peers.is_empty()
            || !self.trackers.is_empty()
            || names_anyone
    }

    /// Whether the web seeds that a torrent names are the only sources named, by it or by the user.
    pub(crate) fn relies_on_web_seeds(&self, source: &TorrentSource) -> bool {
        let is_named = source.names_anyone() || !self.peers.is_empty() || !self.trackers.is_empty();
        !source.web_seeds().is_empty() && !is_named
    }

    /// The torrent for the engine, with all files wanted, or those that its link names.
    pub(crate) fn torrent(&self, source: TorrentSource, dir: &Path) -> AddTorrent {
        let dir = dir.to_owned();
        let torrent = match source {
            TorrentSource::Metainfo(metainfo) => AddTorrent::new(metainfo, dir),
            TorrentSource::Magnet(magnet) => AddTorrent::magnet(magnet, dir),
        };
        AddTorrent {
            peers: self.peers.clone(),
            trackers: self.trackers.clone(),
            ratio_max: self.leave.ratio,
            seed_time_max: self.leave.seed_time,
            ..torrent
        }
    }
}

/// Listens on the port of `config`; if that is taken and was not chosen, on any.
pub(crate) async fn start(config: &Config, port_chosen: bool) -> Result<Engine, Failure> {
    match Engine::start(config.clone()).await {
        Err(EngineError::PortTaken(_)) if !port_chosen => {
            Ok(Engine::start(Config { port: 0, ..config.clone() }).await?)
        }
        started => Ok(started?),
    }
}

/// Taking part in the DHT: the public nodes first, or those that the user named instead.
pub(crate) fn dht(args: &BootstrapArgs) -> DhtConfig {
    let defaults =
        DhtConfig { state_file: state_dir().map(|dir| dir.join("dht-nodes")), ..DhtConfig::default() };
    if args.dht_bootstrap.is_empty() {
        return defaults;
    }
    let named = args.dht_bootstrap.iter().filter(|name| *name != BOOTSTRAP_NONE);
    DhtConfig { bootstrap: named.cloned().collect(), ..defaults }
}

/// Where metadata of magnet links is kept.
fn metadata_dir() -> Option<PathBuf> {
    state_dir().map(|dir| dir.join("metadata"))
}

/// The metadata that an earlier run has kept of what `magnet` names.
pub(crate) fn kept(magnet: &Magnet) -> Option<Info> {
    engine::kept(&metadata_dir()?, magnet.infohash?)
}

/// The folder of journals.
pub(crate) fn resume_dir() -> Option<PathBuf> {
    state_dir().map(|dir| dir.join("resume"))
}

/// The folder for what is kept from one start to the next, by the XDG rules; None: there is no
/// home.
fn state_dir() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    base.map(|base| base.join("sprat"))
}

/// Which files are wanted, once they are known.
pub(crate) fn selection(selectors: &[Selector]) -> Selection {
    if selectors.is_empty() {
        return Selection::All;
    }
    let selectors = selectors.to_vec();
    Selection::Choose(Arc::new(move |info| selected(info, &selectors)))
}

fn selected(info: &Info, selectors: &[Selector]) -> Result<Vec<bool>, String> {
    select::select(&info.files, selectors).map_err(|selector| {
        let hint = if matches!(selector, Selector::Numbers(..)) {
            "numbers them; a name of digits is taken by --select-name"
        } else {
            "lists them"
        };
        format!("{selector} fits no file of this torrent; `sprat show` {hint}")
    })
}

/// Refuses a choice that fits no file.
pub(crate) fn require_selected(info: &Info, selectors: &[Selector]) -> Result<(), Failure> {
    if selectors.is_empty() {
        return Ok(());
    }
    selected(info, selectors).map(|_| ()).map_err(Failure::Usage)
}

/// Refuses a folder that cannot be used; one that is missing is made when it is known what goes
/// into it.
pub(crate) fn require_place(dir: &Path) -> Result<(), Failure> {
    let refused = |error: Error| Failure::io(dir, &error, "; choose a folder that you may write to with -d");
    let dir = std::path::absolute(dir).map_err(refused)?;
    match dir.ancestors().find(|place| place.symlink_metadata().is_ok()) {
        Some(place) if !place.is_dir() => Err(refused(Error::from(ErrorKind::NotADirectory))),
        Some(_) | None => Ok(()),
    }
}
