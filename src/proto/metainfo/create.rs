//! Makes a torrent from names, lengths and piece hashes that the shell has read (BEP 3, 12, 19, 27,
//! 47).
//!
//! A draft is encoded and parsed by the same rules as any torrent, so that no result is made that
//! parsing would refuse. Names that parsing would change are refused, because the files on disk
//! would have other names than in the torrent. Names that are not UTF-8 cannot become a draft; the
//! shell reports them.

use bytes::Bytes;

use super::{Info, Layout, Metainfo, MetainfoError, is_absolute_url, path};
use crate::proto::bencode::{encode_bytes, encode_dict, encode_integer, encode_list};

/// The value of `created by`.
pub const CREATED_BY: &str = concat!("sprat/", env!("CARGO_PKG_VERSION"));

/// Shortest automatic piece, one block: shorter ones only cost hashes and messages.
const AUTOMATIC_MIN: u32 = 16 << 10;
/// Longest automatic piece: bounds what a bad piece costs to download again, and a peer's memory.
const AUTOMATIC_MAX: u32 = 16 << 20;
/// Most pieces of an automatic length: enough to trade, few enough to announce.
const AUTOMATIC_PIECE_COUNT_MAX: u64 = 2_000;

/// The content of a torrent to make.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Name of the file or folder.
    pub name: String,
    /// The files below the folder in order: path elements and length; an empty path means a single
    /// file called `name`.
    pub files: Vec<DraftFile>,
    /// Piece length, bytes; see [`automatic_piece_len`].
    pub piece_len: u32,
    /// Trackers in tiers.
    pub trackers: Vec<Vec<String>>,
    /// HTTP sources.
    pub web_seeds: Vec<String>,
    /// Free text.
    pub comment: Option<String>,
    /// BEP 27.
    pub private: bool,
    /// `source` key.
    pub source: Option<String>,
    /// Seconds since 1970; None leaves the key out, so that equal content gives equal files.
    pub creation_date: Option<i64>,
}

/// One file of a draft.
#[derive(Clone, Debug)]
pub struct DraftFile {
    /// Elements below the folder; empty for a single file.
    pub path: Vec<String>,
    /// Bytes.
    pub len: u64,
    /// BEP 47 `x`.
    pub executable: bool,
}

/// Returns a power of two between 16 KiB and 16 MiB that cuts `total_len` into about 1,000 to 2,000
/// pieces.
pub fn automatic_piece_len(total_len: u64) -> u32 {
    let mut piece_len = AUTOMATIC_MIN;
    while piece_len < AUTOMATIC_MAX && total_len.div_ceil(u64::from(piece_len)) > AUTOMATIC_PIECE_COUNT_MAX {
        piece_len *= 2;
    }
    piece_len
}

/// Returns an element of `files`.
fn encode_file(file: &DraftFile) -> Vec<u8> {
    encode_dict([
        ("attr", attr(file)),
        ("length", Some(encode_integer(file.len as i64))),
        ("path", Some(encode_list(file.path.iter().map(encode_bytes)))),
    ])
}

fn attr(file: &DraftFile) -> Option<Vec<u8>> {
    file.executable.then(|| encode_bytes("x"))
}

impl Draft {
    /// Makes the torrent from the SHA-1 of each piece in order.
    ///
    /// # Errors
    /// The user's input is at fault if names, URLs or lengths are refused; the caller if the number
    /// of hashes differs from that of the pieces.
    pub fn finish(self, piece_hashes: Bytes) -> Result<Metainfo, MetainfoError> {
        for url in self.trackers.iter().flatten().chain(&self.web_seeds) {
            if !is_absolute_url(url) {
                return Err(MetainfoError::Url(path::printable(url)));
            }
        }
        let info = Info::decode(Bytes::from(self.encode_info(&piece_hashes)))?;
        refuse_changed(&info)?;
        Ok(Metainfo {
            info,
            trackers: self.trackers.into_iter().filter(|tier| !tier.is_empty()).collect(),
            web_seeds: self.web_seeds,
            nodes: Vec::new(),
            comment: self.comment,
            created_by: Some(CREATED_BY.to_owned()),
            creation_date: self.creation_date,
            oddities: Vec::new(),
        })
    }

    /// A single file has no path below a folder.
    fn layout(&self) -> Layout {
        match self.files.as_slice() {
            [only] if only.path.is_empty() => Layout::SingleFile,
            _ => Layout::Folder,
        }
    }

    fn encode_info(&self, piece_hashes: &[u8]) -> Vec<u8> {
        let single = match self.layout() {
            Layout::SingleFile => self.files.first(),
            Layout::Folder => None,
        };
        let files = || encode_list(self.files.iter().map(encode_file));
        encode_dict([
            ("attr", single.and_then(attr)),
            ("files", single.is_none().then(files)),
            ("length", single.map(|file| encode_integer(file.len as i64))),
            ("name", Some(encode_bytes(&self.name))),
            ("piece length", Some(encode_integer(self.piece_len.into()))),
            ("pieces", Some(encode_bytes(piece_hashes))),
            ("private", self.private.then(|| encode_integer(1))),
            ("source", self.source.as_ref().map(encode_bytes)),
        ])
    }
}

/// Refuses names that parsing changed, because the files on disk would have other names than in the
/// torrent.
fn refuse_changed(info: &Info) -> Result<(), MetainfoError> {
    match info.renamed.first() {
        None => Ok(()),
        Some((given, used)) => {
            Err(MetainfoError::UnsafeName { file: path::printable(given), safe: used.clone() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(count: usize) -> Bytes {
        Bytes::from(vec![7; 20 * count])
    }

    fn file(path: &[&str], len: u64) -> DraftFile {
        DraftFile { path: path.iter().map(|&element| element.to_owned()).collect(), len, executable: false }
    }

    fn draft(files: Vec<DraftFile>) -> Draft {
        Draft { name: "n".into(), files, piece_len: 16_384, ..Draft::default() }
    }

    #[test]
    fn a_single_file_is_written_canonically() {
        let torrent = draft(vec![file(&[], 20_000)]).finish(hashes(2)).unwrap();
        let mut expected = b"d6:lengthi20000e4:name1:n12:piece lengthi16384e6:pieces40:".to_vec();
        expected.extend([7; 40]);
        expected.push(b'e');
        assert_eq!(torrent.info.bytes, expected);
        assert_eq!(
            (torrent.info.layout, torrent.info.files[0].path.join("/").as_str()),
            (Layout::SingleFile, "n")
        );
    }

    #[test]
    fn a_draft_round_trips() {
        let mut files = vec![file(&["a"], 0), file(&["b", "c d.txt"], 16_385)];
        files[1].executable = true;
        let drafted = Draft {
            trackers: vec![vec!["udp://t:1".into(), "http://u/announce".into()], vec!["https://v/x".into()]],
            web_seeds: vec!["http://w/".into()],
            comment: Some("grüße".into()),
            private: true,
            source: Some("S".into()),
            creation_date: Some(1_700_000_000),
            ..draft(files)
        };
        let made = drafted.clone().finish(hashes(2)).unwrap();
        let read = Metainfo::decode(&made.encode()).unwrap();
        assert_eq!(
            (read.trackers, read.web_seeds, read.comment),
            (drafted.trackers, drafted.web_seeds, drafted.comment)
        );
        assert_eq!(read.created_by.as_deref(), Some("sprat/0.1.0"));
        assert_eq!((read.creation_date, read.info.source.as_deref()), (drafted.creation_date, Some("S")));
        assert!(
            read.info.private && read.info.files[1].attributes.executable && read.info.renamed.is_empty()
        );
        assert_eq!((read.info.infohash, &read.info.files), (made.info.infohash, &made.info.files));
        assert_eq!(
            (read.info.files[1].path.join("/").as_str(), read.info.files[1].offset),
            ("n/b/c d.txt", 0)
        );
    }

    #[test]
    fn names_that_reading_would_change_are_refused() {
        for bad in ["", ".", "..", "a/b", "a\0b", "a\nb", &"x".repeat(256), "/", "a\u{202e}b"] {
            let named = Draft { name: bad.into(), ..draft(vec![file(&[], 1)]) };
            assert!(matches!(named.finish(hashes(1)), Err(MetainfoError::UnsafeName { .. })), "{bad:?}");
            let inside = draft(vec![file(&["ok", bad], 1)]);
            assert!(matches!(inside.finish(hashes(1)), Err(MetainfoError::UnsafeName { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_torrent_that_parsing_refuses_is_not_made() {
        let finish = |draft: Draft| draft.finish(hashes(1)).unwrap_err();
        let twice = draft(vec![file(&["a"], 1), file(&["a"], 1)]);
        assert!(matches!(finish(twice), MetainfoError::UnsafeName { .. }));
        assert!(matches!(finish(draft(vec![file(&[], 20_000)])), MetainfoError::PieceHashes { .. }));
        assert_eq!(finish(Draft { piece_len: 0, ..draft(vec![file(&[], 1)]) }), MetainfoError::PieceLen(0));
        let trackers = vec![vec!["tracker.example".to_owned()]];
        let relative = Draft { trackers, ..draft(vec![file(&[], 1)]) };
        assert_eq!(finish(relative), MetainfoError::Url("tracker.example".into()));
    }

    #[test]
    fn automatic_pieces_are_one_to_two_thousand_within_bounds() {
        assert_eq!(automatic_piece_len(0), 16 << 10);
        assert_eq!(automatic_piece_len(u64::MAX), 16 << 20);
        for total_len in [40 << 20, 700 << 20, 4_700 << 20, (16_u64 << 30) + 1] {
            let count = total_len / u64::from(automatic_piece_len(total_len));
            assert!((1_000..=2_000).contains(&count), "{total_len}: {count}");
        }
    }
}
