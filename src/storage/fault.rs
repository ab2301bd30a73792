//! Classifies errors of the disk: a state that may clear, a file in use, or a fault that needs the
//! user.

use std::io;
use std::path::PathBuf;

use super::content::StorageError;
use super::fs::FileSystem;
use super::store::Store;

/// Why the disk accepts no data just now, or why a torrent cannot start yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageFault {
    /// No space, or the quota is used up: downloading pauses and continues by itself.
    Full {
        /// The place that could not be written, as the user knows it.
        place: String,
        /// Bytes that do not fit: the bytes still to download minus the free space; `None` if
        /// unknown.
        missing_len: Option<u64>,
    },
    /// The process or the system has no file descriptor left, which says nothing about the disk; in
    /// words.
    OutOfDescriptors(String),
    /// Another error of the disk, in words.
    Failed(String),
}

impl StorageFault {
    /// Whether both have the same cause, however much is missing by now.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Full { place, .. }, Self::Full { place: other, .. }) => place == other,
            (Self::OutOfDescriptors(text), Self::OutOfDescriptors(other))
            | (Self::Failed(text), Self::Failed(other)) => text == other,
            (Self::Full { .. } | Self::OutOfDescriptors(_) | Self::Failed(_), _) => false,
        }
    }
}

/// Why a job failed, with the free space at that moment.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct JobError {
    /// The error with its file.
    pub error: StorageError,
    /// The content's folder and the bytes free there, if the disk is full.
    full: Option<(PathBuf, Option<u64>)>,
}

impl JobError {
    /// Whether another program writes the content.
    pub fn is_busy(&self) -> bool {
        self.error.source.kind() == io::ErrorKind::ResourceBusy
    }

    /// Returns the fault to report while a torrent that lacks `missing_len` bytes waits.
    pub fn fault(&self, missing_len: u64) -> StorageFault {
        if self.error.is_out_of_descriptors() {
            return StorageFault::OutOfDescriptors(self.error.to_string());
        }
        if !self.error.is_full() {
            return StorageFault::Failed(self.error.to_string());
        }
        let Some((folder, free_len)) = &self.full else {
            // The journal is full, which lies elsewhere.
            return StorageFault::Full { place: self.error.path.display().to_string(), missing_len: None };
        };
        let missing_len = free_len.map(|free| missing_len.saturating_sub(free));
        StorageFault::Full {
            place: folder.display().to_string(),
            // The disk is full although enough is free: a quota, or space reserved for others.
            missing_len: missing_len.filter(|&len| len > 0),
        }
    }
}

impl<F: FileSystem> Store<F> {
    /// Adds the free space to an error of this content or its journal.
    pub fn explain(&self, error: StorageError) -> JobError {
        let fs = self.content().fs();
        let folder =
            Some(fs.full_path(&[])).filter(|folder| error.is_full() && error.path.starts_with(folder));
        let full = folder.map(|folder| (folder, fs.free_len()));
        JobError { error, full }
    }
}
