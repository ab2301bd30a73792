//! Whether content can be there at all: names and lengths, before anything is read.

use std::path::Path;

use super::failure::Failure;
use super::misfit;
use super::size::show_len;
use super::text::{counted, printable};
use crate::engine::{Info, StorageError, verify};

/// Refuses to go on when files are missing or shorter than the torrent says: the rest need not be
/// hashed.
pub(crate) fn require(info: &Info, dir: &Path, follow_links: bool) -> Result<(), Failure> {
    // A folder that is missing or closed is not the same as a file that is.
    std::fs::metadata(dir.join(".")).map_err(|error| Failure::io(dir, &error, HINT))?;
    let lens = verify::lengths(info, dir, follow_links).map_err(unusable)?;
    let (missing_count, missing_len) = missing(info, &lens);
    if missing_count == 0 {
        return Ok(());
    }
    // Files of other content may be among those that are there; only hashing tells.
    let is_empty = lens.iter().all(Option::is_none);
    let advice =
        if is_empty { "fetch it with `sprat download`" } else { "check what is there with `sprat verify`" };
    Err(Failure::Bad(format!(
        "{}: {} missing or short in {}, {} of {}; say where the content is with -d, or {advice}",
        printable(&info.name),
        counted(missing_count, "file"),
        printable(&dir.to_string_lossy()),
        show_len(missing_len),
        show_len(info.content_len())
    )))
}

/// Something that is not a file in the place of one is bad content, as `sprat verify` says too.
fn unusable(error: StorageError) -> Failure {
    match error.obstacle() {
        Some(obstacle) => Failure::Bad(misfit::seed_obstacle(&error.path, obstacle)),
        None => error.into(),
    }
}

/// What to do about a folder that cannot be used.
pub(crate) const HINT: &str = "; say where the content is with -d";

/// Files that are not there in full length, and the bytes they lack. Empty files can be made any
/// time.
fn missing(info: &Info, lens: &[Option<u64>]) -> (usize, u64) {
    let wanted = info.files.iter().zip(lens).filter(|(file, _)| !file.attributes.pad && file.len > 0);
    let lacks = wanted.map(|(file, len)| file.len.saturating_sub(len.unwrap_or(0))).filter(|&lack| lack > 0);
    lacks.fold((0, 0), |(count, len), lack| (count + 1, len + lack))
}
