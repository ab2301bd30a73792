//! What happens to a torrent, event by event: words for people, lines for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::misfit;
use super::report::Report;
use super::size::show_len;
use super::text::{counted, listed, printable, without_number};
use crate::engine::{Event, Evidence, METADATA_LEN_MAX, Refused, StorageFault};

/// Most files whose other name is shown in one line; the rest is counted.
const NAME_SHOWN_MAX: usize = 5;

/// Tells each thing once.
#[derive(Debug)]
pub(crate) struct Narrator {
    report: Report,
    /// The last complaint of each tracker, so that it is told once.
    tracker_errors: BTreeMap<String, String>,
    /// Files of which it was told that another program changed them.
    changed: BTreeSet<PathBuf>,
    /// Hosts of which it was told that their metadata is too long.
    too_long: BTreeSet<IpAddr>,
}

impl Narrator {
    /// Nothing told yet.
    pub(crate) fn new(report: &Report) -> Self {
        Self {
            report: report.clone(),
            tracker_errors: BTreeMap::new(),
            changed: BTreeSet::new(),
            too_long: BTreeSet::new(),
        }
    }

    /// An event to words.
    pub(crate) fn hear(&mut self, event: Event) {
        match event {
            Event::Checked { good, total } => {
                self.report.event(&json!({"event": "checked", "good": good, "total": total}));
                if good > 0 && good < total {
                    self.report.say(&format!("{good} of {total} pieces are there already"));
                }
            }
            Event::Longer(misfits) => misfit::warn_longer(&misfits, &self.report),
            Event::OtherNames(names) => self.other_names(&names),
            Event::TrackerOk { url, peers } => {
                self.tracker_errors.remove(&url);
                self.report.event(&json!({"event": "tracker", "url": url, "peers": peers}));
            }
            Event::TrackerWarning { url, text } => {
                self.complain(url, format!("says: {text}"));
            }
            Event::TrackerFailed { url, error } => self.complain(url, error),
            Event::PeerBanned(addr) => {
                self.report.warn(&format!("peer {addr} sent false data and is banned"))
            }
            Event::MetadataTooLong { addr, len } => self.metadata_too_long(addr, len),
            Event::PeersRefused(refused) => {
                self.report.event(&refused_event(refused));
                self.report.say(&refused_text(refused));
            }
            Event::PieceFailed(piece) => {
                self.report.warn(&format!("piece {piece} failed its hash check; downloading it again"));
            }
            Event::PieceLost { piece, path, why, is_fetching } => {
                self.piece_lost(piece, path, &why, is_fetching);
            }
            Event::Storage(Some(fault)) => {
                self.report.event(&fault_event(&fault));
                self.report.warn(&format!("{}; downloading waits and goes on by itself", fault_text(&fault)))
            }
            Event::Storage(None) => {
                self.report.event(&storage_good());
                self.report.say("The disk takes data again; downloading goes on");
            }
            Event::DhtAnswered { nodes, peers } => {
                self.report.event(&json!({"event": "dht", "nodes": nodes, "peers": peers}));
            }
            Event::PeerConnected(addr) => {
                self.report.event(&json!({"event": "peer", "addr": addr.to_string(), "connected": true}));
            }
            Event::PeerDisconnected(addr, reason) => self.report.event(&json!({
                "event": "peer", "addr": addr.to_string(), "connected": false, "reason": reason,
            })),
            Event::JournalLapsed(error) => {
                let error = printable(&without_number(&error));
                self.report.warn(&format!(
                    "journal {error}; going on without it: the next start may have to check what is there"
                ));
            }
            Event::JournalUnusable(error) => {
                let error = printable(&without_number(&error));
                self.report.warn(&format!("journal {error}; it is left as it is, and is of no use here"));
            }
            Event::JournalSetAside { error, path } => {
                let (error, path) = (printable(&without_number(&error)), printable(&path.to_string_lossy()));
                self.report.warn(&format!("journal {error}; it is kept as {path}, and a new one is begun"));
            }
            // Told with figures.
            Event::Described | Event::Piece(_) | Event::Completed | Event::Stopped | Event::Skipped(_) => {}
        }
    }

    /// Files lie under other names than in the torrent.
    fn other_names(&self, names: &[(String, String)]) {
        let files: Vec<_> =
            names.iter().map(|(path, used)| json!({"path": path, "stored_as": used})).collect();
        self.report.event(&json!({"event": "other_names", "files": files}));
        let word = |(path, used): &(String, String)| format!("{} as {}", printable(path), printable(used));
        let (count, shown) = (counted(names.len(), "file"), listed(names, NAME_SHOWN_MAX, word));
        self.report.say(&format!("{count} stored under another name than in the torrent: {shown}"));
    }

    /// Another program changed a file: told once, however many pieces that spoils.
    fn piece_lost(&mut self, piece: u32, path: PathBuf, why: &str, is_fetching: bool) {
        let shown = path.to_string_lossy().into_owned();
        self.report.event(
            &json!({"event": "piece_lost", "piece": piece, "path": shown, "why": why, "again": is_fetching}),
        );
        let what_follows = if is_fetching { "downloaded again" } else { "not uploaded" };
        if !self.changed.contains(&path) {
            let (shown, why) = (printable(&shown), printable(&without_number(why)));
            self.report.warn(&format!("{shown}: {why}; pieces that no longer match are {what_follows}"));
            self.changed.insert(path);
        }
    }

    /// Told once for each host.
    fn metadata_too_long(&mut self, addr: SocketAddr, len: u32) {
        self.report.event(&json!({"event": "metadata_too_long", "addr": addr.to_string(), "length": len}));
        if self.too_long.insert(addr.ip()) {
            let (len, most) = (show_len(len.into()), show_len(METADATA_LEN_MAX.into()));
            self.report.warn(&format!("peer {addr} says that the metadata has {len}: the limit is {most}"));
        }
    }

    /// A tracker's trouble, told once; others go on.
    fn complain(&mut self, url: String, text: String) {
        if self.tracker_errors.get(&url) != Some(&text) {
            self.report.warn(&format!("tracker {}: {}", printable(&url), printable(&without_number(&text))));
            self.tracker_errors.insert(url, text);
        }
    }
}

/// Peers that seem to require encryption, for programs.
fn refused_event(Refused { count, evidence }: Refused) -> Value {
    let evidence = match evidence {
        Evidence::Closed => "closed",
        Evidence::Encrypted => "encrypted",
        Evidence::Both => "both",
    };
    json!({"event": "peers_refused", "peers": count, "evidence": evidence})
}

/// The same for people.
fn refused_text(Refused { count, evidence }: Refused) -> String {
    let (peers, was, they_may, requires) = if count == 1 {
        ("1 peer".to_owned(), "was", "it may", "requires")
    } else {
        (format!("{count} peers"), "were", "they may", "require")
    };
    let unsupported = "which is not supported yet";
    match evidence {
        Evidence::Closed => format!(
            "{peers} {was} reached but closed the connection without a handshake; {they_may} require encryption, {unsupported}"
        ),
        Evidence::Encrypted => format!("{peers} tried to connect with encryption, {unsupported}"),
        Evidence::Both => format!("{peers} {was} reached but {requires} encryption, {unsupported}"),
    }
}

/// What holds the disk up, for programs.
pub(super) fn fault_event(fault: &StorageFault) -> Value {
    match fault {
        StorageFault::Full { place, missing_len } => {
            json!({"event": "storage", "state": "full", "place": place, "missing": missing_len})
        }
        StorageFault::OutOfDescriptors(error) | StorageFault::Failed(error) => {
            json!({"event": "storage", "state": "failing", "error": error})
        }
    }
}

/// The disk takes data again, for programs.
pub(super) fn storage_good() -> Value {
    json!({"event": "storage", "state": "good"})
}

/// Why the disk holds things up.
pub(super) fn fault_text(fault: &StorageFault) -> String {
    match fault {
        StorageFault::Full { place, missing_len: Some(len) } => {
            format!("the file system of {} is full: {} more are needed", printable(place), show_len(*len))
        }
        StorageFault::Full { place, missing_len: None } => {
            format!("the file system of {} is full: make room", printable(place))
        }
        StorageFault::OutOfDescriptors(error) | StorageFault::Failed(error) => {
            printable(&without_number(error))
        }
    }
}
