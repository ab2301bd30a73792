//! What happens to a torrent, event by event: words for people, lines for programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::report::Report;
use super::text::{printable, without_number};
use crate::engine::{Event, StorageFault};

/// Tells each thing once.
#[derive(Debug)]
pub(crate) struct Narrator {
    report: Report,
    /// Where the content goes.
    dir: PathBuf,
    /// The last complaint of each tracker, so that it is told once.
    tracker_errors: BTreeMap<String, String>,
}

impl Narrator {
    /// Nothing told yet.
    pub(crate) fn new(report: &Report, dir: &Path) -> Self {
        Self { report: report.clone(), dir: dir.to_owned(), tracker_errors: BTreeMap::new() }
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
            Event::PieceFailed(piece) => {
                self.report.warn(&format!("piece {piece} came false and is fetched again"));
            }
            Event::Storage(Some(fault)) => self
                .report
                .warn(&format!("{}; downloading waits and goes on by itself", fault_text(&fault, &self.dir))),
            Event::Storage(None) => self.report.say("The disk takes data again; downloading goes on"),
            Event::DhtAnswered { nodes, peers } => {
                self.report.event(&json!({"event": "dht", "nodes": nodes, "peers": peers}));
            }
            Event::PeerConnected(addr) => {
                self.report.event(&json!({"event": "peer", "addr": addr.to_string(), "connected": true}));
            }
            Event::PeerDisconnected(addr, reason) => self.report.event(&json!({
                "event": "peer", "addr": addr.to_string(), "connected": false, "reason": reason,
            })),
            // Told with figures.
            Event::Described | Event::Piece(_) | Event::Completed | Event::Stopped | Event::Skipped(_) => {}
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

fn fault_text(fault: &StorageFault, dir: &Path) -> String {
    match fault {
        StorageFault::Full => format!("the disk of {} is full: make room", printable(&dir.to_string_lossy())),
        StorageFault::Failed(error) => printable(error),
    }
}
