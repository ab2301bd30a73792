//! Whether content can be there at all: names and lengths, before anything is read.

use std::path::Path;

use super::failure::Failure;
use super::size::show_len;
use super::text::{counted, printable};
use crate::engine::Info;

/// Refuses to go on when files are missing or shorter than the torrent says: no need to hash the rest.
pub(crate) fn require(info: &Info, dir: &Path) -> Result<(), Failure> {
    let (missing_count, missing_len) = missing(info, dir);
    if missing_count == 0 {
        return Ok(());
    }
    Err(Failure::Bad(format!(
        "{}: {} missing or short in {}, {} of {}; say where the content is with -d, or fetch it with `sprat download`",
        printable(&info.name),
        counted(missing_count, "file"),
        printable(&dir.to_string_lossy()),
        show_len(missing_len),
        show_len(info.geometry.total_len())
    )))
}

/// Files that are not there in full length, and the bytes they lack. Empty files can be made any time.
fn missing(info: &Info, dir: &Path) -> (usize, u64) {
    let wanted = info.files.iter().filter(|file| !file.attributes.pad && file.len > 0);
    let lacks = wanted.filter_map(|file| {
        let path = file.path.iter().fold(dir.to_owned(), |path, element| path.join(element));
        let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file);
        let lack = file.len.saturating_sub(found.map_or(0, |found| found.len()));
        (lack > 0).then_some(lack)
    });
    lacks.fold((0, 0), |(count, len), lack| (count + 1, len + lack))
}
