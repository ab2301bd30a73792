//! The journal of a torrent's content on disk: records of any bytes, behind a right header and with
//! right checksums, which libFuzzer would not find.

use std::sync::Arc;

use sprat::proto::infohash::InfoHash;
use sprat::proto::piece::Geometry;
use sprat::sim::disk::{Disk, Model};
use sprat::storage::fs::FileSystem;
use sprat::storage::journal::{Journal, Owner};

use super::input::Input;

/// Opens it, and what it says is said again by the journal that is written from it.
pub fn journal(bytes: &[u8]) {
    let geometry = Geometry::new(20 * 40_000 + 5, 40_000).expect("a sound geometry");
    let owner = Owner { infohash: InfoHash([1; 20]), geometry, file_count: 3 };
    let path = vec!["journal".to_owned()];
    let disk = Arc::new(Disk::new(Model::Posix, 1));
    let file = disk.open_write(&path).expect("a disk without faults");
    disk.write_all_at(&file, &[&framed(bytes, &owner)], 0).expect("a disk without faults");
    let open = || Journal::open(Arc::clone(&disk), path.clone(), owner);
    let mut journal = open().expect("it can be read");
    if journal.take_trouble().is_some() {
        return;
    }
    let before = journal.record().clone();
    let selected = before.selected.clone().unwrap_or_else(|| sprat::proto::bitfield::Bitfield::full(3));
    let (kept, in_parts, stamps) = (before.kept.clone(), before.in_parts.clone(), before.stamps.clone());
    journal
        .settle(kept, in_parts, selected, stamps, bytes.len().is_multiple_of(2))
        .expect("a disk without faults");
    assert_eq!(open().expect("it can be read").record(), journal.record());
}

/// A header of this torrent, and the records that the input names: kind and payload. A first byte
/// of 255 leaves all bytes as they are.
fn framed(bytes: &[u8], owner: &Owner) -> Vec<u8> {
    let mut input = Input::new(bytes);
    if input.byte() == 255 {
        return input.rest().to_vec();
    }
    let mut framed = Vec::new();
    framed.extend(b"spratjnl\x01\0\0\0");
    framed.extend(owner.infohash.0);
    framed.extend(owner.geometry.total_len().to_le_bytes());
    framed.extend(owner.geometry.piece_len().to_le_bytes());
    framed.extend(owner.file_count.to_le_bytes());
    framed.extend(crc32fast::hash(&framed).to_le_bytes());
    while !input.is_empty() {
        let mut record = vec![input.byte() % 10];
        let payload = input.string();
        record.extend((payload.len() as u32).to_le_bytes());
        record.extend(payload);
        record.extend(crc32fast::hash(&record).to_le_bytes());
        framed.extend(record);
    }
    framed
}
