//! `sprat seed FOLDER -d DIR`: every torrent of a folder, with all content in one place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use super::failure::Failure;
use super::interrupt::{Interrupts, Signal};
use super::plan::Plan;
use super::report::Report;
use super::source::load_file;
use super::text::{counted, printable};
use crate::engine::{AddTorrent, Engine, Existing, Metainfo, Stage, TorrentHandle, TorrentSource};

/// Torrents that are read, and added, at a time: some milliseconds of work.
const BATCH: usize = 64;
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
    let added = add_all(engine, paths, dir, assume_complete, plan, report).await;
    let seeding = settle(added, report).await;
    if seeding.is_empty() {
        return Err(Failure::Bad("none of these torrents can be seeded".to_owned()));
    }
    report.say(&format!("All checked: {} complete", counted(seeding.len(), "torrent")));
    report.event(&json!({"event": "seeding", "torrents": seeding.len()}));
    if !plan.leaves() {
        // Nobody looks at them any more, and who is not looked at makes no figures.
        drop(seeding);
        return std::future::pending().await;
    }
    while seeding.iter().any(|handle| handle.snapshot().stage != Stage::Stopped) {
        tokio::time::sleep(LEAVE_LOOK_INTERVAL).await;
    }
    Ok(())
}

/// Adds what can be added, and says what cannot. A thread reads the next torrents while these are added.
async fn add_all<'a>(
    engine: &Engine,
    paths: &'a [PathBuf],
    dir: &Path,
    assume_complete: bool,
    plan: &Plan,
    report: &Report,
) -> Vec<(&'a Path, TorrentHandle)> {
    let mut handles = Vec::with_capacity(paths.len());
    let mut batches = paths.chunks(BATCH);
    let mut next = batches.next().map(|batch| (batch, read(batch)));
    while let Some((batch, reading)) = next {
        let loaded = reading.await.unwrap_or_default();
        next = batches.next().map(|batch| (batch, read(batch)));
        let (mut read_paths, mut torrents) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        for (path, metainfo) in batch.iter().zip(loaded) {
            match metainfo {
                Ok(metainfo) => {
                    let torrent = plan.torrent(TorrentSource::Metainfo(metainfo), dir);
                    let existing = if assume_complete { Existing::Assumed } else { Existing::Unknown };
                    torrents.push(AddTorrent { existing, ..torrent });
                    read_paths.push(path.as_path());
                }
                Err(failure) => report.warn(&format!("left out: {}", failure.text().unwrap_or_default())),
            }
        }
        for (path, added) in read_paths.into_iter().zip(engine.add_all(torrents).await) {
            match added.map_err(Failure::from) {
                Ok(handle) => handles.push((path, handle)),
                Err(failure) => leave_out(path, failure.text().unwrap_or_default(), report),
            }
        }
    }
    handles
}

/// The descriptions in these files, read by a thread that may wait for the disk.
fn read(paths: &[PathBuf]) -> JoinHandle<Vec<Result<Metainfo, Failure>>> {
    let paths = paths.to_vec();
    tokio::task::spawn_blocking(move || paths.iter().map(|path| load_file(path)).collect())
}

fn leave_out(path: &Path, why: &str, report: &Report) {
    report.warn(&format!("left out: {}: {why}", printable(&path.to_string_lossy())));
}

/// Waits until each is known to be complete or not; those that are not are stopped. Gives the complete ones.
async fn settle(added: Vec<(&Path, TorrentHandle)>, report: &Report) -> Vec<TorrentHandle> {
    let mut seeding = Vec::with_capacity(added.len());
    for (path, mut handle) in added {
        match verdict(&mut handle).await {
            Ok(()) => seeding.push(handle),
            Err(why) => {
                leave_out(path, &why, report);
                let _ = handle.stop(Duration::ZERO).await;
            }
        }
    }
    seeding
}

/// Whether it is complete, once that is known; if not, why, in words.
async fn verdict(handle: &mut TorrentHandle) -> Result<(), String> {
    loop {
        let snapshot = handle.snapshot();
        match snapshot.stage {
            Stage::Seeding | Stage::Stopped => return Ok(()),
            Stage::Failed(error) => return Err(printable(&error)),
            Stage::Starting
            | Stage::FindingPeers { .. }
            | Stage::FetchingDescription { .. }
            | Stage::Checking { .. } => {}
            // All is there; what is left is to make it durable.
            Stage::Downloading | Stage::Waiting(_) if snapshot.torrent.complete => {}
            Stage::Downloading | Stage::Waiting(_) | Stage::Paused => {
                return Err("content is missing or damaged".to_owned());
            }
        }
        if !handle.changed().await {
            return Err("it has ended".to_owned());
        }
    }
}
