//! Following one running torrent until it ends: figures to bars and lines, events to words.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::clock;
use super::failure::Failure;
use super::interrupt::{Interrupts, Signal};
use super::misfit;
use super::narrator::{Narrator, fault_text};
use super::report::{Meter, Report};
use super::size::{show_duration, show_len, show_rate};
use super::text::{counted, printable, without_number};
use crate::engine::{Event, Metainfo, Snapshot, Stage, TorrentHandle};

/// Most bars of single files at once; the first unfinished ones are shown.
const FILE_BAR_MAX: usize = 16;

/// How long no peer may have anything that is missing before it is told: some have just been
/// connected.
const STUCK_TIME: Duration = Duration::from_secs(5);

/// Until when a torrent is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Every wanted piece is there.
    Complete,
    /// It leaves by itself or is told to.
    Stopped,
}

/// How following ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Every wanted piece is there and synced.
    Complete,
    /// It left: ratio or time reached.
    Stopped,
    /// The user wants out.
    Interrupted(Signal),
}

/// One torrent as its user sees it.
#[derive(Debug)]
pub(crate) struct Follower {
    report: Report,
    metainfo: Arc<Metainfo>,
    dir: PathBuf,
    meter: Option<Meter>,
    file_meters: BTreeMap<usize, Meter>,
    /// Whether a bar for each file is wanted.
    files: bool,
    /// Whether completion is news: not for a seed, which starts with it.
    downloads: bool,
    /// When fetching began: after the check of what was there.
    fetching_since: Option<Instant>,
    completed: bool,
    /// The highest number of wanted bytes so far: pieces that a seed lost are no longer wanted.
    wanted_len_max: u64,
    /// Since when no connected peer has anything that is missing.
    stuck_since: Option<Instant>,
    /// Whether that was told.
    is_stuck_told: bool,
    narrator: Narrator,
}

impl Follower {
    /// Nothing seen of its content yet; `narrator` goes on.
    pub(crate) fn new(
        report: &Report,
        metainfo: Arc<Metainfo>,
        dir: PathBuf,
        files: bool,
        narrator: Narrator,
    ) -> Self {
        Self {
            report: report.clone(),
            metainfo,
            dir,
            meter: None,
            file_meters: BTreeMap::new(),
            files,
            downloads: true,
            fetching_since: None,
            completed: false,
            wanted_len_max: 0,
            stuck_since: None,
            is_stuck_told: false,
            narrator,
        }
    }

    /// The same for one that begins complete.
    pub(crate) fn seeding(report: &Report, metainfo: Arc<Metainfo>, dir: PathBuf) -> Self {
        let narrator = Narrator::new(report);
        Self { downloads: false, ..Self::new(report, metainfo, dir, false, narrator) }
    }

    /// Shows what happens until the end.
    pub(crate) async fn follow(
        &mut self,
        events: &mut TorrentHandle,
        until: Until,
        interrupts: &mut Interrupts,
    ) -> Result<End, Failure> {
        let (mut figures, mut done) = (events.clone(), events.clone());
        loop {
            tokio::select! {
                // What happened is told before what it led to.
                biased;
                signal = interrupts.next() => return Ok(End::Interrupted(signal)),
                Some(event) = events.next_event() => {
                    if matches!(event, Event::Checked { .. }) {
                        self.meter = None;
                    }
                    self.narrator.hear(event);
                }
                result = done.completed(), if !self.completed => {
                    let snapshot = figures.snapshot();
                    if result.is_err() {
                        return self.ended(&snapshot);
                    }
                    self.complete(&snapshot);
                    if until == Until::Complete {
                        return Ok(End::Complete);
                    }
                }
                going = figures.changed() => {
                    let snapshot = figures.snapshot();
                    if !going || matches!(snapshot.stage, Stage::Stopped | Stage::Refused(_) | Stage::Failed(_)) {
                        self.drain(&snapshot);
                        return self.ended(&snapshot);
                    }
                    self.show(&snapshot);
                }
                // Figures change only while something happens; a torrent that is stuck is shown
                // too.
                () = tokio::time::sleep(STUCK_TIME), if !self.completed => self.show(&figures.snapshot()),
            }
        }
    }

    /// A torrent may complete and stop within one look: both are told.
    fn drain(&mut self, snapshot: &Snapshot) {
        if snapshot.torrent.complete && !self.completed {
            self.complete(snapshot);
        }
        self.clear();
    }

    /// What the last figures say about a torrent that goes no further.
    fn ended(&self, snapshot: &Snapshot) -> Result<End, Failure> {
        match &snapshot.stage {
            Stage::Refused(refusal) => {
                let name = &self.metainfo.info.name;
                Err(misfit::refused(refusal, !self.downloads, name, &self.dir, &self.report))
            }
            Stage::Failed(error) => {
                let why = printable(&without_number(error));
                // Other advice could contradict what the error says itself.
                let hint = "; put that right, or choose another folder with -d";
                Err(Failure::Failed(if why.contains("; ") { why } else { why + hint }))
            }
            Stage::Stopped => Ok(End::Stopped),
            Stage::Starting
            | Stage::FindingPeers { .. }
            | Stage::FetchingDescription { .. }
            | Stage::Checking { .. }
            | Stage::Downloading
            | Stage::Seeding
            | Stage::Waiting(_)
            | Stage::Paused => Err(Failure::Failed("the engine stopped".to_owned())),
        }
    }

    fn clear(&mut self) {
        self.meter = None;
        self.file_meters.clear();
    }

    /// Every wanted piece is there.
    fn complete(&mut self, snapshot: &Snapshot) {
        self.completed = true;
        self.clear();
        if !self.downloads {
            return;
        }
        let fetched = snapshot.torrent.traffic.downloaded;
        let seconds =
            self.fetching_since.map_or(0.0, |since| clock::now().duration_since(since).as_secs_f64());
        let name = printable(&self.metainfo.info.name);
        let dir = printable(&self.dir.to_string_lossy());
        self.report.event(&json!({
            "event": "completed", "name": self.metainfo.info.name, "size": snapshot.torrent.wanted_len,
            "downloaded": fetched, "seconds": seconds,
        }));
        if fetched == 0 {
            self.report.say(&format!("Complete: {name} is in {dir} and verified"));
            return;
        }
        let rate = (fetched as f64 / seconds.max(0.001)) as u64;
        self.report.say(&format!(
            "Completed: {name}, {} in {seconds:.1} s ({:.1} MiB/s), in {dir}",
            show_len(fetched),
            rate as f64 / f64::from(1 << 20)
        ));
    }

    /// Figures to bars and lines.
    fn show(&mut self, snapshot: &Snapshot) {
        match &snapshot.stage {
            Stage::Starting
            | Stage::FindingPeers { .. }
            | Stage::FetchingDescription { .. }
            | Stage::Paused
            | Stage::Stopped
            | Stage::Refused(_)
            | Stage::Failed(_) => {}
            Stage::Checking { checked, good } => {
                let total = self.metainfo.info.geometry.piece_count();
                let (checked, good) = (*checked, *good);
                self.meter(u64::from(total)).update(
                    u64::from(checked),
                    || format!("checking what is there: {checked} of {total} pieces, {good} good"),
                    || json!({"event": "checking", "checked": checked, "good": good, "total": total}),
                );
            }
            Stage::Downloading | Stage::Waiting(_) | Stage::Seeding => self.show_transfer(snapshot),
        }
    }

    fn show_transfer(&mut self, snapshot: &Snapshot) {
        if self.fetching_since.is_none() {
            self.fetching_since = Some(clock::now());
            self.meter = None;
        }
        self.tell_stuck(snapshot);
        let figures = &snapshot.torrent;
        self.wanted_len_max = self.wanted_len_max.max(figures.wanted_len);
        let wanted_len = self.wanted_len_max;
        self.meter(wanted_len).update(
            figures.wanted_done_len,
            || progress_text(snapshot, wanted_len),
            || {
                json!({
                    "event": "progress", "done": figures.wanted_done_len, "total": wanted_len,
                    "downloaded": figures.traffic.downloaded, "uploaded": figures.traffic.uploaded,
                    "download_rate": figures.traffic.download_rate, "upload_rate": figures.traffic.upload_rate,
                    "peers": figures.peers.len(), "seconds_left": time_left(snapshot).map(|left| left.as_secs()),
                })
            },
        );
        if self.files && !self.completed {
            self.show_files(&snapshot.file_done_lens);
        }
    }

    /// Peers are connected, and none has anything that is missing: told when it lasts.
    fn tell_stuck(&mut self, snapshot: &Snapshot) {
        if !is_stuck(snapshot) {
            self.stuck_since = None;
            self.is_stuck_told = false;
            return;
        }
        let since = *self.stuck_since.get_or_insert_with(clock::now);
        if !self.is_stuck_told && clock::now().duration_since(since) >= STUCK_TIME {
            self.is_stuck_told = true;
            let missing_len = snapshot.torrent.wanted_len.saturating_sub(snapshot.torrent.wanted_done_len);
            self.report.warn(&format!(
                "no connected peer has any of the {} that are missing; waiting for one that does",
                show_len(missing_len)
            ));
        }
    }

    fn show_files(&mut self, done_lens: &[u64]) {
        for (number, (file, &done)) in self.metainfo.info.files.iter().zip(done_lens).enumerate() {
            if done >= file.len || file.attributes.pad {
                self.file_meters.remove(&number);
                continue;
            }
            if !self.file_meters.contains_key(&number) && self.file_meters.len() < FILE_BAR_MAX {
                let name = printable(file.path.last().map_or("", String::as_str));
                if let Some(meter) = self.report.named_meter(&name, file.len) {
                    self.file_meters.insert(number, meter);
                }
            }
            if let Some(meter) = self.file_meters.get(&number) {
                meter.update(done, || show_len(file.len), || json!({}));
            }
        }
    }

    fn meter(&mut self, total: u64) -> &Meter {
        let meter = self.meter.get_or_insert_with(|| self.report.meter(total));
        meter.set_total(total);
        meter
    }
}

/// Whether peers are connected and none has anything that is missing.
fn is_stuck(snapshot: &Snapshot) -> bool {
    let peers = &snapshot.torrent.peers;
    snapshot.stage == Stage::Downloading
        && !snapshot.torrent.complete
        && !peers.is_empty()
        && !peers.iter().any(|peer| peer.am_interested)
}

/// One line of figures; so many bytes were wanted once.
fn progress_text(snapshot: &Snapshot, wanted_len: u64) -> String {
    let figures = &snapshot.torrent;
    let peers = counted(figures.peers.len(), "peer");
    if figures.complete {
        let (sent, rate) = (show_len(figures.traffic.uploaded), show_rate(figures.traffic.upload_rate));
        if figures.wanted_len < wanted_len {
            let (done, all) = (show_len(figures.wanted_done_len), show_len(wanted_len));
            return format!(
                "seeding {done} of {all}, the rest has changed on disk: {sent} sent, {rate}, {peers}"
            );
        }
        return format!("seeding: {sent} sent, {rate}, {peers}");
    }
    let done = format!("{} of {}", show_len(figures.wanted_done_len), show_len(figures.wanted_len));
    if let Stage::Waiting(fault) = &snapshot.stage {
        return format!("{done}, waiting: {}", fault_text(fault));
    }
    if is_stuck(snapshot) {
        return format!("{done}, no connected peer has what is missing, {peers}");
    }
    let left = time_left(snapshot).map_or(String::new(), |left| format!(", {} left", show_duration(left)));
    format!(
        "{done}, {} down, {} up{left}, {peers}",
        show_rate(figures.traffic.download_rate),
        show_rate(figures.traffic.upload_rate)
    )
}

/// At the present rate; None: it does not move.
fn time_left(snapshot: &Snapshot) -> Option<Duration> {
    let figures = &snapshot.torrent;
    let missing = figures.wanted_len.saturating_sub(figures.wanted_done_len);
    missing.checked_div(figures.traffic.download_rate).map(Duration::from_secs)
}
