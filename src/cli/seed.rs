//! `sprat seed`: offer a file or folder, the content of a torrent, or of many.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;

use super::args::{SeedArgs, TrackerHost};
use super::clock;
use super::failure::Failure;
use super::interrupt::{Interrupts, Signal};
use super::make;
use super::plan::Plan;
use super::report::Report;
use super::runtime;
use super::size::show_len;
use super::source::Source;
use super::swarm::{End, Follower, Until};
use super::text::printable;
use super::{describe, out_file, overlap, presence, seed_many};
use crate::engine::metainfo::create::Draft;
use crate::engine::{
    AddTorrent, Engine, Existing, Magnet, Metainfo, Purpose, TorrentHandle, TorrentSource, address,
};

/// What the argument turned out to be.
enum Offer {
    /// Content, hashed just now, with its folder and when hashing began.
    Content(Box<Metainfo>, PathBuf, SystemTime),
    /// A torrent with its content elsewhere.
    Torrent(Source),
    /// Many of them.
    Many(Vec<PathBuf>),
}

/// Runs until told to stop, or until ratio or time is reached.
pub(crate) fn run(args: &SeedArgs, report: &Report) -> Result<(), Failure> {
    let report = &out_file::report(args.output.as_deref(), report)?;
    let tracker_host = args.with_tracker.map(tracker_host);
    let offer = offer(args, report)?;
    let mut plan = Plan::new(&args.swarm, args.leave, report);
    plan.config.embedded_tracker = tracker_host.is_some();
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    runtime::block_on(async {
        let mut interrupts = Interrupts::catch()?;
        let (metainfo, dir, content, hashed_at) = match offer {
            Offer::Many(paths) => {
                return seed_many::seed(paths, &dir, args, &plan, report, &mut interrupts).await;
            }
            Offer::Content(metainfo, dir, hashed_at) => {
                let content = dir.join(&metainfo.info.name);
                (Arc::from(metainfo), dir, Some(content), Some(hashed_at))
            }
            Offer::Torrent(source) => {
                let source = tokio::select! {
                    signal = interrupts.next() => return Err(Failure::Interrupted(signal)),
                    source = source.open() => source?,
                };
                let metainfo = match source {
                    TorrentSource::Metainfo(metainfo) => Arc::new(metainfo),
                    TorrentSource::Magnet(magnet) => {
                        describe::fetch(&plan, magnet, None, report, &mut interrupts).await?
                    }
                };
                if let Some(target) = &args.output {
                    overlap::refuse(target, &metainfo.info, &dir, "-o")?;
                }
                presence::require(&metainfo.info, &dir, args.follow_links)?;
                (metainfo, dir, None, None)
            }
        };
        let engine = plan.start().await?;
        let seed = Seed { args, plan: &plan, metainfo, dir, content, hashed_at, engine };
        seed.run(tracker_host, report, &mut interrupts).await
    })
}

/// Finds out what is offered. With --dir, a folder holds torrents. Content is hashed here, while
/// signals still end the process by themselves: there is no state to save yet.
fn offer(args: &SeedArgs, report: &Report) -> Result<Offer, Failure> {
    let path = Path::new(&args.path);
    if args.dir.is_some() && path.is_dir() {
        return seed_many::torrents(path, report).map(Offer::Many);
    }
    let is_torrent = seed_many::is_torrent(path);
    let source = Source::parse(&args.path)?;
    if source != Source::Input && path.exists() && (path.is_dir() || !is_torrent) {
        let (path, hashed_at) = (make::content_path(path)?, clock::wall());
        let (links, output) = (args.follow_links, args.output.as_deref());
        let Some(mut metainfo) = make::hash(&path, Draft::default(), links, output, report, &|| true)? else {
            return Err(Failure::Failed("stopped".to_owned()));
        };
        metainfo.trackers = args.swarm.trackers.iter().map(|url| vec![url.clone()]).collect();
        let dir = path.parent().unwrap_or(&path).to_owned();
        return Ok(Offer::Content(Box::new(metainfo), dir, hashed_at));
    }
    match source {
        Source::File(path) if !is_torrent => {
            let shown = printable(&path.to_string_lossy());
            Err(Failure::Failed(format!("{shown}: there is no such file; give a file, folder or torrent")))
        }
        source @ (Source::File(_)
        | Source::Input
        | Source::Url(_)
        | Source::Magnet(_)
        | Source::InfoHash(_)) => Ok(Offer::Torrent(source)),
    }
}

/// Where others reach our tracker.
fn tracker_host(host: TrackerHost) -> IpAddr {
    match host {
        TrackerHost::Auto => address::primary_address().unwrap_or(IpAddr::from([127, 0, 0, 1])),
        TrackerHost::At(host) => host,
    }
}

/// One torrent with its content.
struct Seed<'a> {
    args: &'a SeedArgs,
    plan: &'a Plan,
    metainfo: Arc<Metainfo>,
    dir: PathBuf,
    /// Where the content is, if the torrent was made from it.
    content: Option<PathBuf>,
    /// When hashing it began.
    hashed_at: Option<SystemTime>,
    engine: Engine,
}

impl Seed<'_> {
    async fn run(
        mut self,
        tracker_host: Option<IpAddr>,
        report: &Report,
        interrupts: &mut Interrupts,
    ) -> Result<(), Failure> {
        if let Some(url) = tracker_host.and_then(|host| self.engine.tracker_url(host)) {
            Arc::make_mut(&mut self.metainfo).trackers.insert(0, vec![url]);
        }
        let written = match (&self.content, &self.args.output) {
            (None, None) => None,
            (content, output) => {
                let content = content.as_deref().unwrap_or(Path::new("/nowhere"));
                let target = make::target(&self.metainfo, output.as_deref(), content)?;
                out_file::save(&target, self.metainfo.encode(), "-o", interrupts).await?;
                Some(target)
            }
        };
        let existing = match (self.hashed_at, self.args.assume_complete) {
            (Some(began_at), _) => Existing::Hashed(began_at),
            (None, true) => Existing::Assumed,
            (None, false) => Existing::Unknown,
        };
        // What was typed may be a link itself.
        let is_link = self.content.as_ref().is_some_and(|content| content.is_symlink());
        let torrent = AddTorrent {
            existing,
            purpose: Purpose::Seed,
            follow_links: self.args.follow_links || is_link,
            ..self.plan.torrent(TorrentSource::Metainfo((*self.metainfo).clone()), &self.dir)
        };
        let mut handle = self.engine.add(torrent).await?;
        let result = self.follow(&mut handle, written.as_deref(), report, interrupts).await;
        interrupts.unless(self.engine.shutdown()).await;
        let figures = handle.snapshot().torrent;
        report.event(&json!({"event": "stopped", "uploaded": figures.traffic.uploaded}));
        match result? {
            End::Complete | End::Stopped | End::Interrupted(Signal::Terminate) => {
                report.say(&format!("Stopped; {} sent", show_len(figures.traffic.uploaded)));
                Ok(())
            }
            End::Interrupted(signal) => Err(Failure::Interrupted(signal)),
        }
    }

    async fn follow(
        &self,
        handle: &mut TorrentHandle,
        written: Option<&Path>,
        report: &Report,
        interrupts: &mut Interrupts,
    ) -> Result<End, Failure> {
        let mut follower = Follower::seeding(report, Arc::clone(&self.metainfo), self.dir.clone());
        match follower.follow(handle, Until::Complete, interrupts).await? {
            End::Complete => {}
            end @ (End::Stopped | End::Interrupted(_)) => return Ok(end),
        }
        self.tell(written, report);
        follower.follow(handle, Until::Stopped, interrupts).await
    }

    /// What is offered, and how others get it.
    fn tell(&self, written: Option<&Path>, report: &Report) {
        let (info, port) = (&self.metainfo.info, self.engine.listen_port());
        let mut trackers: Vec<String> = self.metainfo.trackers.concat();
        trackers.extend(self.plan.trackers.iter().cloned());
        trackers.dedup();
        let here = address::primary_address().map(|host| SocketAddr::new(host, port));
        let magnet = Magnet {
            infohash: Some(info.infohash),
            name: Some(info.name.clone()),
            peers: if trackers.is_empty() {
                here.iter().map(SocketAddr::to_string).collect()
            } else {
                Vec::new()
            },
            trackers,
            ..Magnet::default()
        };
        let torrent = match written {
            Some(path) => path.to_string_lossy().into_owned(),
            None => self.args.path.to_string_lossy().into_owned(),
        };
        report.event(&json!({
            "event": "seeding", "name": info.name, "infohash": info.infohash.to_string(),
            "size": info.content_len(), "torrent": torrent, "magnet": magnet.to_string(), "port": port,
        }));
        let mut lines = vec![
            format!("Seeding {} ({}) on port {port}", printable(&info.name), show_len(info.content_len())),
            format!("  torrent  {}", printable(&torrent)),
            format!("  magnet   {}", printable(&magnet.to_string())),
        ];
        lines.extend(self.how_others_get_it(&magnet, here));
        report.say(&lines.join("\n"));
    }

    /// What others type, and how they find this seed.
    fn how_others_get_it(&self, magnet: &Magnet, here: Option<SocketAddr>) -> [String; 2] {
        let info = &self.metainfo.info;
        let port = self.engine.listen_port();
        let peer = here.map_or_else(|| format!("ADDRESS:{port}"), |here| here.to_string());
        let ways = [
            (!magnet.trackers.is_empty(), "the tracker"),
            (!info.private && self.plan.config.dht.is_some(), "the DHT"),
            (!info.private && self.plan.config.lsd, "the local network"),
        ];
        let ways: Vec<&str> = ways.into_iter().filter(|(is_open, _)| *is_open).map(|(_, way)| way).collect();
        if ways.is_empty() {
            return [
                format!("Others run: sprat download {} --peer {peer}", info.infohash),
                "With --with-tracker this machine is the tracker too, and downloads need no --peer."
                    .to_owned(),
            ];
        }
        [
            "Others run: sprat download 'LINK', with the magnet link in quotes, or with the torrent"
                .to_owned(),
            format!("They find this seed by {}, or directly with --peer {peer}", ways.join(", by ")),
        ]
    }
}
