//! What is transferred: a folder with files that share pieces, one empty, one with an odd name.

use std::path::{Path, PathBuf};
use std::process::Command;

use sprat::proto::infohash::InfoHash;
use sprat::proto::metainfo::Metainfo;
use sprat::proto::rng::Rng;

/// Name of the folder, and of the torrent.
const NAME: &str = "interop content";
/// Paths and lengths; about 5 MiB.
const FILES: [(&str, usize); 5] = [
    ("a.bin", 3_000_001),
    ("sub/b.bin", 70_000),
    ("sub/empty", 0),
    ("sub/deep/größe – 1.txt", 17),
    ("z.bin", 2_097_152),
];

/// One file that takes a limited seed a while.
const LARGE_FILES: [(&str, usize); 1] = [("large.bin", 24 << 20)];
/// One that takes it so long that how it begins and ends hardly counts.
const LONG_FILES: [(&str, usize); 1] = [("long.bin", 128 << 20)];

/// The content on disk.
pub(crate) struct Content {
    folder: PathBuf,
    files: &'static [(&'static str, usize)],
}

impl Content {
    /// Writes it below `work`.
    pub(crate) fn generate(work: &Path) -> Self {
        Self::with(work, &FILES)
    }

    /// The same of a larger file.
    pub(crate) fn generate_large(work: &Path) -> Self {
        Self::with(work, &LARGE_FILES)
    }

    /// The same of one that takes much longer.
    pub(crate) fn generate_long(work: &Path) -> Self {
        Self::with(work, &LONG_FILES)
    }

    fn with(work: &Path, files: &'static [(&'static str, usize)]) -> Self {
        let folder = work.join("seeded");
        let mut rng = Rng::from_number(1);
        for &(path, len) in files {
            let path = folder.join(NAME).join(path);
            std::fs::create_dir_all(path.parent().expect("files lie in folders")).expect("a new folder");
            let mut bytes = vec![0; len];
            rng.fill(&mut bytes);
            std::fs::write(path, bytes).expect("a new file");
        }
        Self { folder, files }
    }

    /// Bytes of all files.
    pub(crate) fn total_len(&self) -> u64 {
        self.files.iter().map(|&(_, len)| len as u64).sum()
    }

    /// The folder that holds the content's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes its torrent by our own `create`, so that others show whether they accept it.
    pub(crate) fn torrent(&self, tracker: &str) -> PathBuf {
        self.create(&["--piece-size", "65536", "--tracker", tracker])
    }

    /// The same in fewer pieces, for those who give one piece after another.
    pub(crate) fn torrent_of_large_pieces(&self, tracker: &str) -> PathBuf {
        self.create(&["--piece-size", "262144", "--tracker", tracker])
    }

    /// The same for those who find each other without a tracker.
    pub(crate) fn torrent_without_tracker(&self) -> PathBuf {
        self.create(&["--piece-size", "65536"])
    }

    fn create(&self, options: &[&str]) -> PathBuf {
        let torrent = self.folder.with_extension("torrent");
        let output = Command::new(env!("CARGO_BIN_EXE_sprat"))
            .arg("create")
            .arg(self.folder.join(NAME))
            .args(options)
            .arg("-o")
            .arg(&torrent)
            .output()
            .expect("our own binary");
        assert!(output.status.success(), "create: {}", String::from_utf8_lossy(&output.stderr));
        torrent
    }

    /// The infohash of the torrent.
    pub(crate) fn infohash(&self, torrent: &Path) -> InfoHash {
        let bytes = std::fs::read(torrent).expect("the torrent just made");
        Metainfo::decode(&bytes).expect("our own torrent").info.infohash
    }

    /// The pieces of the torrent.
    pub(crate) fn piece_count(&self, torrent: &Path) -> u32 {
        let bytes = std::fs::read(torrent).expect("the torrent just made");
        Metainfo::decode(&bytes).expect("our own torrent").info.geometry.piece_count()
    }

    /// Changes a few bytes of a file on disk, far from each other; how many pieces that spoils.
    pub(crate) fn spoil(&self) -> u32 {
        let path = self.folder.join(NAME).join("z.bin");
        let mut bytes = std::fs::read(&path).expect("the file just made");
        let places = [500_000, 1_000_000, bytes.len() - 1];
        places.into_iter().for_each(|at| bytes[at] ^= 1);
        std::fs::write(path, bytes).expect("a file of ours");
        places.len() as u32
    }

    /// Whether `downloaded` holds the same, with or without files that have no content.
    pub(crate) fn is_equal(&self, downloaded: &Path, with_empty: bool) -> bool {
        self.files.iter().filter(|(_, len)| with_empty || *len > 0).all(|(path, _)| {
            let read = |folder: &Path| std::fs::read(folder.join(NAME).join(path)).ok();
            read(downloaded) == read(&self.folder)
        })
    }
}
