//! Bencode, torrent files and magnet links.

use bytes::Bytes;
use sprat::proto::bencode::{self, Dict, Kind, Limits, List, Numbers, Value, scan};
use sprat::proto::infohash::InfoHash;
use sprat::proto::metainfo::magnet::Magnet;
use sprat::proto::metainfo::{Info, Metainfo};

/// What is accepted is read whole: written again it is the same bytes, but for lengths of keys,
/// which may have leading zeros where nothing is hashed.
pub fn bencode(bytes: &[u8]) {
    for limits in [
        Limits::METAINFO,
        Limits::INFO,
        Limits::METAINFO_CANONICAL,
        Limits::EXTENSION,
        Limits::TRACKER_REPLY,
        Limits::KRPC,
    ] {
        let Ok(len) = scan(bytes, &limits) else { continue };
        let mut copy = Vec::new();
        write(Value::read(bytes, &limits).expect("it was scanned"), &mut copy);
        let is_same = copy == bytes[..len];
        let is_lenient = limits.numbers == Numbers::AnySpelling;
        assert!(is_same || is_lenient, "the reader loses or invents bytes");
        assert_eq!(scan(&copy, &limits), Ok(copy.len()));
        assert!(scan(&bytes[..len - 1], &limits).is_err(), "a value begins within a value");
    }
}

fn write(value: Value<'_>, out: &mut Vec<u8>) {
    match value.kind() {
        // Leading zeros and -0 are accepted where nothing is hashed.
        Kind::Integer(_) | Kind::Bytes(_) => out.extend(value.span()),
        Kind::List(list) => write_list(list, out),
        Kind::Dict(dict) => write_dict(dict, out),
    }
}

fn write_list(list: List<'_>, out: &mut Vec<u8>) {
    out.push(b'l');
    list.for_each(|value| write(value, out));
    out.push(b'e');
}

fn write_dict(dict: Dict<'_>, out: &mut Vec<u8>) {
    out.push(b'd');
    for (key, value) in dict {
        bencode::write_bytes(out, key);
        write(value, out);
    }
    out.push(b'e');
}

/// A torrent that is accepted is sound, and written again it is the same torrent.
pub fn metainfo(bytes: &[u8]) {
    let _ = Info::decode(Bytes::copy_from_slice(bytes));
    let Ok(torrent) = Metainfo::decode(bytes) else { return };
    let info = &torrent.info;
    assert_eq!(info.infohash, InfoHash::of(&info.bytes));
    assert_eq!(info.piece_hashes.len(), 20 * info.geometry.piece_count() as usize);
    let mut offset = 0;
    for file in &info.files {
        assert_eq!(file.offset, offset);
        offset += file.len;
        assert_eq!(file.path[0], info.name);
        for element in &file.path {
            assert!(!matches!(element.as_str(), "" | "." | "..") && element.len() <= 255, "{element:?}");
            assert!(!element.contains(['/', '\\', '\0']), "{element:?}");
        }
    }
    assert_eq!(offset, info.geometry.total_len());
    let again = Metainfo::decode(&torrent.encode()).expect("what is written is read");
    assert_eq!(again.info.bytes, info.bytes);
    assert_eq!((again.trackers, again.web_seeds), (torrent.trackers, torrent.web_seeds));
}

/// A link that is accepted is written as a link that means the same.
pub fn magnet(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(mut magnet) = text.parse::<Magnet>() else { return };
    assert!(magnet.ignored.len() <= 16);
    magnet.ignored.clear();
    assert_eq!(magnet.to_string().parse(), Ok(magnet));
}
