//! `sprat seed FOLDER -d DIR`: every torrent of a folder, with all content in one place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::args::SeedArgs;
use super::failure::Failure;
use super::interrupt::{Interrupts, Signal};
use super::misfit;
use super::plan::Plan;
use super::report::Report;
use super::runtime::is_out_of_descriptors;
use super::source::load_file;
use super::text::{counted, printable, without_number};
use crate::engine::{
    AddTorrent, Engine, Event, Existing, Metainfo, Purpose, Stage, StorageFault, TorrentHandle, TorrentSource,
};

/// Torrents that are read, and added, at a time: some milliseconds of work.
const BATCH: usize = 64;
/// Between two looks whether the last torrent has left.
const LEAVE_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Between two looks whether there is a file descriptor again.
const DESCRIPTOR_RETRY: Duration = Duration::from_millis(100);

/// Whether its name says that it is a torrent.
pub(crate) fn is_torrent(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("torrent"))
}

/// The torrents of a folder, in order of name; what else is in it is skipped with a warning.
///
/// # Errors
/// The folder cannot be read, or holds no torrent.
pub(crate) fn torrents(folder: &Path, report: &Report) -> Result<Vec<PathBuf>, Failure> {
    let fault = |error: std::io::Error| Failure::io(folder, &error, "");
    let (mut paths, mut others) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(fault)? {
        let path = entry.map_err(fault)?.path();
        if is_torrent(&path) && !path.is_dir() { paths.push(path) } else { others.push(path) }
    }
    let shown = printable(&folder.to_string_lossy());
    if paths.is_empty() {
        return Err(Failure::Usage(format!(
            "{shown}: there is no .torrent file in this folder; without --dir the folder itself is seeded"
        )));
    }
    paths.sort();
    others.sort();
    if !others.is_empty() {
        report.warn(&format!("{shown}: skipped what is no .torrent file: {}", listed(&others)));
    }
    Ok(paths)
}

/// Names that are listed; of more their number is told.
const LISTED_MAX: usize = 5;

fn listed(paths: &[PathBuf]) -> String {
    let name = |path: &PathBuf| printable(&path.file_name().unwrap_or_default().to_string_lossy());
    let names: Vec<String> = paths.iter().take(LISTED_MAX).map(name).collect();
    match paths.len().saturating_sub(LISTED_MAX) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// What came of those that were added.
struct Seeding {
    /// Complete ones.
    count: usize,
    /// Of these, as far as somebody looks at them later.
    handles: Vec<TorrentHandle>,
}

/// Seeds those that can be seeded, says which cannot, until told to stop.
pub(crate) async fn seed(
    paths: Vec<PathBuf>,
    dir: &Path,
    args: &SeedArgs,
    plan: &Plan,
    report: &Report,
    interrupts: &mut Interrupts,
) -> Result<(), Failure> {
    let engine = plan.start().await?;
    report.say(&format!("Seeding {} on port {}", counted(paths.len(), "torrent"), engine.listen_port()));
    report.event(&json!({"event": "started", "torrents": paths.len(), "port": engine.listen_port()}));
    let result = tokio::select! {
        signal = interrupts.next() => Ok(signal),
        result = run(&engine, paths, dir, args, plan, report) => result.map(|()| Signal::Terminate),
    };
    interrupts.unless(engine.shutdown()).await;
    match result? {
        Signal::Terminate => Ok(()),
        signal @ (Signal::Interrupt | Signal::Hangup) => Err(Failure::Interrupted(signal)),
    }
}

async fn run(
    engine: &Engine,
    paths: Vec<PathBuf>,
    dir: &Path,
    args: &SeedArgs,
    plan: &Plan,
    report: &Report,
) -> Result<(), Failure> {
    // Room for all, so that nobody waits to be added until others are hashed.
    let (sender, added) = mpsc::channel(paths.len().max(1));
    let adding = add_all(engine, paths, sender, dir, args, plan, report);
    let ((), seeding) = tokio::join!(adding, settle(added, plan.leaves(), report));
    if seeding.count == 0 {
        return Err(Failure::Bad("none of these torrents can be seeded".to_owned()));
    }
    report.say(&format!("All checked: {} complete", counted(seeding.count, "torrent")));
    report.event(&json!({"event": "seeding", "torrents": seeding.count}));
    if !plan.leaves() {
        return std::future::pending().await;
    }
    while seeding.handles.iter().any(|handle| handle.snapshot().stage != Stage::Stopped) {
        tokio::time::sleep(LEAVE_LOOK_INTERVAL).await;
    }
    Ok(())
}

/// Adds what can be added, and says what cannot. A thread reads the next torrents while these are added.
async fn add_all(
    engine: &Engine,
    paths: Vec<PathBuf>,
    added: mpsc::Sender<(PathBuf, TorrentHandle)>,
    dir: &Path,
    args: &SeedArgs,
    plan: &Plan,
    report: &Report,
) {
    let mut paths = paths.into_iter();
    let mut reading = read(paths.by_ref().take(BATCH).collect());
    loop {
        let batch = reading.await.unwrap_or_default();
        if batch.is_empty() {
            return;
        }
        reading = read(paths.by_ref().take(BATCH).collect());
        let (mut read_paths, mut torrents) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        for (path, metainfo) in batch {
            match metainfo {
                Ok(metainfo) => {
                    let torrent = plan.torrent(TorrentSource::Metainfo(metainfo), dir);
                    let existing = if args.assume_complete { Existing::Assumed } else { Existing::Unknown };
                    let (purpose, follow_links) = (Purpose::Seed, args.follow_links);
                    torrents.push(AddTorrent { existing, purpose, follow_links, ..torrent });
                    read_paths.push(path);
                }
                Err(failure) => report.warn(&format!("left out: {}", failure.text().unwrap_or_default())),
            }
        }
        for (path, torrent) in read_paths.into_iter().zip(engine.add_all(torrents).await) {
            match torrent.map_err(Failure::from) {
                Ok(handle) => {
                    // Whoever settles does so until the last.
                    let _ = added.send((path, handle)).await;
                }
                Err(failure) => leave_out(&path, failure.text().unwrap_or_default(), report),
            }
        }
    }
}

/// The descriptions in these files, read by a thread that may wait for the disk.
fn read(paths: Vec<PathBuf>) -> JoinHandle<Vec<(PathBuf, Result<Metainfo, Failure>)>> {
    let load = |path: PathBuf| {
        let metainfo = require_readable(&path).and_then(|()| load_file(&path));
        (path, metainfo)
    };
    tokio::task::spawn_blocking(move || paths.into_iter().map(load).collect())
}

/// Refuses what would keep everything else waiting, and waits until there is a file descriptor for it.
fn require_readable(path: &Path) -> Result<(), Failure> {
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(Failure::Bad(format!("{}: not a regular file", printable(&path.to_string_lossy()))));
    }
    while std::fs::File::open(path).is_err_and(|error| is_out_of_descriptors(&error)) {
        std::thread::sleep(DESCRIPTOR_RETRY);
    }
    Ok(())
}

fn leave_out(path: &Path, why: &str, report: &Report) {
    report.warn(&format!("left out: {}: {why}", printable(&path.to_string_lossy())));
}

/// Waits until each is known to be complete or not; those that are not are stopped. The others are kept if somebody
/// `looks` at them later: who is not looked at makes no figures, and has no memory for them.
async fn settle(
    mut added: mpsc::Receiver<(PathBuf, TorrentHandle)>,
    looks: bool,
    report: &Report,
) -> Seeding {
    let mut seeding = Seeding { count: 0, handles: Vec::new() };
    let mut last_fault = String::new();
    while let Some((path, mut handle)) = added.recv().await {
        let wait = |fault: &str| {
            if last_fault != fault {
                last_fault = fault.to_owned();
                report.warn(&format!("{fault}; waiting until that is over"));
            }
        };
        match verdict(&mut handle, wait).await {
            Ok(()) => {
                warn_longer(&mut handle, report).await;
                seeding.count += 1;
                seeding.handles.extend(looks.then_some(handle));
            }
            Err(why) => {
                leave_out(&path, &why, report);
                let _ = handle.stop(Duration::ZERO).await;
            }
        }
    }
    seeding
}

/// Warns of files that are longer than they should be, which was told before the torrent was known to be complete.
async fn warn_longer(handle: &mut TorrentHandle, report: &Report) {
    loop {
        tokio::select! {
            biased;
            event = handle.next_event() => match event {
                Some(Event::Longer(misfits)) => misfit::warn_longer(&misfits, report),
                Some(_) => {}
                None => return,
            },
            () = std::future::ready(()) => return,
        }
    }
}

/// Whether it is complete, once that is known; if not, why, in words. `wait` is told why it cannot be known yet.
async fn verdict(handle: &mut TorrentHandle, mut wait: impl FnMut(&str)) -> Result<(), String> {
    loop {
        let snapshot = handle.snapshot();
        match snapshot.stage {
            Stage::Seeding | Stage::Stopped => return Ok(()),
            Stage::Refused(refusal) => return Err(refusal.to_string()),
            Stage::Failed(error) => return Err(printable(&error)),
            Stage::Starting
            | Stage::FindingPeers { .. }
            | Stage::FetchingDescription { .. }
            | Stage::Checking { .. } => {}
            // All is there; what is left is to make it durable.
            Stage::Downloading | Stage::Waiting(_) if snapshot.torrent.complete => {}
            // It is not known yet what is there.
            Stage::Waiting(StorageFault::Failed(error)) => wait(&printable(&without_number(&error))),
            Stage::Downloading | Stage::Waiting(StorageFault::Full { .. }) | Stage::Paused => {
                return Err("content is missing or damaged".to_owned());
            }
        }
        if !handle.changed().await {
            return Err("it has ended".to_owned());
        }
    }
}
