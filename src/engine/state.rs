//! The file of DHT nodes that were good when the program last ended, so that the next start needs no bootstrap
//! name.
//!
//! A bencoded dictionary: `version` (1), `nodes` and `nodes6`, the compact nodes of BEP 5 and 32. It is always
//! the old one or the new one: written whole beside it under a name of its own, synced and renamed over it, so
//! processes that share the file replace each other's and cannot spoil it. What it says is believed no more than
//! what strangers say: nodes in it are only asked first.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::proto::bencode::{Keys, Limits, Numbers, Trailing, Value};
use crate::proto::compact::{self, V4_LEN, V6_LEN};
use crate::proto::dht::event::SAVED_COUNT_MAX;
use crate::proto::dht::node_id::{Node, NodeId};

/// What this program writes; a file of another version is neither read nor replaced.
const VERSION: i64 = 1;
/// Longest file that is read, bytes: four times what is ever written; a longer one is damaged.
const FILE_LEN_MAX: usize = 64 << 10;
/// A dictionary of three entries, and room for entries of later programs.
const LIMITS: Limits = Limits {
    len_max: FILE_LEN_MAX,
    depth_max: 4,
    token_max: 64,
    trailing: Trailing::Refused,
    keys: Keys::Unique,
    numbers: Numbers::Canonical,
};
/// Bytes of an id in front of an address.
const ID_LEN: usize = 20;

/// Why the file says nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another program's, probably a later sprat's.
    #[error("it has an unknown version")]
    Version,
    /// Nobody wrote it like that.
    #[error("it is damaged")]
    Damaged,
}

/// The nodes in the file, at most [`SAVED_COUNT_MAX`]; none if there is no file.
pub(crate) fn load(path: &Path) -> Result<Vec<Node>, StateError> {
    // A pipe in its place would be waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file").into());
    }
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX as u64 + 1).read_to_end(&mut bytes)?;
    decode(&bytes)
}

/// Replaces the file, and makes its folder if need be; `nonce` is random, for a name that nobody else uses.
pub(crate) fn save(path: &Path, nodes: &[Node], nonce: u64) -> io::Result<()> {
    replace(path, &encode(nodes), nonce)
}

/// Writes a file of the state folder so that it is always the old one or the new one, and makes its folder if need be.
pub(super) fn replace(path: &Path, bytes: &[u8], nonce: u64) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let beside = path.with_added_extension(format!("{nonce:016x}"));
    let written = write(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // What cannot be renamed is of no use; if it cannot be removed either, it is small.
        let _ = fs::remove_file(&beside);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn encode(nodes: &[Node]) -> Vec<u8> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for node in nodes {
        let out = if node.addr.is_ipv4() { &mut v4 } else { &mut v6 };
        out.extend_from_slice(&node.id.0);
        compact::encode(node.addr, out);
    }
    let mut bytes = Vec::with_capacity(v4.len() + v6.len() + 64);
    for (key, nodes) in [("d5:nodes", v4), ("6:nodes6", v6)] {
        bytes.extend_from_slice(format!("{key}{}:", nodes.len()).as_bytes());
        bytes.extend_from_slice(&nodes);
    }
    bytes.extend_from_slice(format!("7:versioni{VERSION}ee").as_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Vec<Node>, StateError> {
    let value = Value::read(bytes, &LIMITS).map_err(|_| StateError::Damaged)?;
    let dict = value.dict().ok_or(StateError::Damaged)?;
    match dict.get(b"version").and_then(|version| version.integer()) {
        Some(VERSION) => {}
        Some(_) | None => return Err(StateError::Version),
    }
    let list = |key| dict.get(key).and_then(|nodes| nodes.bytes()).ok_or(StateError::Damaged);
    let v4 = split::<{ ID_LEN + V4_LEN }>(list(b"nodes")?, |addr| compact::decode_v4(addr).next())?;
    let v6 = split::<{ ID_LEN + V6_LEN }>(list(b"nodes6")?, |addr| compact::decode_v6(addr).next())?;
    let reachable = v4.into_iter().chain(v6).filter(|node| compact::is_dialable(node.addr));
    Ok(reachable.take(SAVED_COUNT_MAX).collect())
}

/// The nodes of a compact list of entries of `LEN` bytes.
fn split<const LEN: usize>(
    list: &[u8],
    addr: impl Fn(&[u8]) -> Option<SocketAddr>,
) -> Result<Vec<Node>, StateError> {
    let (entries, rest) = list.as_chunks::<LEN>();
    if !rest.is_empty() {
        return Err(StateError::Damaged);
    }
    let node = |entry: &[u8; LEN]| {
        let (id, rest) = entry.split_first_chunk::<ID_LEN>()?;
        Some(Node { id: NodeId(*id), addr: addr(rest)? })
    };
    Ok(entries.iter().filter_map(node).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rng::Rng;
    use std::net::IpAddr;

    fn nodes(count: u16) -> Vec<Node> {
        let mut rng = Rng::from_number(1);
        let ip = |number| -> IpAddr {
            if number % 3 == 0 { [0x2001, 0xdb8, 0, 0, 0, 0, 1, number].into() } else { [8, 8, 1, 1].into() }
        };
        (1..=count)
            .map(|number| Node {
                id: NodeId::random(&mut rng),
                addr: SocketAddr::new(ip(number), 1_000 + number),
            })
            .collect()
    }

    fn sorted(mut nodes: Vec<Node>) -> Vec<Node> {
        nodes.sort_unstable();
        nodes
    }

    #[test]
    fn what_is_saved_is_loaded_and_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folder/dht-nodes");
        assert!(load(&path).unwrap().is_empty());
        save(&path, &nodes(250), 1).unwrap();
        assert_eq!(sorted(load(&path).unwrap()), sorted(nodes(250)));
        save(&path, &nodes(3), 2).unwrap();
        assert_eq!(sorted(load(&path).unwrap()), sorted(nodes(3)));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn a_file_that_is_cut_short_or_overwritten_is_damaged_and_never_a_panic() {
        let bytes = encode(&nodes(9));
        for len in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..len]), Err(StateError::Damaged)), "{len}");
        }
        let mut rng = Rng::from_number(2);
        for _ in 0..20_000 {
            let mut bytes = bytes.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len());
                bytes[at] = rng.bits() as u8;
            }
            if let Ok(nodes) = decode(&bytes) {
                assert!(nodes.len() <= 9);
            }
        }
        assert!(matches!(decode(b"d5:nodes1:x6:nodes60:7:versioni1ee"), Err(StateError::Damaged)));
        assert!(matches!(decode(b"d5:nodesi1e6:nodes60:7:versioni1ee"), Err(StateError::Damaged)));
    }

    #[test]
    fn another_version_and_too_much_are_told_apart_from_what_we_wrote() {
        for other in [&b"d5:nodes0:6:nodes60:7:versioni2ee"[..], b"d4:nodei1ee", b"d7:version1:1e"] {
            assert!(matches!(decode(other), Err(StateError::Version)));
        }
        assert_eq!(decode(&encode(&nodes(1_000))).unwrap().len(), SAVED_COUNT_MAX);
        let nowhere = Node { id: NodeId([1; 20]), addr: "0.0.0.0:0".parse().unwrap() };
        assert!(decode(&encode(&[nowhere])).unwrap().is_empty());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        fs::write(&path, vec![b'x'; FILE_LEN_MAX * 2]).unwrap();
        assert!(matches!(load(&path), Err(StateError::Damaged)));
        assert!(matches!(load(dir.path()), Err(StateError::Io(_))));
    }
}
