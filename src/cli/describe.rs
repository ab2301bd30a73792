//! Following a magnet link until its metadata (BEP 9) is there: which sources were asked, how many
//! peers are known, how much has come.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::failure::Failure;
use super::interrupt::Interrupts;
use super::narrator::Narrator;
use super::plan::{self, Plan};
use super::report::{Meter, Report};
use super::size::{show_duration, show_len};
use super::text::{counted, printable};
use crate::engine::{
    AddTorrent, DhtStatus, InfoHash, Magnet, Metainfo, Snapshot, Stage, TorrentHandle, TorrentSource,
    TrackerStatus,
};

/// A torrent known by its name, as its user sees it.
#[derive(Debug)]
pub(crate) struct Describer<'a> {
    report: &'a Report,
    narrator: &'a mut Narrator,
    step: Step,
    meter: Meter,
    /// An earlier run has kept the metadata.
    is_kept: bool,
}

/// How far it is, as far as told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Finding,
    Fetching,
}

/// The link for a torrent of which the infohash is all that is known.
pub(crate) fn bare(infohash: InfoHash) -> Magnet {
    Magnet { infohash: Some(infohash), ..Magnet::default() }
}

/// What people call it: its name in the link, or else its infohash.
fn name(magnet: &Magnet) -> String {
    match (&magnet.name, magnet.infohash) {
        (Some(name), _) => printable(name),
        (None, Some(infohash)) => infohash.to_string(),
        (None, None) => "a torrent without a name".to_owned(),
    }
}

impl<'a> Describer<'a> {
    /// A torrent of which only `magnet` is known. Tells the user what is looked for, and warns if
    /// there is no way to find a peer.
    pub(crate) fn new(
        magnet: &Magnet,
        finds_peers: bool,
        report: &'a Report,
        narrator: &'a mut Narrator,
    ) -> Self {
        let is_kept = plan::kept(magnet).is_some();
        announce(magnet, is_kept, finds_peers, report);
        Self { report, narrator, step: Step::Finding, meter: report.spinner(), is_kept }
    }

    /// Shows what happens until the metadata is there.
    ///
    /// # Errors
    /// The metadata cannot be used, the engine stopped, or a signal came.
    pub(crate) async fn follow(
        mut self,
        events: &mut TorrentHandle,
        interrupts: &mut Interrupts,
    ) -> Result<Arc<Metainfo>, Failure> {
        let (mut figures, mut description) = (events.clone(), events.clone());
        let described = description.described();
        tokio::pin!(described);
        loop {
            tokio::select! {
                biased;
                signal = interrupts.next() => return Err(Failure::Interrupted(signal)),
                described = &mut described => {
                    let metainfo = described.map_err(|_| ended(&figures.snapshot()))?;
                    self.conclude(&metainfo);
                    return Ok(metainfo);
                }
                Some(event) = events.next_event() => self.narrator.hear(event),
                going = figures.changed() => {
                    if !going {
                        return Err(ended(&figures.snapshot()));
                    }
                    self.show(&figures.snapshot());
                }
            }
        }
    }

    /// The metadata is there.
    fn conclude(&mut self, metainfo: &Metainfo) {
        let len = metainfo.info.bytes.len();
        self.report.event(&json!({
            "event": "described", "name": metainfo.info.name, "infohash": metainfo.info.infohash.to_string(),
            "metadata": len, "private": metainfo.info.private,
        }));
        let private =
            if metainfo.info.private { "; it is private: peers only from its trackers" } else { "" };
        let came = if self.is_kept { "Metadata kept from an earlier run" } else { "Metadata received" };
        self.report.say(&format!("{came}: {}{private}", show_len(len as u64)));
    }

    /// Figures to bars and lines.
    fn show(&mut self, snapshot: &Snapshot) {
        match snapshot.stage {
            Stage::FindingPeers { known, connected } => {
                self.step(Step::Finding);
                let text = || finding_text(snapshot, known, connected);
                self.meter.update(0, text, || finding_event(snapshot, known, connected));
            }
            Stage::FetchingDescription { done, total, peers } => {
                if self.step(Step::Fetching) {
                    let (size, from) = (show_len(total.into()), counted(peers, "peer"));
                    self.report.say(&format!("Downloading metadata: {size} from {from}"));
                }
                self.meter.set_total(total.into());
                self.meter.update(
                    done.into(),
                    || {
                        let (done, total) = (show_len(done.into()), show_len(total.into()));
                        format!("metadata: {done} of {total}, {}", counted(peers, "peer"))
                    },
                    || json!({"event": "downloading_metadata", "done": done, "total": total, "peers": peers}),
                );
            }
            Stage::Starting
            | Stage::Checking { .. }
            | Stage::Downloading
            | Stage::Seeding
            | Stage::Waiting(_)
            | Stage::Paused
            | Stage::Stopped
            | Stage::Refused(_)
            | Stage::Failed(_) => {}
        }
    }

    /// Goes over to another step; whether that is one.
    fn step(&mut self, step: Step) -> bool {
        let is_new = self.step != step;
        if is_new {
            self.step = step;
            self.meter = match step {
                Step::Finding => self.report.spinner(),
                Step::Fetching => self.report.meter(1),
            };
        }
        is_new
    }
}

/// Downloads the metadata of a torrent, and leaves again; `limit`: the longest time without any of
/// it.
///
/// # Errors
/// No peer gave metadata within the limit, the metadata cannot be used, or a signal came.
pub(crate) async fn fetch(
    plan: &Plan,
    magnet: Magnet,
    limit: Option<Duration>,
    report: &Report,
    interrupts: &mut Interrupts,
) -> Result<Arc<Metainfo>, Failure> {
    let report = report.aside();
    let mut narrator = Narrator::new(&report);
    let source = TorrentSource::Magnet(magnet.clone());
    let finds_peers = plan.finds_peers(false, source.names_anyone());
    let torrent = AddTorrent { describe_only: true, ..plan.torrent(source, Path::new(".")) };
    let describer = Describer::new(&magnet, finds_peers, &report, &mut narrator);
    let engine = plan.without_journals().start().await?;
    let mut handle = engine.add(torrent).await?;
    let figures = handle.clone();
    let following = describer.follow(&mut handle, interrupts);
    let described = match limit {
        None => following.await,
        Some(limit) => while_it_comes(following, &figures, limit).await,
    };
    // The command would go on with the metadata: a signal must not end the farewell alone.
    match interrupts.unless(engine.shutdown()).await {
        Some(signal) => Err(Failure::Interrupted(signal)),
        None => described,
    }
}

/// Gives up when none of the metadata came for this long.
async fn while_it_comes(
    following: impl Future<Output = Result<Arc<Metainfo>, Failure>>,
    figures: &TorrentHandle,
    limit: Duration,
) -> Result<Arc<Metainfo>, Failure> {
    tokio::pin!(following);
    let mut last_done = 0;
    loop {
        if let Ok(described) = tokio::time::timeout(limit, &mut following).await {
            return described;
        }
        let snapshot = figures.snapshot();
        let is_coming = |done: &u32| *done != last_done;
        let Some(done) = done_len(&snapshot).filter(is_coming) else {
            return Err(too_late(&snapshot, limit));
        };
        last_done = done;
    }
}

/// Bytes of the metadata that came; None: no peer has given any.
fn done_len(snapshot: &Snapshot) -> Option<u32> {
    if let Stage::FetchingDescription { done, .. } = snapshot.stage { Some(done) } else { None }
}

fn too_late(snapshot: &Snapshot, limit: Duration) -> Failure {
    let reached = match snapshot.stage {
        Stage::FindingPeers { known, connected } => finding_text(snapshot, known, connected),
        Stage::FetchingDescription { done, total, .. } => {
            format!("metadata: {} of {}", show_len(done.into()), show_len(total.into()))
        }
        Stage::Starting
        | Stage::Checking { .. }
        | Stage::Downloading
        | Stage::Seeding
        | Stage::Waiting(_)
        | Stage::Paused
        | Stage::Stopped
        | Stage::Refused(_)
        | Stage::Failed(_) => "not begun".to_owned(),
    };
    Failure::Failed(format!(
        "no peer gave the metadata within {} ({reached}); name one with --peer, or wait longer with --timeout",
        show_duration(limit)
    ))
}

/// Tells what is looked for, and warns if there is no way to find a peer.
fn announce(magnet: &Magnet, is_kept: bool, finds_peers: bool, report: &Report) {
    if !is_kept {
        report.say(&format!("Finding peers of {}", name(magnet)));
    }
    for part in &magnet.ignored {
        report.warn(&format!("a part of the magnet link cannot be read and is ignored: {}", printable(part)));
    }
    report.event(&json!({
        "event": "named", "name": magnet.name, "infohash": magnet.infohash.map(|infohash| infohash.to_string()),
    }));
    if !finds_peers && !is_kept {
        report.warn(NO_WAY_TO_PEERS);
    }
}

/// The warning that there is no way to find a peer.
pub(crate) const NO_WAY_TO_PEERS: &str =
    "this torrent names no tracker and no peer was given: waiting to be found; see --peer";

/// Why there will be no metadata.
fn ended(snapshot: &Snapshot) -> Failure {
    match &snapshot.stage {
        Stage::Refused(refusal) => Failure::Bad(refusal.to_string()),
        Stage::Failed(error) => Failure::Bad(printable(error)),
        Stage::Starting
        | Stage::FindingPeers { .. }
        | Stage::FetchingDescription { .. }
        | Stage::Checking { .. }
        | Stage::Downloading
        | Stage::Seeding
        | Stage::Waiting(_)
        | Stage::Paused
        | Stage::Stopped => Failure::Failed("the engine stopped".to_owned()),
    }
}

/// Which sources were asked, and how many peers they named.
fn finding_text(snapshot: &Snapshot, known: usize, connected: usize) -> String {
    let mut asked = Vec::new();
    let tracker_count = snapshot.trackers.len();
    if tracker_count > 0 {
        asked.push(format!("{} of {} answered", answered(snapshot), counted(tracker_count, "tracker")));
    }
    asked.extend(snapshot.dht.as_ref().map(dht_text));
    asked.push(format!("{} known, {connected} connected", counted(known, "peer")));
    format!("finding peers: {}", asked.join(", "))
}

fn dht_text(dht: &DhtStatus) -> String {
    match (dht.asking, dht.lookups) {
        (true, _) => "the DHT is being asked".to_owned(),
        (false, 0) => "the DHT is not asked yet".to_owned(),
        (false, _) => format!("{} answered", counted(dht.answered as usize, "DHT node")),
    }
}

fn finding_event(snapshot: &Snapshot, known: usize, connected: usize) -> serde_json::Value {
    let dht =
        snapshot.dht.map(|dht| json!({"asking": dht.asking, "nodes": dht.answered, "peers": dht.peers}));
    json!({
        "event": "finding_peers", "known": known, "connected": connected,
        "trackers": snapshot.trackers.len(), "trackers_answered": answered(snapshot), "dht": dht,
    })
}

/// Trackers whose last answer was one.
fn answered(snapshot: &Snapshot) -> usize {
    let is_answer = |tracker: &&TrackerStatus| {
        tracker.error.is_none() && (tracker.seeders.is_some() || tracker.leechers.is_some())
    };
    snapshot.trackers.iter().filter(is_answer).count()
}
