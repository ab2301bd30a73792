//! Whether content can be there at all: names and lengths, before anything is read.

use std::io::ErrorKind;
use std::path::Path;

use super::failure::Failure;
use super::size::show_len;
use super::text::{counted, printable};
use crate::engine::Info;

/// Refuses to go on when files are missing or shorter than the torrent says: no need to hash the rest.
pub(crate) fn require(info: &Info, dir: &Path) -> Result<(), Failure> {
    // A folder that is missing or closed is not the same as a file that is.
    std::fs::metadata(dir.join(".")).map_err(|error| Failure::io(dir, &error, HINT))?;
    let (missing_count, missing_len) = missing(info, dir)?;
    if missing_count == 0 {
        return Ok(());
    }
    Err(Failure::Bad(format!(
        "{}: {} missing or short in {}, {} of {}; say where the content is with -d, or fetch it with `sprat download`",
        printable(&info.name),
        counted(missing_count, "file"),
        printable(&dir.to_string_lossy()),
        show_len(missing_len),
        show_len(info.content_len())
    )))
}

/// What to do about a folder that cannot be used.
const HINT: &str = "; say where the content is with -d";

/// Files that are not there in full length, and the bytes they lack. Empty files can be made any time.
///
/// # Errors
/// A file may not be looked at.
fn missing(info: &Info, dir: &Path) -> Result<(usize, u64), Failure> {
    let (mut missing_count, mut missing_len) = (0, 0);
    for file in info.files.iter().filter(|file| !file.attributes.pad && file.len > 0) {
        let path = file.path.iter().fold(dir.to_owned(), |path, element| path.join(element));
        let found = match std::fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(Failure::io(&path, &error, ""));
            }
            found => found.ok().filter(std::fs::Metadata::is_file),
        };
        let lack = file.len.saturating_sub(found.map_or(0, |found| found.len()));
        missing_count += usize::from(lack > 0);
        missing_len += lack;
    }
    Ok((missing_count, missing_len))
}
