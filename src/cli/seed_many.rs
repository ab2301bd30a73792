//! `sprat seed FOLDER -d DIR`: every torrent of a folder, with all content in one place.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::args::SeedArgs;
use super::failure::Failure;
use super::interrupt::{Interrupts, Signal};
use super::misfit;
use super::plan::Plan;
use super::report::Report;
use super::source::load_file;
use super::text::{counted, listed, printable, without_number};
use crate::engine::{
    AddTorrent, Engine, Event, Existing, Metainfo, Purpose, Refusal, Snapshot, Stage, StorageFault,
    TorrentHandle, TorrentSource, is_out_of_descriptors,
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
        let name = |path: &PathBuf| printable(&path.file_name().unwrap_or_default().to_string_lossy());
        let names = listed(&others, LISTED_MAX, name);
        report.warn(&format!("{shown}: skipped what is no .torrent file: {names}"));
    }
    Ok(paths)
}

/// Names that are listed; of more their number is told.
const LISTED_MAX: usize = 5;

/// What came of the torrents that were added.
struct Seeding {
    /// How many are complete.
    count: usize,
    /// The complete ones, if the command leaves by itself: it has to know when they have left.
    handles: Vec<TorrentHandle>,
    /// Torrents whose disk fails, until it is known whether they are complete.
    waiting: JoinSet<(PathBuf, TorrentHandle, Known)>,
}

/// Whether a torrent is complete; if not, why, in words.
type Known = Result<(), String>;

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
    result?.end_of_service()
}

async fn run(
    engine: &Engine,
    paths: Vec<PathBuf>,
    dir: &Path,
    args: &SeedArgs,
    plan: &Plan,
    report: &Report,
) -> Result<(), Failure> {
    // Room for all, so that adding a torrent does not wait until others are hashed.
    let (sender, added) = mpsc::channel(paths.len().max(1));
    let adding = add_all(engine, paths, sender, dir, args, plan, report);
    let ((), mut seeding) = tokio::join!(adding, settle(added, plan.leaves(), report));
    seeding.tell(report)?;
    loop {
        let has_left = |handle: &TorrentHandle| handle.snapshot().stage == Stage::Stopped;
        if !seeding.handles.is_empty() && seeding.handles.iter().all(has_left) {
            return Ok(());
        }
        tokio::select! {
            Some(joined) = seeding.waiting.join_next() => {
                if let Ok((path, handle, known)) = joined {
                    seeding.take(&path, handle, known, plan.leaves(), report).await;
                }
                seeding.tell(report)?;
            }
            () = tokio::time::sleep(LEAVE_LOOK_INTERVAL), if plan.leaves() => {}
            // Only a signal ends it.
            else => std::future::pending().await,
        }
    }
}

/// Adds what can be added, and says what cannot. A thread reads the next torrents while these are
/// added.
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
                    // `settle` receives until the last torrent is sent.
                    let _ = added.send((path, handle)).await;
                }
                Err(failure) => leave_out(&path, failure.text().unwrap_or_default(), report),
            }
        }
    }
}

/// The torrents in these files, read by a thread that may wait for the disk.
fn read(paths: Vec<PathBuf>) -> JoinHandle<Vec<(PathBuf, Result<Metainfo, Failure>)>> {
    let load = |path: PathBuf| {
        let metainfo = require_readable(&path).and_then(|()| load_file(&path));
        (path, metainfo)
    };
    tokio::task::spawn_blocking(move || paths.into_iter().map(load).collect())
}

/// Refuses what would keep everything else waiting, and waits until there is a file descriptor for
/// it.
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

/// Waits until each is known to be complete or not. A torrent whose disk fails is set aside, so
/// that it holds up no other one. `looks`: the command looks at the complete ones later. A torrent
/// that is not looked at computes no figures, and has no memory for them.
async fn settle(
    mut added: mpsc::Receiver<(PathBuf, TorrentHandle)>,
    looks: bool,
    report: &Report,
) -> Seeding {
    let mut seeding = Seeding { count: 0, handles: Vec::new(), waiting: JoinSet::new() };
    let mut last_shortage = String::new();
    while let Some((path, mut handle)) = added.recv().await {
        let warn = |shortage: String| {
            if last_shortage != shortage {
                report.warn(&format!("{shortage}; waiting until that is over"));
                last_shortage = shortage;
            }
        };
        match known_unless_failing(&mut handle, warn).await {
            Ok(known) => seeding.take(&path, handle, known, looks, report).await,
            Err(fault) => {
                let shown = printable(&path.to_string_lossy());
                report.warn(&format!("{shown}: {fault}; it is seeded when that is over"));
                seeding.waiting.spawn(async move {
                    let known = known(&mut handle).await;
                    (path, handle, known)
                });
            }
        }
    }
    seeding
}

impl Seeding {
    /// Counts a torrent that is complete, and stops one that is not.
    async fn take(
        &mut self,
        path: &Path,
        mut handle: TorrentHandle,
        known: Known,
        looks: bool,
        report: &Report,
    ) {
        match known {
            Ok(()) => {
                warn_longer(&mut handle, report).await;
                self.count += 1;
                self.handles.extend(looks.then_some(handle));
            }
            Err(why) => {
                leave_out(path, &why, report);
                let _ = handle.stop(Duration::ZERO).await;
            }
        }
    }

    /// Says how many are complete and how many wait for their disks.
    ///
    /// # Errors
    /// None is complete, and none waits.
    fn tell(&self, report: &Report) -> Result<(), Failure> {
        let waiting_count = self.waiting.len();
        if self.count == 0 && waiting_count == 0 {
            return Err(Failure::Bad("none of these torrents can be seeded".to_owned()));
        }
        let complete = format!("{} complete", counted(self.count, "torrent"));
        report.say(&match waiting_count {
            0 => format!("All checked: {complete}"),
            count => format!("{complete}, {count} not checked yet because a disk fails"),
        });
        report.event(&json!({"event": "seeding", "torrents": self.count, "waiting": waiting_count}));
        Ok(())
    }
}

/// Warns of files that are longer than they should be, which was told before the torrent was known
/// to be complete.
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

/// How far it is known whether a torrent is complete.
enum Standing {
    Known(Known),
    /// It is being checked.
    Unknown,
    /// There is no file descriptor for its files just now; in words.
    OutOfDescriptors(String),
    /// Its disk fails; in words.
    DiskFails(String),
}

fn standing(snapshot: Snapshot) -> Standing {
    match snapshot.stage {
        Stage::Seeding | Stage::Stopped => Standing::Known(Ok(())),
        Stage::Refused(Refusal::Obstacle { path, obstacle }) => {
            Standing::Known(Err(misfit::seed_obstacle(&path, obstacle)))
        }
        Stage::Refused(refusal) => Standing::Known(Err(refusal.to_string())),
        Stage::Failed(error) => Standing::Known(Err(printable(&error))),
        Stage::Starting
        | Stage::FindingPeers { .. }
        | Stage::FetchingDescription { .. }
        | Stage::Checking { .. } => Standing::Unknown,
        // All is there; what is left is to make it durable.
        Stage::Downloading | Stage::Waiting(_) if snapshot.torrent.complete => Standing::Unknown,
        Stage::Waiting(StorageFault::OutOfDescriptors(error)) => {
            Standing::OutOfDescriptors(printable(&without_number(&error)))
        }
        Stage::Waiting(StorageFault::Failed(error)) => {
            Standing::DiskFails(printable(&without_number(&error)))
        }
        Stage::Downloading | Stage::Waiting(StorageFault::Full { .. }) | Stage::Paused => {
            Standing::Known(Err("content is missing or damaged".to_owned()))
        }
    }
}

/// What is known of a torrent whose engine has ended.
const ENDED: &str = "it has ended";

/// Waits until it is known whether the torrent is complete, however long its disk fails.
async fn known(handle: &mut TorrentHandle) -> Known {
    loop {
        match standing(handle.snapshot()) {
            Standing::Known(known) => return known,
            Standing::Unknown | Standing::OutOfDescriptors(_) | Standing::DiskFails(_) => {}
        }
        if !handle.changed().await {
            return Err(ENDED.to_owned());
        }
    }
}

/// Waits until it is known whether the torrent is complete. `warn` is told when it waits for a file
/// descriptor.
///
/// # Errors
/// Its disk fails; in words.
async fn known_unless_failing(
    handle: &mut TorrentHandle,
    mut warn: impl FnMut(String),
) -> Result<Known, String> {
    loop {
        match standing(handle.snapshot()) {
            Standing::Known(known) => return Ok(known),
            Standing::DiskFails(fault) => return Err(fault),
            Standing::OutOfDescriptors(shortage) => warn(shortage),
            Standing::Unknown => {}
        }
        if !handle.changed().await {
            return Ok(Err(ENDED.to_owned()));
        }
    }
}
