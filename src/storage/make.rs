//! From files on disk to a torrent: walking folders and hashing pieces, for `create` and `seed PATH`.

use std::path::Path;

use super::content::StorageError;
use crate::proto::metainfo::Metainfo;
use crate::proto::metainfo::create::Draft;

/// Reads `path` (a file or a folder, entries in order of name, hidden ones included, symlinks to nowhere
/// refused) into a draft with name, files and, if `draft.piece_len` is 0, the automatic piece length.
pub fn survey(path: &Path, draft: Draft) -> Result<Draft, StorageError> {
    let _ = (path, draft);
    todo!()
}

/// Hashes what [`survey`] found. `progress` is told bytes hashed so far; `false` from it stops (None).
pub fn hash(
    path: &Path,
    draft: Draft,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Metainfo>, StorageError> {
    let _ = (path, draft, progress);
    todo!()
}
