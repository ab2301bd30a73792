//! `sprat download`: fetch a torrent's content, and hand it on meanwhile.

use serde_json::json;

use super::args::DownloadArgs;
use super::failure::Failure;
use super::interrupt::{Interrupts, Signal};
use super::plan::{self, Plan};
use super::report::Report;
use super::runtime;
use super::size::show_len;
use super::source::Source;
use super::swarm::{End, Follower, Until};
use super::text::{counted, printable};
use crate::engine::{AddTorrent, Engine, Info, Metainfo};

/// Runs until everything wanted is there, or seeding ends.
pub(crate) fn run(args: &DownloadArgs, report: &Report) -> Result<(), Failure> {
    let source = Source::parse(&args.torrent)?;
    runtime::block_on(async {
        let mut interrupts = Interrupts::catch()?;
        let metainfo = tokio::select! {
            signal = interrupts.next() => return Err(Failure::Interrupted(signal)),
            metainfo = source.load() => metainfo?,
        };
        download(args, metainfo, report, &mut interrupts).await
    })
}

async fn download(
    args: &DownloadArgs,
    metainfo: Metainfo,
    report: &Report,
    interrupts: &mut Interrupts,
) -> Result<(), Failure> {
    let plan = Plan::new(&args.swarm, args.leave, report);
    let selected = plan::selected(&metainfo.info, &args.select)?;
    let dir = plan::make_dir(&args.dir)?;
    let info = metainfo.info.clone();
    let finds_peers = plan.finds_peers(&metainfo);
    let torrent = AddTorrent { selected, sequential: args.sequential, ..plan.torrent(metainfo, &dir) };
    let engine = plan.start().await?;
    let mut handle = engine.add(torrent).await?;
    announce(args, &info, &engine, report);
    if !finds_peers {
        report.warn("this torrent names no tracker and no peer was given: waiting to be found; see --peer");
    }
    let until = if args.seed || plan.leaves() { Until::Stopped } else { Until::Complete };
    let end = Follower::new(report, info, dir, args.files).follow(&mut handle, until, interrupts).await;
    interrupts.unless(engine.shutdown()).await;
    let figures = handle.snapshot().torrent;
    report.event(&json!({
        "event": "stopped", "uploaded": figures.traffic.uploaded, "downloaded": figures.traffic.downloaded,
    }));
    match end? {
        End::Complete | End::Stopped | End::Incomplete { .. } => Ok(()),
        End::Interrupted(Signal::Terminate) if figures.complete => Ok(()),
        End::Interrupted(signal) => {
            if !figures.complete {
                report.say("Interrupted; run the same command again to go on from here");
            }
            Err(Failure::Interrupted(signal))
        }
    }
}

/// What is about to be fetched, and where we listen.
fn announce(args: &DownloadArgs, info: &Info, engine: &Engine, report: &Report) {
    let dir = args.dir.to_string_lossy();
    report.say(&format!(
        "Downloading {} ({}, {}) to {}, listening on port {}",
        printable(&info.name),
        show_len(info.geometry.total_len()),
        counted(info.files.iter().filter(|file| !file.attributes.pad).count(), "file"),
        printable(&dir),
        engine.listen_port()
    ));
    report.event(&json!({
        "event": "started", "name": info.name, "infohash": info.infohash.to_string(),
        "size": info.geometry.total_len(), "dir": dir, "port": engine.listen_port(),
    }));
}
