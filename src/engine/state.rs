//! The file of what the DHT node knew when the program last ended: its ids, so that others still
//! find it in their tables, and nodes that were good, so that the next start needs no bootstrap
//! name.
//!
//! A bencoded dictionary: `version` (1), `nodes` and `nodes6`, the compact nodes of BEP 5 and 32,
//! and, since they were added later, perhaps `id` and `id6`. One process at a time has the ids
//! ([`claim`]). The file is always the old one or the new one: written whole beside it under a name
//! of its own, synced and renamed over it, so processes that share the file replace each other's
//! and cannot spoil it. What it says is believed no more than what strangers say: nodes in it are
//! only asked first.

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
/// A dictionary of five entries, and room for entries of later programs.
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

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The ids of our node, IPv4 first.
    pub(crate) ids: [Option<NodeId>; 2],
    /// At most [`SAVED_COUNT_MAX`].
    pub(crate) nodes: Vec<Node>,
}

/// Claims the ids in the file for this process, until the returned file is closed: two nodes of one
/// id would be one to others. None: another process has them, or the system cannot tell.
pub(crate) fn claim(path: &Path) -> Option<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(path.parent()?).ok()?;
    // Neither a link nor a pipe is a lock.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let file = options.open(path.with_added_extension("lock")).ok()?;
    file.try_lock().ok().map(|()| file)
}

/// What is in the file; nothing if there is no file.
pub(crate) fn load(path: &Path) -> Result<State, StateError> {
    // A pipe in its place would be waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file").into());
    }
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX as u64 + 1).read_to_end(&mut bytes)?;
    decode(&bytes)
}

/// Replaces the file, and makes its folder if need be; `nonce` is random, for a name that nobody
/// else uses.
pub(crate) fn save(path: &Path, state: &State, nonce: u64) -> io::Result<()> {
    replace(path, &encode(state), nonce)
}

/// Writes a file of the state folder so that it is always the old one or the new one, and makes its
/// folder if need be.
pub(crate) fn replace(path: &Path, bytes: &[u8], nonce: u64) -> io::Result<()> {
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

fn encode(State { ids, nodes }: &State) -> Vec<u8> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for node in nodes {
        let out = if node.addr.is_ipv4() { &mut v4 } else { &mut v6 };
        out.extend_from_slice(&node.id.0);
        compact::encode(node.addr, out);
    }
    let mut bytes = Vec::with_capacity(v4.len() + v6.len() + 128);
    bytes.push(b'd');
    let ids =
        [("2:id", ids[0]), ("3:id6", ids[1])].into_iter().filter_map(|(key, id)| Some((key, id?.0.to_vec())));
    for (key, value) in ids.chain([("5:nodes", v4), ("6:nodes6", v6)]) {
        bytes.extend_from_slice(format!("{key}{}:", value.len()).as_bytes());
        bytes.extend_from_slice(&value);
    }
    bytes.extend_from_slice(format!("7:versioni{VERSION}ee").as_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<State, StateError> {
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
    let id = |key| dict.get(key).and_then(|id| id.bytes()).and_then(|id| id.try_into().ok()).map(NodeId);
    Ok(State { ids: [id(&b"id"[..]), id(b"id6")], nodes: reachable.take(SAVED_COUNT_MAX).collect() })
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

    fn state(count: u16) -> State {
        State { ids: [Some(NodeId([7; 20])), Some(NodeId([8; 20]))], nodes: nodes(count) }
    }

    fn sorted(mut state: State) -> State {
        state.nodes.sort_unstable();
        state
    }

    #[test]
    fn what_is_saved_is_loaded_and_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folder/dht-nodes");
        assert_eq!(load(&path).unwrap(), State::default());
        save(&path, &state(250), 1).unwrap();
        assert_eq!(sorted(load(&path).unwrap()), sorted(state(250)));
        let without_ids = State { ids: [None; 2], ..state(3) };
        save(&path, &without_ids, 2).unwrap();
        assert_eq!(sorted(load(&path).unwrap()), sorted(without_ids));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn one_process_at_a_time_has_the_ids() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/dht-nodes");
        let claimed = claim(&path).unwrap();
        assert!(claim(&path).is_none());
        drop(claimed);
        assert!(claim(&path).is_some());
        let elsewhere = dir.path().join("linked");
        std::os::unix::fs::symlink("/dev/null", elsewhere.with_added_extension("lock")).unwrap();
        assert!(claim(&elsewhere).is_none());
    }

    #[test]
    fn a_file_that_is_cut_short_or_overwritten_is_damaged_and_never_a_panic() {
        let bytes = encode(&state(9));
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
            if let Ok(state) = decode(&bytes) {
                assert!(state.nodes.len() <= 9);
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
        assert_eq!(decode(&encode(&state(1_000))).unwrap().nodes.len(), SAVED_COUNT_MAX);
        let nowhere = Node { id: NodeId([1; 20]), addr: "0.0.0.0:0".parse().unwrap() };
        assert!(decode(&encode(&State { ids: [None; 2], nodes: vec![nowhere] })).unwrap().nodes.is_empty());
        let odd = decode(b"d2:id3:abc3:id6i7e5:nodes0:6:nodes60:7:versioni1ee").unwrap();
        assert_eq!(odd, State::default(), "an id that is none is drawn anew");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        fs::write(&path, vec![b'x'; FILE_LEN_MAX * 2]).unwrap();
        assert!(matches!(load(&path), Err(StateError::Damaged)));
        assert!(matches!(load(dir.path()), Err(StateError::Io(_))));
    }
}
