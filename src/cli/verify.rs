//! `sprat verify`: check content against its torrent, file by file.

use std::path::Path;

use serde_json::json;

use super::args::VerifyArgs;
use super::clock;
use super::failure::{Failure, words};
use super::misfit;
use super::plan;
use super::presence;
use super::report::Report;
use super::runtime;
use super::size::{show_len, show_rate};
use super::source::Source;
use super::text::{counted, printable};
use crate::engine::verify::{self, Condition, FileReport, Verdict};
use crate::engine::{Info, Obstacle, StorageError, TorrentSource};

/// Hashes everything and says which files are not as they should be.
pub(crate) fn run(args: &VerifyArgs, report: &Report) -> Result<(), Failure> {
    let source = Source::parse(&args.torrent)?;
    let info = match runtime::block_on(source.open())? {
        TorrentSource::Metainfo(metainfo) => metainfo.info,
        TorrentSource::Magnet(magnet) => plan::kept(&magnet).ok_or_else(|| {
            Failure::Usage(
                "the metadata of this magnet link is not kept here: give the .torrent file, or fetch it with `sprat show`"
                    .to_owned(),
            )
        })?,
    };
    let total = info.content_len();
    let meter = report.meter(total);
    let since = clock::now();
    let resume_dir = plan::resume_dir();
    let (dir, follow_links) = (&args.dir, args.follow_links);
    let verdict = verify::verify(&info, dir, follow_links, resume_dir.as_deref(), &|done| {
        meter.update(
            done,
            || {
                let rate = done as f64 / clock::now().duration_since(since).as_secs_f64().max(0.001);
                format!("checking: {} of {}, {}", show_len(done), show_len(total), show_rate(rate as u64))
            },
            || json!({"event": "checking", "done": done, "total": total}),
        );
    });
    let verdict = verdict.map_err(|error| unusable(error, dir))?;
    drop(meter);
    tell(&info, &verdict, args.files, report);
    conclude(&info, &verdict, report)
}

/// A folder that cannot be used is named with what to do.
fn unusable(error: StorageError, dir: &Path) -> Failure {
    if error.path == dir { Failure::io(dir, &error.source, presence::HINT) } else { error.into() }
}

/// Each file that is not good, and the good ones if wanted.
fn tell(info: &Info, verdict: &Verdict, all: bool, report: &Report) {
    for found in &verdict.files {
        let Some(file) = info.files.get(found.file) else { continue };
        let path = file.path.join("/");
        let (state, note) = condition_words(found, file.len);
        let stored_as = verdict.other_names.get(&found.file);
        let mut event = json!({
            "event": "file", "path": path, "state": state, "length": file.len, "missing": found.missing_len,
        });
        if let Some(stored_as) = stored_as {
            event["stored_as"] = json!(stored_as);
        }
        report.event(&event);
        if !found.is_whole() || all || stored_as.is_some() {
            let stored_as = stored_as.map_or(String::new(), |path| format!(" as {}", printable(path)));
            report.say(&format!("{state:<10} {}{stored_as}  ({note})", printable(&path)));
        }
    }
}

/// One word for scripts, and some for people.
fn condition_words(found: &FileReport, len: u64) -> (&'static str, String) {
    let missing = format!("{} of {} missing", show_len(found.missing_len), show_len(len));
    match &found.condition {
        Condition::Whole => ("good", show_len(len)),
        Condition::Missing => ("missing", missing),
        Condition::Shorter { actual_len } => {
            ("short", format!("ends at {}, {missing}", show_len(*actual_len)))
        }
        Condition::Longer { actual_len } => {
            ("long", format!("goes on to {}, {missing}", show_len(*actual_len)))
        }
        Condition::Damaged => ("damaged", missing),
        Condition::Unchecked => ("unchecked", "shares pieces with files that cannot be read".to_owned()),
        // It may be the folder that is not as it should be.
        Condition::Unreadable(error) if error.obstacle().is_some() => {
            ("unreadable", format!("{}: {}", printable(&error.path.to_string_lossy()), words(&error.source)))
        }
        Condition::Unreadable(error) => ("unreadable", words(&error.source)),
    }
}

fn conclude(info: &Info, verdict: &Verdict, report: &Report) -> Result<(), Failure> {
    let files = verdict.files.len();
    let bad = verdict.files.iter().filter(|found| !found.is_whole()).count();
    let missing_len: u64 = verdict.files.iter().map(|found| found.missing_len).sum();
    let pieces = info.geometry.piece_count();
    let bad_pieces = pieces - verdict.good.count();
    let good = bad == 0 && bad_pieces == 0;
    report.event(&json!({
        "event": "verified", "good": good, "bad_files": bad, "files": files,
        "good_pieces": verdict.good.count(), "pieces": pieces, "missing": missing_len,
    }));
    if good {
        report.say(&format!(
            "{}: {} good, {}",
            printable(&info.name),
            counted(files, "file"),
            show_len(info.content_len())
        ));
        return Ok(());
    }
    let name = printable(&info.name);
    if let Some(error) = unreadable(verdict) {
        return Err(Failure::Failed(format!(
            "{name}: {bad} of {} could not be checked: {}: {}",
            counted(files, "file"),
            printable(&error.path.to_string_lossy()),
            words(&error.source)
        )));
    }
    let what = format!("{name}: {bad} of {} not good", counted(files, "file"));
    let is_all_there = missing_len == 0 && bad_pieces == 0;
    let missing = if is_all_there {
        String::new()
    } else {
        let pieces = counted(pieces as usize, "piece");
        format!(", {} in {bad_pieces} of {pieces} missing", show_len(missing_len))
    };
    Err(Failure::Bad(format!("{what}{missing}; {}", advice(verdict, is_all_there))))
}

/// What puts it right; `is_all_there`: no byte of the content is missing.
fn advice(verdict: &Verdict, is_all_there: bool) -> String {
    let has_foreign = verdict.misfits.iter().any(|misfit| !misfit.is_ours);
    let has = |is_so: fn(&Condition) -> bool| verdict.files.iter().any(|found| is_so(&found.condition));
    let is_longer = has(|condition| matches!(condition, Condition::Longer { .. }));
    let is_missing = has(|condition| matches!(condition, Condition::Missing));
    let option = if has_foreign { " --overwrite" } else { "" };
    let download = match (is_all_there, is_longer, is_missing) {
        (false, _, _) => misfit::advice(has_foreign).to_owned(),
        (true, true, false) => format!("`sprat download{option}` cuts longer files to their length"),
        (true, true, true) => format!(
            "`sprat download{option}` cuts longer files to their length and makes the missing empty files"
        ),
        (true, false, true) => "`sprat download` makes the missing empty files".to_owned(),
        (true, false, false) => "`sprat download` makes the file in its place".to_owned(),
    };
    match verdict.files.iter().find_map(|found| obstacle(&found.condition)) {
        Some((path, obstacle)) => format!(
            "first move away {} ({obstacle}), then {download}{}",
            printable(&path.to_string_lossy()),
            if obstacle.is_followable() { "; or read through it with --follow-links" } else { "" }
        ),
        None => download,
    }
}

/// What stands in the place of a file and is none: a download refuses to begin until it is gone.
fn obstacle(condition: &Condition) -> Option<(&Path, Obstacle)> {
    match condition {
        Condition::Unreadable(error) => Some((&error.path, error.obstacle()?)),
        Condition::Whole
        | Condition::Missing
        | Condition::Shorter { .. }
        | Condition::Longer { .. }
        | Condition::Damaged
        | Condition::Unchecked => None,
    }
}

/// Why files could not be checked, if that is all there is to say of any.
fn unreadable(verdict: &Verdict) -> Option<&StorageError> {
    let mut first = None;
    for found in &verdict.files {
        match &found.condition {
            Condition::Whole | Condition::Unchecked => {}
            Condition::Unreadable(error) if error.obstacle().is_none() => {
                first = first.or(Some(error));
            }
            Condition::Missing
            | Condition::Shorter { .. }
            | Condition::Longer { .. }
            | Condition::Damaged
            | Condition::Unreadable(_) => return None,
        }
    }
    first
}
