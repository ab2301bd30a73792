//! From a path to a torrent with progress shown, and from a torrent to its file.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::clock;
use super::failure::Failure;
use super::overlap;
use super::report::Report;
use super::size::{show_len, show_rate};
use super::text::printable;
use crate::engine::make::{LeftOut, Walk};
use crate::engine::metainfo::METAINFO_LEN_MAX;
use crate::engine::metainfo::create::Draft;
use crate::engine::{self, Metainfo};

/// The path of content to share with its folder's links resolved, so that its name and folder are
/// known; the name is as typed.
pub(crate) fn content_path(path: &Path) -> Result<PathBuf, Failure> {
    let (folder, name) = engine::make::locate(path)?;
    Ok(folder.join(name))
}

/// Why an entry of a folder is not in its torrent, in words.
fn left_out(why: LeftOut) -> &'static str {
    match why {
        LeftOut::Link => "a symbolic link; --follow-links includes what it leads to",
        LeftOut::DanglingLink => "a symbolic link that leads nowhere",
        LeftOut::Loop => "a symbolic link to a folder that it lies in",
        LeftOut::Special => "neither a file nor a folder",
    }
}

/// Reads and hashes what `path` (from [`content_path`]) holds. `going` is asked now and then;
/// false: None. `target` is where the user wants the torrent.
///
/// # Errors
/// The content cannot be read or be made a torrent, or the target is one of its files.
pub(crate) fn hash(
    path: &Path,
    draft: Draft,
    follow_links: bool,
    target: Option<&Path>,
    report: &Report,
    going: &(dyn Fn() -> bool + Sync),
) -> Result<Option<Metainfo>, Failure> {
    let mut warn = |path: &Path, why| {
        report.warn(&format!("{} is left out: {}", printable(&path.to_string_lossy()), left_out(why)));
    };
    let draft = engine::make::survey_by(path, draft, Walk { follow_links, left_out: &mut warn })?;
    if let Some(target) = target {
        // Joining the empty path of a single file would make a folder of it.
        let place = |elements: &[String]| elements.iter().fold(path.to_owned(), |path, name| path.join(name));
        overlap::refuse_existing(target, draft.files.iter().map(|file| place(&file.path)), "-o")?;
    }
    let total: u64 = draft.files.iter().map(|file| file.len).sum();
    let meter = report.meter(total);
    let since = clock::now();
    let mut progress = |done: u64| {
        meter.update(
            done,
            || {
                let rate = done as f64 / clock::now().duration_since(since).as_secs_f64().max(0.001);
                format!("hashing: {} of {}, {}", show_len(done), show_len(total), show_rate(rate as u64))
            },
            || json!({"event": "hashing", "done": done, "total": total}),
        );
        going()
    };
    Ok(engine::make::hash(path, draft, &mut progress)?)
}

/// Where the torrent is written: to `output`, or else to `NAME.torrent` in the current folder,
/// where only a torrent of the same content is replaced.
///
/// # Errors
/// Another torrent would be replaced, or the torrent would lie inside its content.
pub(crate) fn target(metainfo: &Metainfo, output: Option<&Path>, content: &Path) -> Result<PathBuf, Failure> {
    let target = match output {
        Some(path) => path.to_owned(),
        None => {
            let target = PathBuf::from(format!("{}.torrent", metainfo.info.name));
            refuse_overwriting(&target, metainfo)?;
            target
        }
    };
    let folder = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let content = &content.canonicalize().unwrap_or_else(|_| content.to_owned());
    if output.is_none() && folder.canonicalize().is_ok_and(|folder| folder.starts_with(content)) {
        return Err(Failure::Usage(
            "the .torrent file would lie inside the content that it describes; say where with -o".to_owned(),
        ));
    }
    Ok(target)
}

fn refuse_overwriting(target: &Path, metainfo: &Metainfo) -> Result<(), Failure> {
    let found = match std::fs::metadata(target) {
        Ok(found) => found,
        Err(_) => return Ok(()),
    };
    // A pipe would be waited for.
    let same = found.is_file()
        && found.len() <= METAINFO_LEN_MAX as u64
        && std::fs::read(target)
            .ok()
            .and_then(|bytes| Metainfo::decode(&bytes).ok())
            .is_some_and(|found| found.info.infohash == metainfo.info.infohash);
    if same {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "{} is there already and describes something else, or in other pieces; seed that one, or choose another \
         place with -o",
        printable(&target.to_string_lossy())
    )))
}
