//! What the engine's user says of a torrent to add: its description or its name, and what is wanted
//! of it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::proto::infohash::InfoHash;
use crate::proto::metainfo::magnet::Magnet;
use crate::proto::metainfo::{Info, Metainfo};
pub use crate::storage::lifecycle::{Existing, Purpose};

/// What is known of a torrent at the start.
#[derive(Clone, Debug)]
pub enum TorrentSource {
    /// All of it.
    Metainfo(Metainfo),
    /// Its name, and hints: the description is fetched from peers (BEP 9). Trackers (`tr`) and
    /// peers (`x.pe`) are asked, files (`so`) count if no others are selected.
    Magnet(Magnet),
}

impl TorrentSource {
    /// Which torrent; None: a magnet that names only the v2 infohash.
    pub fn infohash(&self) -> Option<InfoHash> {
        match self {
            Self::Metainfo(metainfo) => Some(metainfo.info.infohash),
            Self::Magnet(magnet) => magnet.infohash,
        }
    }

    /// Whether it is known to be private (BEP 27): of a magnet nobody knows.
    pub fn is_private(&self) -> bool {
        match self {
            Self::Metainfo(metainfo) => metainfo.info.private,
            Self::Magnet(_) => false,
        }
    }

    /// The HTTP sources that it names (BEP 19), which are not used yet.
    pub fn web_seeds(&self) -> &[String] {
        match self {
            Self::Metainfo(metainfo) => &metainfo.web_seeds,
            Self::Magnet(magnet) => &magnet.web_seeds,
        }
    }

    /// Whether it names a tracker or a peer.
    pub fn names_anyone(&self) -> bool {
        match self {
            Self::Metainfo(metainfo) => !metainfo.trackers.is_empty(),
            Self::Magnet(magnet) => !magnet.trackers.is_empty() || !magnet.peers.is_empty(),
        }
    }
}

/// Chooses files once they are known: one flag for each of `info.files`, or why none fits, in
/// words.
pub type Choose = dyn Fn(&Info) -> Result<Vec<bool>, String> + Send + Sync;

/// Which files of a torrent to fetch.
#[derive(Clone, Default)]
pub enum Selection {
    /// All, or those that the magnet link names.
    #[default]
    All,
    /// Those whose flag is set, one flag for each of `info.files`.
    Flags(Vec<bool>),
    /// As this says when the files are known.
    Choose(Arc<Choose>),
}

impl fmt::Debug for Selection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => out.write_str("All"),
            Self::Flags(flags) => out.debug_tuple("Flags").field(flags).finish(),
            Self::Choose(_) => out.write_str("Choose"),
        }
    }
}

impl Selection {
    /// One flag for each file of `info`; what `magnet` selects counts where the user said nothing.
    pub(crate) fn flags(self, info: &Info, magnet: Option<&Magnet>) -> Result<Vec<bool>, String> {
        match (self, magnet) {
            (Self::All, None) => Ok(vec![true; info.files.len()]),
            (Self::All, Some(magnet)) => magnet
                .selected(info.files.len())
                .ok_or_else(|| "the magnet link selects files that this torrent does not have".to_owned()),
            (Self::Flags(flags), _) => Ok(flags),
            (Self::Choose(choose), _) => choose(info),
        }
    }
}

/// A torrent to add.
#[derive(Clone, Debug)]
pub struct AddTorrent {
    /// Its description, or its name.
    pub source: TorrentSource,
    /// The folder that holds, or shall hold, its file or folder.
    pub dir: PathBuf,
    /// Which files to fetch.
    pub selection: Selection,
    /// Peers to dial at once.
    pub peers: Vec<SocketAddr>,
    /// Trackers beside the torrent's own, one tier each.
    pub trackers: Vec<String>,
    /// Pieces in order instead of rarest first.
    pub sequential: bool,
    /// What is known of the content on disk.
    pub existing: Existing,
    /// What may be done to files that were there before.
    pub purpose: Purpose,
    /// Set apart the room for all selected files before the first piece, instead of letting them
    /// grow sparse.
    pub preallocate: bool,
    /// Read through symbolic links in the content; nothing is written through them.
    pub follow_links: bool,
    /// Of a magnet fetch the description alone, and leave; no file is touched.
    pub describe_only: bool,
    /// Leave when everything wanted is there and this ratio of sent to size is reached...
    pub ratio_max: Option<f64>,
    /// ...or after seeding for so long, whichever is first; both None: seed until told to stop.
    pub seed_time_max: Option<Duration>,
}

impl AddTorrent {
    /// All files of `metainfo` below `dir`, checked first, seeded until told to stop.
    pub fn new(metainfo: Metainfo, dir: PathBuf) -> Self {
        Self::from_source(TorrentSource::Metainfo(metainfo), dir)
    }

    /// The torrent that `magnet` names: described by its peers, then as by [`AddTorrent::new`].
    pub fn magnet(magnet: Magnet, dir: PathBuf) -> Self {
        Self::from_source(TorrentSource::Magnet(magnet), dir)
    }

    fn from_source(source: TorrentSource, dir: PathBuf) -> Self {
        Self {
            source,
            dir,
            selection: Selection::All,
            peers: Vec::new(),
            trackers: Vec::new(),
            sequential: false,
            existing: Existing::Unknown,
            purpose: Purpose::Download,
            preallocate: false,
            follow_links: false,
            describe_only: false,
            ratio_max: None,
            seed_time_max: None,
        }
    }
}
