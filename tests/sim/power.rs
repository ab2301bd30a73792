//! Power cuts, kills and failing disks: the production storage code downloads on a simulated disk.

#![cfg(test)]

use std::sync::Arc;

use bytes::Bytes;
use sha1::{Digest, Sha1};
use sprat::proto::bitfield::Bitfield;
use sprat::proto::infohash::InfoHash;
use sprat::proto::metainfo::files::{Attributes, File};
use sprat::proto::metainfo::{Info, Layout};
use sprat::proto::piece::{Geometry, PieceIndex};
use sprat::proto::rng::Rng;
use sprat::sim::disk::{Disk, Faults, Model};
use sprat::storage::content::Content;
use sprat::storage::fs::FileSystem;
use sprat::storage::journal::{Journal, Owner};
use sprat::storage::store::Store;

const MODELS: [Model; 3] = [Model::Posix, Model::Ordered, Model::Delayed];
const PIECE_LEN: u32 = 16 * 1024;

/// A torrent and all of its bytes.
struct Sample {
    info: Info,
    bytes: Vec<u8>,
}

impl Sample {
    /// Seven files of odd lengths, one of them not wanted.
    fn new() -> Self {
        let lens: [u64; 7] = [40_000, 1, 70_001, 0, 16_384, 5_000, 90_000];
        let mut offset = 0;
        let files: Vec<File> = lens
            .iter()
            .enumerate()
            .map(|(number, &len)| {
                let start = offset;
                offset += len;
                let path = vec!["folder".to_owned(), number.to_string()];
                File { path, len, offset: start, attributes: Attributes::default() }
            })
            .collect();
        let mut bytes = vec![0; offset as usize];
        Rng::from_number(7).fill(&mut bytes);
        let piece_hashes: Vec<u8> = bytes.chunks(PIECE_LEN as usize).flat_map(Sha1::digest).collect();
        let info = Info {
            infohash: InfoHash::of(&piece_hashes),
            infohash_v2: None,
            bytes: Bytes::new(),
            name: "folder".to_owned(),
            geometry: Geometry::new(offset, PIECE_LEN).unwrap(),
            piece_hashes: piece_hashes.into(),
            files,
            layout: Layout::Folder,
            private: false,
            source: None,
            renamed: Vec::new(),
        };
        Self { info, bytes }
    }

    fn piece(&self, piece: PieceIndex) -> &[u8] {
        let start = self.info.geometry.offset_of(piece) as usize;
        &self.bytes[start..start + self.info.geometry.len_of(piece) as usize]
    }

    fn content(&self, disk: &Disk) -> Content<Disk> {
        let selected = (0..self.info.files.len()).map(|number| number != 4).collect();
        Content::new(self.info.clone(), selected, disk.clone())
    }

    fn owner(&self) -> Owner {
        let Info { infohash, geometry, ref files, .. } = self.info;
        Owner { infohash, geometry, file_count: files.len() as u32 }
    }
}

/// What one start found.
struct Started {
    store: Store<Disk>,
    have: Bitfield,
    hashed_count: u32,
}

/// Everything that a start does, as the engine does it.
fn start(sample: &Sample, disk: &Disk, state: &Disk) -> Result<Started, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let name = vec!["journal".to_owned()];
    let journal = Journal::open(Arc::new(state.clone()), name, sample.owner()).map_err(|e| text(&e))?;
    let store = Store::new(sample.content(disk));
    let verdict = store.begin(Some(journal)).map_err(|e| text(&e))?;
    let mut scratch = Vec::new();
    // What is vouched for has to be there.
    for piece in verdict.vouched.iter_set() {
        assert!(
            store.content().check_piece(piece, &mut scratch).unwrap(),
            "piece {piece} is claimed and false"
        );
    }
    let mut have = verdict.vouched.clone();
    for piece in verdict.doubtful.iter_set() {
        if store.content().check_piece(piece, &mut scratch).map_err(|e| text(&e))? {
            have.set(piece);
        }
    }
    if store.content().wanted().has_more_than(&have) {
        store.prepare(&have).map_err(|e| text(&e))?;
    }
    Ok(Started { store, have, hashed_count: verdict.doubtful.count() })
}

/// Writes what is missing in a random order and commits now and then, until done or the disk fails.
fn download(sample: &Sample, disk: &Disk, started: &mut Started, rng: &mut Rng) -> Result<u32, String> {
    let wanted = started.store.content().wanted();
    let mut missing: Vec<PieceIndex> = wanted.iter_set().filter(|&piece| !started.have.get(piece)).collect();
    rng.shuffle(&mut missing);
    let mut written = 0;
    for piece in missing {
        disk.wait(rng.below(1_000_000) as u64);
        let blocks: Vec<&[u8]> = sample.piece(piece).chunks(5_000).collect();
        started.store.write_piece(piece, &blocks).map_err(|error| error.to_string())?;
        started.have.set(piece);
        written += 1;
        if rng.below(4) == 0 {
            started.store.commit().map_err(|error| error.to_string())?;
        }
    }
    started.store.finish(&started.have).map_err(|error| error.to_string())?;
    Ok(written)
}

fn assert_complete(sample: &Sample, disk: &Disk) {
    for (number, file) in sample.info.files.iter().enumerate().filter(|(number, _)| *number != 4) {
        let bytes = disk.bytes(&file.path).unwrap_or_else(|| panic!("file {number} is missing"));
        let (start, end) = (file.offset as usize, (file.offset + file.len) as usize);
        assert_eq!(bytes, sample.bytes[start..end], "file {number}");
    }
}

/// Downloads with the power going out at this call, starts again, and finishes. Pieces fetched twice.
fn cut_once(sample: &Sample, model: Model, seed: u64, cut_at: u64) -> (u32, bool) {
    let disk = Disk::new(model, seed);
    let mut rng = Rng::from_number(seed);
    disk.set_faults(Faults { cut_at: Some(cut_at), ..Faults::default() });
    let first =
        start(sample, &disk, &disk).and_then(|mut started| download(sample, &disk, &mut started, &mut rng));
    let was_cut = disk.is_down();
    assert!(was_cut || first.is_ok(), "{first:?}");
    disk.power_cycle();
    let mut again = start(sample, &disk, &disk).unwrap();
    let fetched = download(sample, &disk, &mut again, &mut rng).unwrap();
    assert_complete(sample, &disk);
    let third = start(sample, &disk, &disk).unwrap();
    assert_eq!(third.hashed_count, 0, "after a clean end nothing is hashed");
    assert!(!third.store.content().wanted().has_more_than(&third.have));
    (fetched, was_cut)
}

#[test]
fn a_power_cut_at_every_single_call_loses_nothing_that_is_claimed() {
    let sample = Sample::new();
    for model in MODELS {
        let mut cut_at = 1;
        while cut_once(&sample, model, 1, cut_at).1 {
            cut_at += 1;
        }
        assert!(cut_at > 50, "{model:?}: only {cut_at} calls");
        eprintln!("{model:?}: {} power cuts, nothing false", cut_at - 1);
    }
}

/// How many runs of each kind; `SPRAT_LONG=1` is the long form.
fn run_count(short: u64, long: u64) -> u64 {
    if std::env::var_os("SPRAT_LONG").is_some() { long } else { short }
}

#[test]
fn power_cuts_at_random_moments_one_after_the_other() {
    let sample = Sample::new();
    let (mut cuts, mut worst_twice) = (0, 0);
    for seed in 0..run_count(100, 3_400) {
        for model in MODELS {
            let disk = Disk::new(model, seed);
            let mut rng = Rng::from_number(seed);
            let (mut written, mut found) = (0, 0);
            // Several cuts in one download, then an end in peace.
            for _ in 0..3 {
                let cut_at = disk.call_count() + 1 + rng.below(90) as u64;
                disk.set_faults(Faults { cut_at: Some(cut_at), ..Faults::default() });
                if let Ok(mut started) = start(&sample, &disk, &disk) {
                    found = found.max(started.have.count());
                    let before = started.have.count();
                    let _ = download(&sample, &disk, &mut started, &mut rng);
                    written += started.have.count() - before;
                }
                cuts += u64::from(disk.is_down());
                disk.power_cycle();
            }
            let mut last = start(&sample, &disk, &disk).unwrap();
            written += download(&sample, &disk, &mut last, &mut rng).unwrap();
            assert_complete(&sample, &disk);
            worst_twice = worst_twice.max(written.saturating_sub(last.store.content().wanted().count()));
        }
    }
    eprintln!("{cuts} power cuts, nothing false; at most {worst_twice} pieces written twice in a download");
}

/// Killed, the program leaves everything that it wrote: only the piece that it was writing is fetched again.
#[test]
fn a_kill_costs_at_most_the_piece_being_written() {
    let sample = Sample::new();
    for seed in 0..run_count(200, 20_000) {
        let disk = Disk::new(MODELS[seed as usize % 3], seed);
        let mut rng = Rng::from_number(seed);
        let cut_at = 1 + rng.below(90) as u64;
        disk.set_faults(Faults { cut_at: Some(cut_at), ..Faults::default() });
        let mut before = 0;
        if let Ok(mut started) = start(&sample, &disk, &disk) {
            let _ = download(&sample, &disk, &mut started, &mut rng);
            before = started.have.count();
        }
        disk.revive();
        let mut again = start(&sample, &disk, &disk).unwrap();
        assert!(again.have.count() >= before, "seed {seed}: {before} pieces, then {}", again.have.count());
        download(&sample, &disk, &mut again, &mut rng).unwrap();
        assert_complete(&sample, &disk);
    }
}

/// Any call may fail for a while: the download stops, nothing is claimed that is not there, and it goes on.
#[test]
fn errors_and_a_full_disk_stop_it_for_as_long_as_they_last() {
    let kinds = [
        std::io::ErrorKind::StorageFull,
        std::io::ErrorKind::QuotaExceeded,
        std::io::ErrorKind::ReadOnlyFilesystem,
        std::io::ErrorKind::Other,
    ];
    let sample = Sample::new();
    for seed in 0..run_count(200, 4_000) {
        let disk = Disk::new(MODELS[seed as usize % 3], seed);
        let mut rng = Rng::from_number(seed);
        let from = 1 + rng.below(90) as u64;
        let faults = match rng.below(2) {
            0 => Faults { space: Some(rng.below(220_000) as u64), ..Faults::default() },
            _ => Faults {
                failing: Some((from..from + 1 + rng.below(20) as u64, kinds[rng.below(kinds.len())])),
                ..Faults::default()
            },
        };
        disk.set_faults(faults);
        let mut failures = 0;
        loop {
            let done = start(&sample, &disk, &disk)
                .and_then(|mut started| download(&sample, &disk, &mut started, &mut rng));
            if done.is_ok() {
                break;
            }
            failures += 1;
            if failures > 5 {
                disk.set_faults(Faults::default());
            }
            assert!(failures < 30, "seed {seed}: {done:?}");
        }
        assert_complete(&sample, &disk);
    }
}

/// Files changed behind our back, while we run and while we do not: what is claimed is there.
#[test]
fn what_others_do_to_files_is_noticed_at_the_next_start() {
    let sample = Sample::new();
    for seed in 0..run_count(200, 4_000) {
        let disk = Disk::new(Model::Posix, seed);
        let mut rng = Rng::from_number(seed);
        let mut first = start(&sample, &disk, &disk).unwrap();
        if rng.below(2) == 0 {
            let until = disk.call_count() + 20 + rng.below(60) as u64;
            disk.set_faults(Faults { cut_at: Some(until), ..Faults::default() });
        }
        let _ = download(&sample, &disk, &mut first, &mut rng);
        disk.revive();
        // A write of ours may be under way for some seconds after it was meant.
        disk.wait(11_000_000);
        let file = &sample.info.files[[0, 2, 5, 6][rng.below(4)]];
        let at = rng.below(file.len as usize);
        match rng.below(4) {
            0 => disk.tamper(&file.path, |bytes| bytes.truncate(at)),
            1 => disk.tamper(&file.path, |bytes| {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1;
                }
            }),
            2 => disk.tamper(&file.path, |bytes| bytes.push(1)),
            _ => disk.remove(&file.path).unwrap(),
        }
        let mut again = start(&sample, &disk, &disk).unwrap();
        download(&sample, &disk, &mut again, &mut rng).unwrap();
        for piece in again.have.iter_set() {
            assert!(
                again.store.content().check_piece(piece, &mut Vec::new()).unwrap(),
                "seed {seed}, piece {piece}"
            );
        }
    }
}

/// A journal with any bytes in it: at worst everything is hashed.
#[test]
fn a_damaged_journal_never_claims_what_is_not_there() {
    let sample = Sample::new();
    let journal = vec!["journal".to_owned()];
    for seed in 0..run_count(500, 100_000) {
        let disk = Disk::new(Model::Posix, 1);
        let mut rng = Rng::from_number(seed);
        let mut first = start(&sample, &disk, &disk).unwrap();
        disk.set_faults(Faults {
            cut_at: Some(disk.call_count() + 1 + rng.below(90) as u64),
            ..Faults::default()
        });
        let _ = download(&sample, &disk, &mut first, &mut rng);
        disk.revive();
        disk.tamper(&journal, |bytes| {
            let at = rng.below(bytes.len());
            match rng.below(5) {
                0 => bytes.truncate(at),
                1 => bytes[at] ^= 1 << rng.below(8),
                2 => bytes[at..].fill(0),
                3 => bytes.extend_from_within(at..),
                _ => bytes.drain(..at).for_each(drop),
            }
        });
        match start(&sample, &disk, &disk) {
            Ok(mut again) => {
                download(&sample, &disk, &mut again, &mut rng).unwrap();
                assert_complete(&sample, &disk);
            }
            // The one damage that is taken for something else.
            Err(error) => assert!(error.contains("newer version"), "{error}"),
        }
    }
}
