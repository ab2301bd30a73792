//! `sprat seed FOLDER -d DIR`: every torrent of a folder, with all content in one place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::failure::Failure;
use super::interrupt::{Interrupts, Signal};
use super::plan::Plan;
use super::report::Report;
use super::source::Source;
use super::text::{counted, printable};
use crate::engine::{AddTorrent, Engine, Existing, Stage, TorrentHandle, TorrentSource};

/// Between two looks at torrents that are still being checked.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Between two looks whether the last torrent has left.
const LEAVE_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The torrents of a folder that holds nothing else, in order of name; None: it is something else.
pub(crate) fn torrents(folder: &Path) -> Result<Option<Vec<PathBuf>>, Failure> {
    let fault = |error: std::io::Error| Failure::io(folder, &error, "");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fault)? {
        let path = entry.map_err(fault)?.path();
        if path.extension().is_none_or(|extension| extension != "torrent") {
            return Ok(None);
        }
        paths.push(path);
    }
    paths.sort();
    Ok((!paths.is_empty()).then_some(paths))
}

/// Seeds those that can be seeded, says which cannot, until told to stop.
pub(crate) async fn seed(
    paths: &[PathBuf],
    dir: &Path,
    assume_complete: bool,
    plan: &Plan,
    report: &Report,
    interrupts: &mut Interrupts,
) -> Result<(), Failure> {
    let engine = plan.start().await?;
    report.say(&format!("Seeding {} on port {}", counted(paths.len(), "torrent"), engine.listen_port()));
    report.event(&json!({"event": "started", "torrents": paths.len(), "port": engine.listen_port()}));
    let result = tokio::select! {
        signal = interrupts.next() => Ok(signal),
        result = run(&engine, paths, dir, assume_complete, plan, report) => result.map(|()| Signal::Terminate),
    };
    interrupts.unless(engine.shutdown()).await;
    match result? {
        Signal::Terminate => Ok(()),
        Signal::Interrupt => Err(Failure::Interrupted(Signal::Interrupt)),
    }
}

async fn run(
    engine: &Engine,
    paths: &[PathBuf],
    dir: &Path,
    assume_complete: bool,
    plan: &Plan,
    report: &Report,
) -> Result<(), Failure> {
    let mut handles = Vec::with_capacity(paths.len());
    for path in paths {
        match add(engine, path, dir, assume_complete, plan).await {
            Ok(handle) => handles.push((path, handle)),
            Err(failure) => report.warn(&format!("left out: {}", failure.text().unwrap_or_default())),
        }
    }
    let seeding = settle(handles, report).await;
    if seeding.is_empty() {
        return Err(Failure::Bad("none of these torrents can be seeded".to_owned()));
    }
    report.say(&format!("All checked: {} complete", counted(seeding.len(), "torrent")));
    report.event(&json!({"event": "seeding", "torrents": seeding.len()}));
    if !plan.leaves() {
        return std::future::pending().await;
    }
    while seeding.iter().any(|handle| handle.snapshot().stage != Stage::Stopped) {
        tokio::time::sleep(LEAVE_LOOK_INTERVAL).await;
    }
    Ok(())
}

async fn add(
    engine: &Engine,
    path: &Path,
    dir: &Path,
    assume_complete: bool,
    plan: &Plan,
) -> Result<TorrentHandle, Failure> {
    let metainfo = Source::File(path.to_owned()).load().await?;
    let existing = if assume_complete { Existing::Assumed } else { Existing::Unknown };
    let torrent = AddTorrent { existing, ..plan.torrent(TorrentSource::Metainfo(metainfo), dir) };
    engine.add(torrent).await.map_err(|error| {
        let failure = Failure::from(error);
        let text = failure.text().unwrap_or_default();
        Failure::Failed(format!("{}: {text}", printable(&path.to_string_lossy())))
    })
}

/// Waits until each is known to be complete or not; those that are not are stopped. Gives the complete ones.
async fn settle(mut checking: Vec<(&PathBuf, TorrentHandle)>, report: &Report) -> Vec<TorrentHandle> {
    let mut seeding = Vec::with_capacity(checking.len());
    while !checking.is_empty() {
        let mut unknown = Vec::new();
        for (path, handle) in checking {
            let snapshot = handle.snapshot();
            let why = match snapshot.stage {
                Stage::Starting
                | Stage::FindingPeers { .. }
                | Stage::FetchingDescription { .. }
                | Stage::Checking { .. } => {
                    unknown.push((path, handle));
                    continue;
                }
                // All is there; what is left is to make it durable.
                Stage::Downloading | Stage::Waiting(_) if snapshot.torrent.complete => {
                    unknown.push((path, handle));
                    continue;
                }
                Stage::Seeding | Stage::Stopped => {
                    seeding.push(handle);
                    continue;
                }
                Stage::Downloading | Stage::Waiting(_) | Stage::Paused => {
                    "content is missing or damaged".to_owned()
                }
                Stage::Failed(error) => printable(&error),
            };
            report.warn(&format!("left out: {}: {why}", printable(&path.to_string_lossy())));
            let _ = handle.stop(Duration::ZERO).await;
        }
        checking = unknown;
        if !checking.is_empty() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
    seeding
}
