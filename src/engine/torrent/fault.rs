//! From an error of the disk to what people are told while the torrent waits for it to pass.

use crate::proto::bitfield::Bitfield;
use crate::proto::torrent::event::StorageFault;
use crate::storage::content::StorageError;
use crate::storage::disk::DiskContent;
use crate::storage::fs::FileSystem;

/// What an error means for a torrent that has `have`.
pub(super) fn fault_of(error: &StorageError, content: &DiskContent, have: &Bitfield) -> StorageFault {
    if error.is_out_of_descriptors() {
        return StorageFault::OutOfDescriptors(error.to_string());
    }
    if !error.is_full() {
        return StorageFault::Failed(error.to_string());
    }
    let fs = content.content().fs();
    let folder = fs.full_path(&[]);
    if !error.path.starts_with(&folder) {
        // The journal, elsewhere.
        return StorageFault::Full { place: error.path.display().to_string(), missing_len: None };
    }
    let missing_len = fs.free_len().map(|free| missing(content, have).saturating_sub(free));
    StorageFault::Full {
        place: folder.display().to_string(),
        // Nothing missing, and full all the same: a quota, or room for others.
        missing_len: missing_len.filter(|&len| len > 0),
    }
}

/// Bytes of wanted pieces that are not there.
pub(super) fn missing(content: &DiskContent, have: &Bitfield) -> u64 {
    let geometry = content.info().geometry;
    let wanted = content.content().wanted();
    wanted.iter_set().filter(|&piece| !have.get(piece)).map(|piece| u64::from(geometry.len_of(piece))).sum()
}
