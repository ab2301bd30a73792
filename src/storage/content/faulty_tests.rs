//! Tests of content on a disk that fails, that has only part of a file in memory, or whose files
//! change during a read.

use std::fs;
use std::io::{ErrorKind, IoSliceMut};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::*;
use crate::storage::fs::{RealFs, Stamp};
use crate::storage::handles::Handles;
use crate::storage::testing::sample;

/// A disk that is full or does not sync while `fault` is set, and has the first bytes of each file
/// in memory.
struct Faulty {
    real: RealFs,
    fault: AtomicBool,
    memory_len: AtomicU64,
    /// Offsets that the device cannot read.
    bad_at: Mutex<std::ops::Range<u64>>,
    synced_folders: Mutex<Vec<String>>,
    /// The file length at which another program takes the space.
    full_at: Mutex<Option<u64>>,
    interloper: Mutex<Option<Interloper>>,
    /// Whether files can be opened without waiting.
    opens_at_once: AtomicBool,
}

/// Runs an action after this many more reads.
struct Interloper(u32, Box<dyn FnOnce() + Send>);

impl Faulty {
    fn new(real: RealFs, fault: bool) -> Self {
        Self {
            real,
            fault: fault.into(),
            memory_len: u64::MAX.into(),
            bad_at: Mutex::default(),
            synced_folders: Mutex::default(),
            full_at: Mutex::default(),
            interloper: Mutex::default(),
            opens_at_once: true.into(),
        }
    }

    fn fail(&self, kind: ErrorKind) -> io::Result<()> {
        if self.fault.load(Ordering::Relaxed) { Err(kind.into()) } else { Ok(()) }
    }
}

impl FileSystem for Faulty {
    type File = <RealFs as FileSystem>::File;
    type Lock = <RealFs as FileSystem>::Lock;

    fn full_path(&self, path: &[String]) -> PathBuf {
        self.real.full_path(path)
    }
    fn open_read(&self, path: &[String]) -> io::Result<Self::File> {
        self.real.open_read(path)
    }
    fn open_write(&self, path: &[String]) -> io::Result<Self::File> {
        self.real.open_write(path)
    }
    fn open_again(&self, path: &[String]) -> io::Result<Self::File> {
        self.real.open_again(path)
    }
    fn read_exact_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.bad_at.lock().unwrap().contains(&offset) {
            return Err(rustix::io::Errno::IO.into());
        }
        self.real.read_exact_at(file, buffer, offset)?;
        let mut interloper = self.interloper.lock().unwrap();
        if let Some(Interloper(left @ 1.., _)) = &mut *interloper {
            *left -= 1;
            return Ok(());
        }
        let due = interloper.take();
        drop(interloper);
        due.into_iter().for_each(|Interloper(_, act)| act());
        Ok(())
    }
    fn opened(&self, path: &[String]) -> Option<Self::File> {
        self.opens_at_once.load(Ordering::Relaxed).then(|| self.real.opened(path))?
    }
    fn read_at_once(&self, file: &Self::File, parts: &mut [IoSliceMut<'_>], mut offset: u64) -> usize {
        let start = offset;
        for part in parts {
            let left = self.memory_len.load(Ordering::Relaxed).saturating_sub(offset) as usize;
            let len = left.min(part.len());
            self.real.read_exact_at(file, &mut part[..len], offset).unwrap();
            offset += len as u64;
        }
        (offset - start) as usize
    }
    fn write_all_at(&self, file: &Self::File, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.fail(ErrorKind::StorageFull)?;
        self.real.write_all_at(file, parts, offset)
    }
    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()> {
        self.real.set_len(file, len)
    }
    fn stamp(&self, path: &[String]) -> io::Result<Option<Stamp>> {
        self.real.stamp(path)
    }
    fn stamp_of(&self, file: &Self::File) -> io::Result<Stamp> {
        self.real.stamp_of(file)
    }
    fn folder_device(&self) -> u64 {
        self.real.folder_device()
    }
    fn boot(&self) -> u64 {
        self.real.boot()
    }
    fn now(&self) -> u64 {
        self.real.now()
    }
    fn free_len(&self) -> Option<u64> {
        self.real.free_len()
    }
    fn lock(&self, path: &[String]) -> io::Result<Option<Self::Lock>> {
        self.real.lock(path)
    }
    fn allocate(&self, file: &Self::File, len: u64) -> io::Result<bool> {
        self.fail(ErrorKind::StorageFull)?;
        if *self.full_at.lock().unwrap() == Some(len) {
            self.real.set_len(file, len / 2)?;
            return Err(ErrorKind::StorageFull.into());
        }
        self.real.allocate(file, len)
    }
    fn rename(&self, from: &[String], to: &[String]) -> io::Result<()> {
        self.real.rename(from, to)
    }
    fn sync(&self, file: &Self::File) -> io::Result<()> {
        self.fail(ErrorKind::Other)?;
        self.real.sync(file)
    }
    fn sync_folder(&self, folder: &[String]) -> io::Result<()> {
        let name = folder.join("/");
        self.synced_folders.lock().unwrap().push(name);
        self.real.sync_folder(folder)
    }
    fn sync_all(&self) -> io::Result<()> {
        self.fail(ErrorKind::Other)?;
        self.real.sync_all()
    }
    fn remove(&self, path: &[String]) -> io::Result<()> {
        self.real.remove(path)
    }
    fn set_executable(&self, path: &[String]) -> io::Result<bool> {
        self.real.set_executable(path)
    }
    fn close(&self) {
        self.real.close();
    }
}

#[test]
fn cached_blocks_are_read_without_waiting_up_to_the_first_gap() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&[("a", 70), ("pad", 26), ("b", 5), ("c", 5), ("d", 100)], 96);
    let real = RealFs::create(folder.path(), &Handles::new(9)).unwrap();
    let content = Content::new(sample.info.clone(), Vec::new(), Faulty::new(real, false));
    for piece in sample.pieces() {
        content.write_piece(piece, &[sample.piece(piece)]).unwrap();
    }
    let blocks_of = |piece| {
        let block = |(at, bytes): (usize, &[u8])| {
            (Block { piece, offset: 8 * at as u32, len: bytes.len() as u32 }, vec![0; bytes.len()])
        };
        sample.piece(piece).chunks(8).enumerate().map(block).collect::<Vec<_>>()
    };
    let read_at_once = |mut blocks: Vec<(Block, Vec<u8>)>| {
        let count = content.read_at_once(&mut blocks);
        for (block, buffer) in &blocks[..count] {
            let start = block.offset as usize;
            assert_eq!(buffer, &sample.piece(block.piece)[start..start + buffer.len()], "{block:?}");
        }
        count
    };
    let all = || sample.pieces().flat_map(blocks_of).collect::<Vec<_>>();
    assert_eq!(read_at_once(all()), all().len());
    content.fs().memory_len.store(33, Ordering::Relaxed);
    assert_eq!(read_at_once(all()), 4, "33 bytes of a hold four blocks");
    assert_eq!(read_at_once(blocks_of(1)), 5, "b, c, and 33 bytes of d");
    content.fs().opens_at_once.store(false, Ordering::Relaxed);
    assert_eq!(read_at_once(all()), 0, "opening a file has to wait");
    content.fs().opens_at_once.store(true, Ordering::Relaxed);
    assert_eq!(read_at_once(all()), 4);
    assert_eq!(read_at_once(vec![(Block { piece: 1, offset: 90, len: 8 }, vec![0; 8])]), 0);
}

#[test]
fn changed_files_are_not_read_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&[("a", 40), ("b", 24)], 32);
    let real = RealFs::create(folder.path(), &Handles::new(9)).unwrap();
    let content = Content::new(sample.info.clone(), Vec::new(), Faulty::new(real, false));
    sample.pieces().for_each(|piece| content.write_piece(piece, &[sample.piece(piece)]).unwrap());
    (0..2).for_each(|number| assert!(content.look(number).unwrap().is_some()));
    let block = |piece| (Block { piece, offset: 8, len: 24 }, vec![0; 24]);
    assert_eq!(content.read_at_once(&mut [block(0), block(1)]), 2);
    fs::write(folder.path().join("b"), [7_u8; 24]).unwrap();
    assert_eq!(content.read_at_once(&mut [block(0), block(1)]), 1);
    let lost = content.read_blocks(&mut [block(1)], &mut Vec::new()).unwrap();
    assert_eq!(lost.into_iter().map(|lost| lost.piece).collect::<Vec<_>>(), [1]);
    assert_eq!(content.read_at_once(&mut [block(1)]), 0, "it looks the same again, and is another");
}

/// One thread reads a piece to hash it; then another program changes the piece, and a second thread
/// notices.
#[test]
fn a_change_noticed_during_a_hash_outlives_the_check_of_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&[("a", 64)], 32);
    let real = RealFs::create(folder.path(), &Handles::new(9)).unwrap();
    let content = Arc::new(Content::new(sample.info.clone(), Vec::new(), Faulty::new(real, false)));
    sample.pieces().for_each(|piece| content.write_piece(piece, &[sample.piece(piece)]).unwrap());
    content.look(0).unwrap();
    let path = folder.path().join("a");
    let change = move |bytes: &[u8], seconds| {
        fs::write(&path, bytes).unwrap();
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
    };
    let read = |content: &Content<_>, piece| {
        let mut blocks = [(Block { piece, offset: 0, len: 32 }, vec![0; 32])];
        let lost = content.read_blocks(&mut blocks, &mut Vec::new()).unwrap();
        lost.into_iter().map(|lost| lost.piece).collect::<Vec<_>>()
    };
    change(&sample.bytes, 1);
    let (other, mut spoilt) = (Arc::clone(&content), sample.bytes.clone());
    spoilt[0] ^= 1;
    let act = move || {
        change(&spoilt, 2);
        assert!(read(&other, 1).is_empty());
    };
    // The first read is for the upload, the second for the hash.
    *content.fs().interloper.lock().unwrap() = Some(Interloper(1, Box::new(act)));
    assert_eq!(read(&content, 0), [0]);
}

#[test]
fn a_full_disk_may_clear_and_a_failed_sync_is_tried_again() {
    let names: Vec<_> = (0..=durable::SYNC_EACH_MAX).map(|at| at.to_string()).collect();
    for file_count in [2, names.len()] {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> = names[..file_count].iter().map(|name| (name.as_str(), 10)).collect();
        let sample = sample(&files, 16);
        let real = RealFs::create(folder.path(), &Handles::new(4)).unwrap();
        let content = Content::new(sample.info.clone(), Vec::new(), Faulty::new(real, true));
        let error = content.write_piece(0, &[sample.piece(0)]).unwrap_err();
        assert!(error.is_full(), "{error}");
        content.fs().fault.store(false, Ordering::Relaxed);
        for piece in sample.pieces() {
            content.write_piece(piece, &[sample.piece(piece)]).unwrap();
        }
        content.fs().fault.store(true, Ordering::Relaxed);
        for _ in 0..2 {
            let error = content.sync().unwrap_err();
            assert!(!error.is_full() && error.path.starts_with(folder.path()), "still to be synced: {error}");
        }
        content.fs().fault.store(false, Ordering::Relaxed);
        content.sync().unwrap();
        content.fs().fault.store(true, Ordering::Relaxed);
        content.sync().unwrap();
    }
}

#[test]
fn folders_are_synced_from_the_deepest_up() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&[("t/a", 10), ("t/deep/er/b", 90), ("t/no/empty", 0)], 32);
    let real = RealFs::create(folder.path(), &Handles::new(4)).unwrap();
    let content = Content::new(sample.info.clone(), Vec::new(), Faulty::new(real, false));
    for piece in sample.pieces() {
        content.write_piece(piece, &[sample.piece(piece)]).unwrap();
    }
    content.make_whole().and_then(|()| content.sync()).unwrap();
    let synced = std::mem::take(&mut *content.fs().synced_folders.lock().unwrap());
    assert_eq!(synced, ["t/no", "t/deep/er", "t/deep", "t", ""]);
    content.make_whole().and_then(|()| content.sync()).unwrap();
    assert!(content.fs().synced_folders.lock().unwrap().is_empty(), "not twice");
}

#[test]
fn a_bad_sector_loses_its_piece_and_a_disk_that_fails_for_a_time_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&[("a", 96)], 32);
    let real = RealFs::create(folder.path(), &Handles::new(9)).unwrap();
    let content = Content::new(sample.info.clone(), Vec::new(), Faulty::new(real, false));
    for piece in sample.pieces() {
        content.write_piece(piece, &[sample.piece(piece)]).unwrap();
    }
    let read = |pieces: &[u32]| {
        let mut blocks: Vec<_> = pieces.iter().map(|&piece| (content.whole(piece), vec![0; 32])).collect();
        let read = content.read_blocks(&mut blocks, &mut Vec::new());
        read.map(|lost| lost.into_iter().map(|lost| lost.piece).collect::<Vec<_>>()).ok()
    };
    *content.fs.bad_at.lock().unwrap() = 0..96;
    assert!((0..9).all(|at| read(&[at % 3]).is_none()), "all of it fails");
    *content.fs.bad_at.lock().unwrap() = 32..64;
    assert_eq!(read(&[1]), None);
    assert_eq!(read(&[0, 2]), Some(vec![]), "the disk is well");
    assert_eq!(read(&[1, 2]), Some(vec![1]));
}

#[test]
fn a_failed_preallocation_frees_its_space() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&[("a", 100), ("b", 60), ("c", 7)], 32);
    fs::write(folder.path().join("a"), [1; 10]).unwrap();
    let real = RealFs::open(folder.path(), &Handles::new(4)).unwrap();
    let content = Content::new(sample.info.clone(), Vec::new(), Faulty::new(real, false));
    *content.fs().full_at.lock().unwrap() = Some(60);
    assert!(content.preallocate().unwrap_err().is_full());
    let len = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
    assert_eq!(["a", "b"].map(len), [10, 0]);
    *content.fs().full_at.lock().unwrap() = None;
    content.preallocate().unwrap();
    assert_eq!(["a", "b", "c"].map(len), [100, 60, 7]);
    // A file of 8 EiB minus one byte fits on no disk.
    let mut info = sample.info.clone();
    info.files[2].len = i64::MAX as u64;
    let real = RealFs::open(folder.path(), &Handles::new(4)).unwrap();
    let content = Content::new(info, Vec::new(), Faulty::new(real, false));
    assert!(content.preallocate().unwrap_err().is_full());
    assert_eq!(["a", "b", "c"].map(len), [100, 60, 7], "nothing is begun that has no room");
}
