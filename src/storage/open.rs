//! Opens the folder of a torrent on the real disk, and creates it if it is missing and may be
//! created.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::content::{Content, StorageError};
use super::disk::SharedStore;
use super::fs::RealFs;
use super::handles::Handles;
use super::journal::Trouble;
use super::journals;
use super::lifecycle::{Purpose, folder_gone};
use super::store::Store;
use crate::proto::metainfo::Info;

/// The folder of a torrent's content, and what may be done to it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The folder.
    pub dir: &'a Path,
    /// Decides whether the folder may be created.
    pub purpose: Purpose,
    /// Whether symbolic links are followed for reading.
    pub follow_links: bool,
}

/// Opens a torrent's content; may wait for a disk. An existing folder need not be writable, so
/// complete content can be seeded from a read-only place.
///
/// # Errors
/// The folder cannot be used, or it is missing although the journal says that it held content.
pub fn open(
    place: Place<'_>,
    journals: Option<&Arc<RealFs>>,
    handles: &Arc<Handles>,
    info: Info,
    selected: Vec<bool>,
) -> Result<SharedStore, StorageError> {
    let Place { dir, purpose, follow_links } = place;
    let files = match purpose {
        _ if dir.is_dir() => RealFs::open(dir, handles)?,
        Purpose::Seed => RealFs::open(dir, handles)?,
        Purpose::Download => {
            require_unwritten(journals, dir, &info)?;
            RealFs::create(dir, handles)?
        }
        Purpose::Overwrite => RealFs::create(dir, handles)?,
    };
    let files = files.following_links(follow_links);
    Ok(Arc::new(Store::new(Content::new(info, selected, files))))
}

/// Checks that the journal records no content for a missing folder, so that it may be created.
///
/// # Errors
/// The journal records content, or cannot be read.
fn require_unwritten(journals: Option<&Arc<RealFs>>, dir: &Path, info: &Info) -> Result<(), StorageError> {
    let Some(journals) = journals else { return Ok(()) };
    let unknown = |error: &StorageError| {
        let why = format!(
            "this folder is gone, and whether it was downloaded to is unknown (journal {error}); mount its disk, \
             or give --overwrite to download to a new folder"
        );
        StorageError::new(dir, io::Error::new(io::ErrorKind::NotFound, why))
    };
    let mut journal =
        journals::open_journal(Arc::clone(journals), info, dir).map_err(|error| unknown(&error))?;
    if let Some(Trouble::Unusable(error, _)) = journal.take_trouble() {
        return Err(unknown(&error));
    }
    let record = journal.record();
    if record.owned.is_some() && record.kept.count() > 0 { Err(folder_gone(dir)) } else { Ok(()) }
}
