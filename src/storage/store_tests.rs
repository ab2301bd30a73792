//! Tests of a torrent on a real disk with its journal, across several starts: changes by other
//! programs are found, whatever happens in between.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use super::*;
use crate::proto::block::BLOCK_LEN;
use crate::proto::time::Instant;
use crate::storage::fs::RealFs;
use crate::storage::handles::Handles;
use crate::storage::journal::{Owner, Trouble};
use crate::storage::lifecycle::{Lifecycle, Plan, Purpose, StepDone};
use crate::storage::pieces::{Held, PartialPiece, WholePiece};
use crate::storage::testing::{Sample, sample};

const NONE: [PieceIndex; 0] = [];

#[path = "store_replaced_tests.rs"]
mod replaced;

/// Two files: pieces 0 to 3 lie in `a`, 3 and 4 in `b`.
struct Place {
    folder: tempfile::TempDir,
    state: tempfile::TempDir,
    sample: Sample,
}

/// The result of a start.
struct Started {
    store: Store<RealFs>,
    have: Bitfield,
    /// Pieces that were hashed.
    to_hash: Vec<PieceIndex>,
}

impl Place {
    fn new() -> Self {
        let [folder, state] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        Self { folder, state, sample: sample(&[("a", 100), ("b", 60)], 32) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> Store<RealFs> {
        Store::new(self.sample.content(self.folder.path(), &[]))
    }

    fn journal(&self) -> Journal<RealFs> {
        let Info { infohash, geometry, ref files, .. } = self.sample.info;
        let owner = Owner { infohash, geometry, file_count: files.len() as u32 };
        let fs = Arc::new(RealFs::open(self.state.path(), &Handles::new(4)).unwrap());
        Journal::open(fs, vec!["journal".to_owned()], owner).unwrap()
    }

    /// A start that writes nothing.
    fn start(&self) -> Started {
        let store = self.store();
        let plan = Plan { purpose: Purpose::Seed, ..Plan::default() };
        let mut lifecycle = Lifecycle::<Vec<u8>>::new(&store, plan, Instant::ZERO);
        let mut to_hash = Vec::new();
        let inspect = |done: &StepDone| {
            if let StepDone::Begun(Ok(begun)) = done {
                let mut scratch = Vec::new();
                let mut is_good = |piece| store.content().check_piece(piece, &mut scratch).unwrap();
                let is_there = begun.present.iter_set().all(&mut is_good);
                assert!(is_there, "a claimed piece is wrong");
                to_hash = begun.to_hash.iter_set().collect();
            }
        };
        store.run_start(&mut lifecycle, Instant::ZERO, || Ok(Some(self.journal())), inspect);
        Started { have: lifecycle.have().clone(), to_hash, store }
    }

    /// A download that has these pieces and has not ended.
    fn download(&self, pieces: &[PieceIndex]) -> Started {
        let mut started = self.start();
        started.have = started.store.prepare(&started.have).unwrap();
        pieces.iter().for_each(|&piece| started.write(self, piece));
        assert_eq!(started.store.commit().unwrap(), []);
        started
    }

    /// A download that has ended.
    fn complete(&self) {
        let started = self.download(&[0, 1, 2, 3, 4]);
        assert_eq!(started.store.finish(&started.have).unwrap(), []);
    }

    fn open(&self, name: &str) -> File {
        File::options().read(true).write(true).open(self.path(name)).unwrap()
    }

    /// Flips a byte as another program would, and sets the time, because clocks are coarse.
    fn flip(&self, name: &str, at: u64) {
        let (file, mut byte) = (self.open(name), [0]);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        file.set_modified(UNIX_EPOCH).unwrap();
    }

    fn assert_whole(&self) {
        for (number, name) in ["a", "b"].iter().enumerate() {
            assert!(fs::read(self.path(name)).unwrap() == self.sample.file(number), "{name} is wrong");
        }
    }
}

/// A place whose pieces have blocks: two full ones in the first three pieces, one shorter one in
/// the last; the second piece lies in both files.
fn blocky() -> Place {
    let [folder, state] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    Place { folder, state, sample: sample(&[("a", 50_000), ("b", 50_000)], 2 * BLOCK_LEN) }
}

impl Place {
    fn block(&self, piece: PieceIndex, index: u32) -> &[u8] {
        let block = self.sample.info.geometry.block(piece, index);
        &self.sample.piece(piece)[block.offset as usize..(block.offset + block.len) as usize]
    }

    /// The blocks of incomplete pieces that a start finds.
    fn partial(&self) -> Vec<(PieceIndex, Vec<u32>)> {
        let mut started = self.start();
        started.have = started.store.prepare(&started.have).unwrap();
        let partial = started.store.partial_pieces(&started.have);
        let indices = |partial: PartialPiece| partial.blocks.iter().map(|block| block.index).collect();
        partial.into_iter().map(|partial| (partial.piece, indices(partial))).collect()
    }
}

impl Started {
    fn spill(&self, place: &Place, piece: PieceIndex, index: u32) -> Held<Vec<u8>> {
        let crcs = self.store.write_blocks(piece, &[(index, place.block(piece, index))]).unwrap();
        Held::Disk(crcs[0])
    }

    fn write(&mut self, place: &Place, piece: PieceIndex) {
        self.store.write_rest(piece, &[place.sample.piece(piece)], std::slice::from_ref(&(0..1))).unwrap();
        self.have.set(piece);
    }

    /// Uploads a piece; lost pieces are no longer claimed.
    fn send(&mut self, place: &Place, piece: PieceIndex) -> Vec<PieceIndex> {
        let len = place.sample.info.geometry.len_of(piece);
        let mut blocks = [(Block { piece, offset: 0, len }, vec![0; len as usize])];
        let lost = self.store.content().read_blocks(&mut blocks, &mut Vec::new()).unwrap();
        assert!(
            !lost.is_empty() || blocks[0].1 == place.sample.piece(piece),
            "{piece} is uploaded with wrong bytes"
        );
        self.lose(lost)
    }

    fn lose(&mut self, lost: Vec<LostPiece>) -> Vec<PieceIndex> {
        let pieces: Vec<_> = lost.into_iter().map(|lost| lost.piece).collect();
        for &piece in &pieces {
            self.have.clear(piece);
        }
        self.store.lose(&pieces).unwrap();
        pieces
    }

    fn finish(&mut self) -> Vec<PieceIndex> {
        let lost = self.store.finish(&self.have).unwrap();
        self.lose(lost)
    }

    /// Downloads lost pieces again, until the content is complete.
    fn repair(&mut self, place: &Place) {
        let lost = self.finish();
        lost.into_iter().for_each(|piece| self.write(place, piece));
        assert_eq!(self.finish(), NONE);
        place.assert_whole();
    }
}

#[test]
fn the_next_start_hashes_what_a_seed_did_not_verify() {
    let place = Place::new();
    place.complete();
    let mut seed = place.start();
    assert_eq!((seed.have.count(), seed.to_hash.len()), (5, 0));
    place.flip("a", 70);
    assert_eq!(seed.send(&place, 0), NONE, "the piece is still good");
    assert_eq!(seed.store.close(&seed.have).unwrap(), []);
    let mut again = place.start();
    assert_eq!(again.to_hash, [0, 1, 2, 3], "the file of which not all was looked at");
    assert!(!again.have.get(2));
    assert_eq!(again.store.close(&again.have).unwrap(), []);
    again = place.start();
    assert_eq!((again.have.count(), again.to_hash.len()), (4, 0), "not twice");
}

#[test]
fn a_download_is_not_complete_with_a_change_that_a_read_noticed() {
    let place = Place::new();
    let mut download = place.download(&[0, 1, 2, 3]);
    place.flip("a", 70);
    assert_eq!(download.send(&place, 0), NONE);
    download.write(&place, 4);
    assert_eq!(download.finish(), [2]);
    download.write(&place, 2);
    assert_eq!(download.finish(), NONE);
    place.assert_whole();
    assert_eq!(place.start().to_hash, NONE);
}

/// Two pieces are spoilt; one is noticed and downloaded again, which proves nothing about the rest
/// of its file.
#[test]
fn a_piece_downloaded_again_proves_nothing_about_its_file() {
    for is_committed in [false, true] {
        let place = Place::new();
        let mut download = place.download(&[0, 1, 2, 4]);
        place.flip("a", 1);
        place.flip("a", 70);
        assert_eq!(download.send(&place, 0), [0]);
        download.write(&place, 0);
        if is_committed {
            assert_eq!(download.store.commit().unwrap(), []);
        }
        drop(download);
        let again = place.start();
        let have: Vec<_> = again.have.iter_set().collect();
        assert_eq!(have, [0, 1, 4], "is it committed: {is_committed}");
        assert!(!again.to_hash.contains(&4), "b was not touched");
    }
}

#[test]
fn a_file_deleted_during_its_download_is_downloaded_again() {
    for is_closed in [false, true] {
        let place = Place::new();
        let mut download = place.download(&[0, 1, 4]);
        fs::remove_file(place.path("a")).unwrap();
        if is_closed {
            // As if other files had been opened since.
            download.store.content().fs().close();
        }
        download.write(&place, 2);
        assert_eq!(download.store.commit().unwrap(), []);
        download.write(&place, 3);
        download.repair(&place);
        assert_eq!(place.start().to_hash, NONE);
    }
}

#[test]
fn writes_to_a_deleted_file_do_not_count() {
    let place = Place::new();
    let mut download = place.download(&[4]);
    (0..4).for_each(|piece| download.write(&place, piece));
    fs::remove_file(place.path("a")).unwrap();
    assert_eq!(download.store.commit().unwrap(), []);
    assert_eq!(download.finish(), [0, 1, 2, 3]);
    (0..4).for_each(|piece| download.write(&place, piece));
    assert_eq!(download.finish(), NONE);
    place.assert_whole();
}

/// The file was missing at the last look.
#[test]
fn a_file_replaced_during_its_download_is_hashed_again() {
    for is_first in [true, false] {
        let place = Place::new();
        let mut download = place.download(if is_first { &[] } else { &[0, 4] });
        [1, 2].into_iter().for_each(|piece| download.write(&place, piece));
        fs::write(place.path("new"), [7; 100]).unwrap();
        fs::rename(place.path("new"), place.path("a")).unwrap();
        assert_eq!(download.store.commit().unwrap(), []);
        // After a kill here, the next start claims nothing of the other file.
        assert!(!place.start().have.get(1));
        download.write(&place, 3);
        let missing: Vec<_> = place.sample.pieces().filter(|&piece| !download.have.get(piece)).collect();
        missing.into_iter().for_each(|piece| download.write(&place, piece));
        download.repair(&place);
    }
}

/// More files than are synced one by one.
#[test]
fn many_files_replaced_during_a_download_are_hashed_again() {
    let names: Vec<_> = (0..100).map(|at| format!("f/{at}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), 32)).collect();
    let place = Place { sample: sample(&files, 32), ..Place::new() };
    let mut download = place.start();
    download.store.prepare(&download.have).unwrap();
    place.sample.pieces().for_each(|piece| download.write(&place, piece));
    fs::remove_file(place.path("f/7")).unwrap();
    fs::write(place.path("new"), [7; 32]).unwrap();
    fs::rename(place.path("new"), place.path("f/70")).unwrap();
    assert_eq!(download.store.commit().unwrap(), []);
    assert_eq!(download.finish(), [7, 70]);
    [7, 70].into_iter().for_each(|piece| download.write(&place, piece));
    assert_eq!(download.finish(), NONE);
    assert_eq!(fs::read(place.path("f/70")).unwrap(), place.sample.file(70));
    assert_eq!(place.start().to_hash, NONE);
}

#[test]
fn changes_are_noticed_without_a_journal() {
    for is_finished in [false, true] {
        let place = Place::new();
        let store = place.store();
        let have = store.begin(None).unwrap().trusted;
        let have = store.prepare(&have).unwrap();
        let mut download = Started { store, have, to_hash: Vec::new() };
        place.sample.pieces().for_each(|piece| download.write(&place, piece));
        if is_finished {
            assert_eq!(download.finish(), NONE);
        } else {
            assert_eq!(download.store.commit().unwrap(), []);
        }
        place.flip("a", 70);
        assert_eq!(download.send(&place, 2), [2]);
    }
}

/// The disk of the journals is full when the first seed of a folder records what it hashed.
#[test]
fn losing_a_piece_before_the_first_record_loses_no_other() {
    let place = Place::new();
    for (number, name) in ["a", "b"].iter().enumerate() {
        fs::write(place.path(name), place.sample.file(number)).unwrap();
    }
    let mut seed = place.start();
    assert_eq!(seed.have.count(), 5);
    place.flip("a", 70);
    assert_eq!(seed.send(&place, 2), [2]);
    drop(seed);
    assert_eq!(place.start().have.iter_set().collect::<Vec<_>>(), [0, 1, 3, 4]);
}

#[test]
fn preallocated_files_stay_watched_and_known() {
    let place = Place::new();
    drop(place.download(&[0, 1, 2]));
    for _ in 0..2 {
        let download = place.start();
        assert_eq!(download.to_hash, NONE, "a kill after room was set apart");
        download.store.preallocate().unwrap();
        download.store.prepare(&download.have).unwrap();
        assert_eq!(place.open("b").metadata().unwrap().len(), 60);
    }
    let mut download = place.start();
    download.store.preallocate().unwrap();
    download.store.prepare(&download.have).unwrap();
    place.flip("a", 70);
    assert_eq!(download.send(&place, 2), [2]);
}

#[test]
fn a_piece_that_the_disk_lost_is_absent_at_the_next_prepare() {
    let place = Place::new();
    let download = place.download(&[0, 1, 2]);
    let known = Bitfield::full(5);
    assert_eq!(download.store.prepare(&known).unwrap().iter_set().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_removed_journal_folder_delays_neither_the_end_nor_the_next_download() {
    let place = Place::new();
    let mut download = place.download(&[0, 1, 2, 3]);
    fs::remove_dir_all(place.state.path()).unwrap();
    download.write(&place, 4);
    assert_eq!(download.finish(), NONE);
    assert!(matches!(download.store.take_journal_trouble(), Some(Trouble::Lapsed(_))));
    assert!(download.store.take_journal_trouble().is_none(), "said once");
    place.store().prepare(&Bitfield::new(5)).unwrap();
}

#[test]
fn a_piece_that_cannot_be_withdrawn_from_the_journal_is_not_written() {
    let place = Place::new();
    drop(place.download(&[0, 1, 2]));
    let download = place.start();
    assert!(download.store.prepare(&download.have).unwrap().get(1));
    // A non-empty folder in the place of the journal cannot be removed.
    let journal = place.state.path().join("journal");
    fs::remove_file(&journal).unwrap();
    fs::create_dir_all(journal.join("full")).unwrap();
    assert!(download.store.lose(&[1]).is_err());
    fs::remove_dir_all(&journal).unwrap();
    download.store.lose(&[1]).unwrap();
}

#[test]
fn a_torrent_of_one_file_without_parts_file_is_recorded() {
    let place = Place { sample: sample(&[("a", 160)], 32), ..Place::new() };
    place.complete();
    let again = place.start();
    assert_eq!((again.have.count(), again.to_hash.len()), (5, 0), "nothing is hashed");
    place.flip("a", 0);
    let changed = place.start();
    assert_eq!((changed.have.count(), changed.to_hash.len()), (4, 5));
    assert_eq!(changed.store.close(&changed.have).unwrap(), []);
    assert_eq!(place.start().to_hash, NONE);
}

#[test]
fn blocks_of_an_incomplete_piece_survive_and_complete_it() {
    let place = blocky();
    let mut started = place.download(&[0]);
    let first = started.spill(&place, 1, 1);
    drop(started);
    assert_eq!(place.partial(), [(1, vec![1])], "killed before any commit");
    assert_eq!(place.partial(), [(1, vec![1])], "and again");

    started = place.download(&[]);
    let partial = started.store.partial_pieces(&started.have).remove(0);
    let blocks = vec![Held::Memory(place.block(1, 0).to_vec()), Held::Disk(partial.blocks[0].crc)];
    assert_eq!(blocks[1], first);
    let whole = WholePiece { piece: 1, blocks, block_hashes: false };
    let read_back = started.store.read_back(&whole).unwrap().unwrap();
    let bytes = whole.bytes(place.sample.info.geometry, &read_back);
    assert!(bytes.concat() == place.sample.piece(1));
    started.store.write_rest(1, &bytes, &whole.fresh()).unwrap();
    started.have.set(1);
    started.spill(&place, 2, 0);
    assert_eq!(started.store.close(&started.have).unwrap(), []);
    drop(started);
    let started = place.start();
    assert_eq!((started.to_hash.as_slice(), started.have.count()), (&NONE[..], 2), "a clean end");
    drop(started);
    assert_eq!(place.partial(), [(2, vec![0])]);
}

#[test]
fn a_block_changed_by_another_program_is_dropped() {
    let place = blocky();
    let started = place.download(&[]);
    let blocks = vec![started.spill(&place, 0, 0), started.spill(&place, 0, 1)];
    let whole = WholePiece { piece: 0, blocks, block_hashes: false };
    assert!(started.store.read_back(&whole).unwrap().is_some());
    place.flip("a", 20_000);
    drop(started);
    assert_eq!(place.partial(), [(0, vec![0])]);
    let started = place.download(&[]);
    assert!(started.store.read_back(&whole).unwrap().is_none());
    drop(started);
    assert_eq!(place.partial(), [], "nor the other block");
    place.download(&[]).spill(&place, 0, 0);
    assert_eq!(place.partial(), [(0, vec![0])]);
    fs::remove_file(place.path("a")).unwrap();
    assert_eq!(place.partial(), []);
}

#[test]
fn blocks_of_a_piece_with_a_wrong_hash_are_forgotten() {
    let place = blocky();
    let started = place.download(&[]);
    let whole = |piece, first| {
        let blocks = vec![first, Held::Memory(place.block(piece, 1).to_vec())];
        WholePiece { piece, blocks, block_hashes: false }
    };
    let pieces = [0, 2].map(|piece| whole(piece, started.spill(&place, piece, 0)));
    let read_back = started.store.read_back(&pieces[0]).unwrap().unwrap();
    let blocks = pieces[0].bytes(place.sample.info.geometry, &read_back);
    assert!(!started.store.write_if(false, &pieces[0], &blocks).unwrap());
    drop(started);
    assert_eq!(place.partial(), [(2, vec![0])]);
}

#[test]
fn blocks_of_a_piece_that_is_no_longer_wanted_are_kept() {
    let place = blocky();
    let started = place.download(&[]);
    for (piece, index) in [(1, 0), (1, 1), (2, 0)] {
        started.spill(&place, piece, index);
    }
    drop(started);
    let store = Store::new(place.sample.content(place.folder.path(), &[true, false]));
    let have = store.begin(Some(place.journal())).unwrap().trusted;
    let partial = store.partial_pieces(&have);
    // Its part in the unwanted file lies in the parts file now.
    assert!(partial.len() == 1 && partial[0].piece == 1, "{partial:?}");
    assert_eq!(partial[0].blocks.iter().map(|block| block.index).collect::<Vec<_>>(), [0]);
}

#[test]
fn wrong_padding_from_a_peer_spoils_nothing() {
    let [folder, state] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let sample = sample(&[("a", 20_000), ("pad", 12_768), ("b", 30_000)], 2 * BLOCK_LEN);
    let place = Place { folder, state, sample };
    let started = place.download(&[]);
    let mut second = place.block(0, 1).to_vec();
    second[10_000..].fill(7);
    let crcs = started.store.write_blocks(0, &[(1, second)]).unwrap();
    let blocks = vec![Held::Memory(place.block(0, 0).to_vec()), Held::Disk(crcs[0])];
    let whole = WholePiece { piece: 0, blocks, block_hashes: false };
    let read_back = started.store.read_back(&whole).unwrap().unwrap();
    assert!(whole.bytes(place.sample.info.geometry, &read_back).concat() == place.sample.piece(0));
    drop(started);
    assert_eq!(place.partial(), [(0, vec![1])]);
}
