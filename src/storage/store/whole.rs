//! Completion: empty files, executable bits, and the removal of the parts file.

use super::Store;
use crate::proto::bitfield::Bitfield;
use crate::storage::content::{LostPiece, StorageError};
use crate::storage::fs::FileSystem;

impl<F: FileSystem> Store<F> {
    /// Completes a download: creates empty files, sets executable bits and calls [`Store::close`].
    /// Returns the pieces that another program changed meanwhile or that the disk lost; if there
    /// are any, the download is not complete.
    ///
    /// # Errors
    /// A file cannot be created or made durable; the caller may try again.
    pub fn finish(&self, have: &Bitfield) -> Result<Vec<LostPiece>, StorageError> {
        // First, so that every file is looked at after our last write.
        let mut lost = self.commit()?;
        if lost.is_empty() {
            lost = self.content.find_lost(have)?;
        }
        if !lost.is_empty() {
            return Ok(lost);
        }
        self.content.make_whole()?;
        self.close(have)
    }

    /// Creates the empty files and sets the executable bits of content that was complete from the
    /// start, and removes the parts file if no selected file needs it. Does nothing while another
    /// program writes the content, because that one may need the parts file.
    ///
    /// # Errors
    /// A file cannot be created or removed.
    pub fn make_whole(&self) -> Result<(), StorageError> {
        self.unless_others(|| self.content.make_whole())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::testing::sample;

    #[test]
    fn the_parts_file_stays_while_another_download_writes_the_content() {
        let folder = tempfile::tempdir().unwrap();
        let sample = sample(&[("a", 100), ("b", 60)], 32);
        let store = |selected: &[bool]| {
            let store = Store::new(sample.content(folder.path(), selected));
            store.begin(None).unwrap();
            store
        };
        let some = store(&[true, false]);
        some.prepare(&Bitfield::new(5)).unwrap();
        (0..4).for_each(|piece| sample.write(some.content(), piece).unwrap());
        std::fs::write(folder.path().join("b"), sample.file(1)).unwrap();
        let all = store(&[]);
        let file_count = || std::fs::read_dir(folder.path()).unwrap().count();
        all.make_whole().unwrap();
        assert_eq!(file_count(), 3, "the other one uploads from the parts file");
        drop(some);
        all.make_whole().unwrap();
        assert_eq!(file_count(), 2);
    }
}
