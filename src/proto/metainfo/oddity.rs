//! What a .torrent file has that BEP 3 does not allow, found out for people: reading does not depend on it.

use std::collections::BTreeSet;
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

/// All that is odd about a .torrent file that was read. For one that is as it should be this is one more scan.
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
    odd.extend(root.filter_map(|(key, value)| wrong_kind(key, value.kind())));
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

/// Whether it is an optional key that should be of another kind.
fn wrong_kind(key: &[u8], kind: Kind<'_>) -> Option<Oddity> {
    let (name, is_right) = match key {
        b"announce" => ("announce", matches!(kind, Kind::Bytes(_))),
        b"announce-list" => ("announce-list", matches!(kind, Kind::List(_))),
        b"url-list" => ("url-list", matches!(kind, Kind::List(_) | Kind::Bytes(_))),
        b"nodes" => ("nodes", matches!(kind, Kind::List(_))),
        b"comment" => ("comment", matches!(kind, Kind::Bytes(_))),
        b"comment.utf-8" => ("comment.utf-8", matches!(kind, Kind::Bytes(_))),
        b"created by" => ("created by", matches!(kind, Kind::Bytes(_))),
        b"creation date" => ("creation date", matches!(kind, Kind::Integer(_))),
        _ => return None,
    };
    (!is_right).then_some(Oddity::WrongKind(name))
}

/// Refuses, in words of its own, what an editor or a script has put in front of the dictionary. Whoever changed the
/// beginning has often changed more, so it is not skipped.
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
