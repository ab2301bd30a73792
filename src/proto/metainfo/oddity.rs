//! What a .torrent file has that BEP 3 does not allow, found out for people: reading does not
//! depend on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::MetainfoError;
use crate::proto::bencode::{BencodeError, Dict, Keys, Kind, Limits, Numbers, Trailing, scan};

/// Something that is not as BEP 3 and its successors ask, and was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// The first place where the encoding has another form than the one allowed.
    Encoding(BencodeError),
    /// A key of the root comes twice; the last one counts. As given, at most 64 bytes of it.
    Twice(String),
    /// An optional key of the wrong kind; it counts as absent.
    WrongKind(&'static str),
}

impl fmt::Display for Oddity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding(error) => write!(out, "{error}"),
            Self::Twice(key) => write!(out, "`{key}` comes twice; the last one counts"),
            Self::WrongKind(key) => write!(out, "`{key}` is of the wrong kind and ignored"),
        }
    }
}

/// Bytes of a key that are told.
const KEY_LEN_MAX: usize = 64;
/// Keys that come twice and are told; more say nothing new.
const TWICE_COUNT_MAX: usize = 16;

/// Returns all that is odd about a .torrent file that was read, a few dozen entries at most:
/// [`TWICE_COUNT_MAX`], and one for each rule of encoding and each optional key. For a file that is
/// as it should be this is one more scan.
pub(super) fn oddities(bytes: &[u8], root: Dict<'_>) -> Vec<Oddity> {
    let mut odd: Vec<_> = if scan(bytes, &Limits::METAINFO_CANONICAL).is_ok() {
        Vec::new()
    } else {
        let one_rule = [
            Limits { keys: Keys::Ascending, ..Limits::METAINFO },
            Limits { numbers: Numbers::Canonical, ..Limits::METAINFO },
            Limits { trailing: Trailing::Refused, ..Limits::METAINFO },
        ];
        let faults = one_rule.iter().filter_map(|limits| scan(bytes, limits).err());
        faults.map(Oddity::Encoding).chain(twice(root)).collect()
    };
    odd.extend(wrong_kinds(root));
    odd
}

/// The keys of the root that come more than once.
fn twice(root: Dict<'_>) -> impl Iterator<Item = Oddity> {
    let (mut seen, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for (key, _) in root {
        if !seen.insert(key) && twice.len() < TWICE_COUNT_MAX {
            twice.insert(key);
        }
    }
    let told = |key: &[u8]| String::from_utf8_lossy(&key[..key.len().min(KEY_LEN_MAX)]).into_owned();
    twice.into_iter().map(move |key| Oddity::Twice(told(key)))
}

/// The optional keys of the wrong kind, each once: of a key that comes more than once the last one
/// counts.
fn wrong_kinds(root: Dict<'_>) -> impl Iterator<Item = Oddity> {
    let kinds: BTreeMap<_, _> = root.filter_map(|(key, value)| optional(key, value.kind())).collect();
    kinds.into_iter().filter(|&(_, is_right)| !is_right).map(|(name, _)| Oddity::WrongKind(name))
}

/// The name of an optional key, and whether its value is of the right kind; None: another key.
fn optional(key: &[u8], kind: Kind<'_>) -> Option<(&'static str, bool)> {
    Some(match key {
        b"announce" => ("announce", matches!(kind, Kind::Bytes(_))),
        b"announce-list" => ("announce-list", matches!(kind, Kind::List(_))),
        b"url-list" => ("url-list", matches!(kind, Kind::List(_) | Kind::Bytes(_))),
        b"nodes" => ("nodes", matches!(kind, Kind::List(_))),
        b"comment" => ("comment", matches!(kind, Kind::Bytes(_))),
        b"comment.utf-8" => ("comment.utf-8", matches!(kind, Kind::Bytes(_))),
        b"created by" => ("created by", matches!(kind, Kind::Bytes(_))),
        b"creation date" => ("creation date", matches!(kind, Kind::Integer(_))),
        _ => return None,
    })
}

/// Refuses a file in which an editor or a script has put something in front of the dictionary, with
/// an error that says what. Programs that change the beginning often change more, so it is not
/// skipped.
pub(super) fn refuse_edited(bytes: &[u8]) -> Result<(), MetainfoError> {
    let what = match bytes {
        [] => return Err(MetainfoError::Empty),
        [0xef, 0xbb, 0xbf, ..] => "a byte order mark",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "the mark of UTF-16 text",
        [first, ..] if first.is_ascii_whitespace() => "white space",
        _ => return Ok(()),
    };
    Err(MetainfoError::Edited(what))
}
