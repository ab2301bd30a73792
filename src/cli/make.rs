//! From a path to a torrent with progress shown, and from a torrent to its file.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::clock;
use super::failure::Failure;
use super::out_file;
use super::report::Report;
use super::size::{show_len, show_rate};
use super::text::printable;
use crate::engine::metainfo::METAINFO_LEN_MAX;
use crate::engine::metainfo::create::Draft;
use crate::engine::{self, Metainfo};

/// The real path of content to share: no links, no `.` or `..`, so that its name and folder are known.
pub(crate) fn content_path(path: &Path) -> Result<PathBuf, Failure> {
    let real = path.canonicalize().map_err(|error| Failure::io(path, &error, ""))?;
    if real.file_name().is_none() || real.parent().is_none() {
        return Err(Failure::Usage(format!("{}: a file or folder with a name is wanted", real.display())));
    }
    Ok(real)
}

/// Reads and hashes what `path` (from [`content_path`]) holds. `going` is asked now and then; false: None.
pub(crate) fn hash(
    path: &Path,
    draft: Draft,
    report: &Report,
    going: &dyn Fn() -> bool,
) -> Result<Option<Metainfo>, Failure> {
    let draft = engine::make::survey(path, draft)?;
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
    let made = engine::make::hash(path, draft, &mut progress)?;
    if let Some((given, _)) = made.as_ref().and_then(|metainfo| metainfo.info.renamed.first()) {
        return Err(Failure::Usage(format!(
            "{}: this name cannot be shared safely; rename it first",
            printable(given)
        )));
    }
    Ok(made)
}

/// Writes the torrent to `output`, or else to `NAME.torrent` in the current folder, where only a torrent of
/// the same content is replaced.
pub(crate) fn write(metainfo: &Metainfo, output: Option<&Path>, content: &Path) -> Result<PathBuf, Failure> {
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
    if output.is_none() && folder.canonicalize().is_ok_and(|folder| folder.starts_with(content)) {
        return Err(Failure::Usage(
            "the .torrent file would lie inside the content that it describes; say where with -o".to_owned(),
        ));
    }
    out_file::write(&target, &metainfo.encode())?;
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
