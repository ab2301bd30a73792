//! `sprat create`: make a .torrent file.

use serde_json::json;

use super::args::CreateArgs;
use super::clock;
use super::failure::Failure;
use super::make;
use super::out_file;
use super::report::Report;
use super::size::show_len;
use super::text::{counted, printable};
use crate::engine::metainfo::create::Draft;

/// Hashes, writes, and tells the infohash.
pub(crate) fn run(args: &CreateArgs, report: &Report) -> Result<(), Failure> {
    let report = &out_file::report(args.output.as_deref(), report)?;
    let path = make::content_path(&args.path)?;
    let draft = Draft {
        piece_len: args.piece_size.0,
        trackers: args.trackers.iter().map(|url| vec![url.clone()]).collect(),
        web_seeds: args.web_seeds.clone(),
        comment: args.comment.clone(),
        private: args.private,
        source: args.source.clone(),
        creation_date: args.date.then(clock::unix_seconds),
        ..Draft::default()
    };
    let Some(metainfo) =
        make::hash(&path, draft, args.follow_links, args.output.as_deref(), report, &|| true)?
    else {
        return Err(Failure::Failed("stopped".to_owned()));
    };
    let output = make::target(&metainfo, args.output.as_deref(), &path)?;
    out_file::write(&output, &metainfo.encode(), "-o")?;
    let (info, output) = (&metainfo.info, output.to_string_lossy());
    report.say(&format!(
        "Created {}: {}, {}, {} of {}\ninfohash {}",
        printable(&output),
        counted(info.files.iter().filter(|file| !file.attributes.pad).count(), "file"),
        show_len(info.content_len()),
        counted(info.geometry.piece_count() as usize, "piece"),
        show_len(u64::from(info.geometry.piece_len())),
        info.infohash
    ));
    report.event(&json!({
        "event": "created", "torrent": output, "name": info.name, "infohash": info.infohash.to_string(),
        "size": info.content_len(), "piece_length": info.geometry.piece_len(),
        "piece_count": info.geometry.piece_count(),
    }));
    Ok(())
}
