//! `sprat download`: fetch a torrent's content, and hand it on meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::args::DownloadArgs;
use super::describe::{self, Describer};
use super::failure::Failure;
use super::interrupt::{Interrupts, Signal};
use super::narrator::Narrator;
use super::out_file;
use super::overlap;
use super::plan::{self, Plan};
use super::report::Report;
use super::runtime;
use super::select::Selector;
use super::size::show_len;
use super::source::Source;
use super::swarm::{End, Follower, Until};
use super::text::{counted, printable};
use crate::engine::{AddTorrent, Engine, EngineError, Info, Magnet, Purpose, TorrentHandle, TorrentSource};

/// Runs until everything wanted is there, or seeding ends.
pub(crate) fn run(args: &DownloadArgs, report: &Report) -> Result<(), Failure> {
    let report = &out_file::report(args.save_torrent.as_deref(), report)?;
    let source = Source::parse(&args.torrent)?;
    // Before signals are caught: looking up the names of peers may take long.
    let plan = Plan::new(&args.swarm, args.leave, report);
    runtime::block_on(async {
        let mut interrupts = Interrupts::catch()?;
        let source = tokio::select! {
            signal = interrupts.next() => return Err(Failure::Interrupted(signal)),
            source = source.open() => source?,
        };
        download(args, plan, source, report, &mut interrupts).await
    })
}

async fn download(
    args: &DownloadArgs,
    plan: Plan,
    source: TorrentSource,
    report: &Report,
    interrupts: &mut Interrupts,
) -> Result<(), Failure> {
    let selectors = [&args.select[..], &args.select_name].concat();
    if let TorrentSource::Metainfo(metainfo) = &source {
        plan::require_selected(&metainfo.info, &selectors)?;
        require_apart(args, &metainfo.info)?;
    }
    plan::require_place(&args.dir)?;
    let dir = args.dir.clone();
    let selection = plan::selection(&selectors);
    let torrent = AddTorrent {
        selection,
        sequential: args.sequential,
        preallocate: args.preallocate,
        purpose: if args.overwrite { Purpose::Overwrite } else { Purpose::Download },
        ..plan.torrent(source.clone(), &dir)
    };
    let engine = plan.start().await?;
    let mut handle = engine.add(torrent).await.map_err(|error| not_added(error, &dir))?;
    let download = Download { args, selectors, plan, dir, engine, report };
    let end = download.follow(source, &mut handle, interrupts).await;
    interrupts.unless(download.engine.shutdown()).await;
    let snapshot = handle.snapshot();
    let figures = snapshot.torrent;
    report.event(&json!({
        "event": "stopped", "uploaded": figures.traffic.uploaded, "downloaded": figures.traffic.downloaded,
    }));
    match end {
        Ok(End::Complete | End::Stopped) => Ok(()),
        // Complete is not enough: it has to be durable.
        Ok(End::Interrupted(Signal::Terminate)) if snapshot.finished => Ok(()),
        Ok(End::Interrupted(signal)) | Err(Failure::Interrupted(signal)) => {
            if !snapshot.finished {
                report.say("Interrupted; run the same command again to go on from here");
            }
            Err(Failure::Interrupted(signal))
        }
        Err(failure) => Err(failure),
    }
}

/// A folder that cannot be made or used is named with what to do.
fn not_added(error: EngineError, dir: &Path) -> Failure {
    if let EngineError::Storage(fault) = &error
        && fault.path == dir
        && fault.source.raw_os_error().is_some()
    {
        return Failure::io(&fault.path, &fault.source, "; choose a folder that you may write to with -d");
    }
    error.into()
}

/// The option that names where the torrent is saved.
const SAVE_TORRENT: &str = "--save-torrent";

/// What is said of a torrent that names no tracker and no peer.
const ONLY_WEB_SEEDS: &str = "the torrent names only web seeds, which are not used yet; give a tracker by --tracker or a peer by --peer";

/// A download under way.
struct Download<'a> {
    args: &'a DownloadArgs,
    selectors: Vec<Selector>,
    plan: Plan,
    dir: PathBuf,
    engine: Engine,
    report: &'a Report,
}

impl Download<'_> {
    /// Shows what happens until the end; of a magnet link first how its metadata comes.
    async fn follow(
        &self,
        source: TorrentSource,
        handle: &mut TorrentHandle,
        interrupts: &mut Interrupts,
    ) -> Result<End, Failure> {
        let Self { args, selectors, plan, dir, engine, report } = self;
        let mut narrator = Narrator::new(report);
        let names_anyone = source.names_anyone();
        if plan.relies_on_web_seeds(&source) {
            report.warn(ONLY_WEB_SEEDS);
        }
        let metainfo = match source {
            TorrentSource::Metainfo(metainfo) => Arc::new(metainfo),
            TorrentSource::Magnet(magnet) => {
                let finds_peers = plan.finds_peers(false, names_anyone);
                let describer = Describer::new(&magnet, finds_peers, report, &mut narrator);
                let metainfo = describer.follow(handle, interrupts).await?;
                plan::require_selected(&metainfo.info, selectors)?;
                require_linked(&metainfo.info, &magnet, selectors)?;
                require_apart(args, &metainfo.info)?;
                metainfo
            }
        };
        if let Some(target) = &args.save_torrent {
            out_file::save(target, metainfo.encode(), SAVE_TORRENT, interrupts).await?;
        }
        let info = &metainfo.info;
        announce(args, info, engine, report);
        // Only the metadata says whether a magnet's torrent is private, so the warning may be due
        // only now.
        if !plan.finds_peers(info.private, names_anyone) {
            report.warn(describe::NO_WAY_TO_PEERS);
        }
        let until = if args.seed || plan.leaves() { Until::Stopped } else { Until::Complete };
        let mut follower = Follower::new(report, Arc::clone(&metainfo), dir.clone(), args.files, narrator);
        follower.follow(handle, until, interrupts).await
    }
}

/// Refuses to save the torrent over its content.
fn require_apart(args: &DownloadArgs, info: &Info) -> Result<(), Failure> {
    args.save_torrent.iter().try_for_each(|target| overlap::refuse(target, info, &args.dir, SAVE_TORRENT))
}

/// Refuses a link whose `so` names no file there is.
fn require_linked(info: &Info, magnet: &Magnet, selectors: &[Selector]) -> Result<(), Failure> {
    let fits = |&(first, _): &(u32, u32)| (first as usize) < info.files.len();
    if !selectors.is_empty() || magnet.select.is_empty() || magnet.select.iter().any(fits) {
        return Ok(());
    }
    Err(Failure::Bad(
        "the magnet link selects files that this torrent does not have; see --select".to_owned(),
    ))
}

/// What is about to be fetched, and where we listen.
fn announce(args: &DownloadArgs, info: &Info, engine: &Engine, report: &Report) {
    let dir = args.dir.to_string_lossy();
    report.say(&format!(
        "Downloading {} ({}, {}) to {}, listening on port {}",
        printable(&info.name),
        show_len(info.content_len()),
        counted(info.files.iter().filter(|file| !file.attributes.pad).count(), "file"),
        printable(&dir),
        engine.listen_port()
    ));
    report.event(&json!({
        "event": "started", "name": info.name, "infohash": info.infohash.to_string(),
        "size": info.content_len(), "dir": dir, "port": engine.listen_port(),
    }));
}
