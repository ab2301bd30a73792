//! Whether a torrent would be written over the content that it describes.
//!
//! A file that exists is compared by device and inode, so symbolic and hard links and other
//! spellings of a path do not hide it. A file that does not exist yet is compared by the path at
//! which it will be made: as far as folders exist, links in it are resolved. Case does not count
//! there: the file system may take both names for one file.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::failure::Failure;
use super::out_file;
use super::text::printable;
use crate::engine::Info;

/// Symbolic links that are followed to a target that does not exist; the system gives up after as
/// many.
const LINK_MAX: usize = 40;

/// Refuses a target that is a file of the content in `dir`, or in the place of one or of a folder
/// of it; `option` is how the user named the target.
pub(crate) fn refuse(target: &Path, info: &Info, dir: &Path, option: &str) -> Result<(), Failure> {
    let files = info.files.iter().filter(|file| !file.attributes.pad);
    let parts = PathBuf::from(format!(".{}.parts", info.infohash));
    let paths = files.map(|file| file.path.iter().collect::<PathBuf>()).chain([parts]);
    let paths: Vec<PathBuf> = paths.collect();
    refuse_existing(target, paths.iter().map(|path| dir.join(path)), option)?;
    if out_file::is_standard(target) {
        return Ok(());
    }
    let (wanted, dir) = (folded(&resolved(target)), resolved(dir));
    // A folder of the content cannot be made where the target is.
    let is_on_way = |path: &PathBuf| folded(&resolved(&dir.join(path))).starts_with(&wanted);
    let in_way = paths.iter().find(|path| is_on_way(path));
    in_way.map_or(Ok(()), |path| Err(refused(target, &dir.join(path), option)))
}

/// Refuses a target that is one of these files by whatever name.
pub(crate) fn refuse_existing(
    target: &Path,
    mut paths: impl Iterator<Item = PathBuf>,
    option: &str,
) -> Result<(), Failure> {
    let existing = if out_file::is_standard(target) { Path::new("/dev/stdout") } else { target };
    let Ok(existing) = existing.metadata() else { return Ok(()) };
    if !existing.is_file() {
        return Ok(());
    }
    let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    let is_same = |path: &PathBuf| {
        path.metadata().is_ok_and(|found| found.is_file() && identity(&found) == identity(&existing))
    };
    paths.find(is_same).map_or(Ok(()), |path| Err(refused(target, &path, option)))
}

fn refused(target: &Path, path: &Path, option: &str) -> Failure {
    let show = |path: &Path| printable(&path.to_string_lossy());
    let target = if out_file::is_standard(target) { "standard output".to_owned() } else { show(target) };
    Failure::Usage(format!(
        "{target} is in the place of {}, which belongs to the content; choose another place for the torrent with \
         {option}",
        show(path)
    ))
}

/// The absolute path at which a file would be made, links resolved as far as the way to it exists.
fn resolved(path: &Path) -> PathBuf {
    let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for _ in 0..LINK_MAX {
        if let Ok(whole) = path.canonicalize() {
            return whole;
        }
        match (path.read_link(), path.parent()) {
            (Ok(link), Some(folder)) => path = folder.join(link),
            (Ok(_) | Err(_), _) => break,
        }
    }
    let Some(folder) = path.parent().map(resolved) else { return path };
    match path.components().next_back() {
        Some(Component::Normal(name)) => folder.join(name),
        Some(Component::ParentDir) => folder.parent().map_or(folder.clone(), Path::to_owned),
        Some(Component::Prefix(_) | Component::RootDir | Component::CurDir) | None => folder,
    }
}

fn folded(path: &Path) -> PathBuf {
    path.to_str().map_or_else(|| path.to_owned(), |text| text.to_lowercase().into())
}
