//! N6: files that somebody changes while a real seed hands them on: never a wrong byte goes out,
//! what is still good goes on being served, no link is followed, and each file is told of once. Nor
//! is it forgotten by the next start, or missed by a download that goes on.
//!
//! `SPRAT_LONG=1` is the long form: 1,000 changes.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use sprat::engine::{AddTorrent, Bitfield, Event, Selection, TorrentHandle};
use sprat::proto::block::Block;
use sprat::proto::rng::Rng;

use super::engine::{Content, addr, engine, event, seed, within};
use crate::process::{Ended, Sprat, content, sprat};
use crate::raw_peer::RawPeer;
use crate::truth::Truth;

const FILE_COUNT: usize = 40;
/// Three pieces and a half: pieces belong to two files.
const FILE_LEN: usize = 57_345;
/// Blocks asked for at once.
const PIPELINE_LEN: usize = 32;

/// What somebody does to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Truncate,
    Append,
    Flip,
    /// And the time of the last change is set back.
    FlipInSecret,
    /// Cut and grown again: zeros, of the right length.
    Hollow,
    /// Another file of the same length takes its name.
    Replace,
    /// Another file with the same bytes takes its name.
    ReplaceAlike,
    Delete,
    /// A link to a file with other bytes takes its name.
    Link,
    /// A link to a file with the same bytes takes its name.
    LinkAlike,
    Folder,
    Forbid,
    /// Its times alone.
    Touch,
}

const CHANGES: [Change; 13] = [
    Change::Truncate,
    Change::Append,
    Change::Flip,
    Change::FlipInSecret,
    Change::Hollow,
    Change::Replace,
    Change::ReplaceAlike,
    Change::Delete,
    Change::Link,
    Change::LinkAlike,
    Change::Folder,
    Change::Forbid,
    Change::Touch,
];

impl Change {
    /// Does it to the file at `path`, which has these bytes; `beside` is a name on the same file
    /// system.
    fn apply(self, path: &Path, bytes: &[u8], beside: &Path, rng: &mut Rng) {
        let open = || File::options().read(true).write(true).open(path).unwrap();
        let at = rng.below(bytes.len());
        let flipped = || {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << (at % 8);
            flipped
        };
        let put = |bytes: &[u8]| fs::write(beside, bytes).unwrap();
        match self {
            Self::Truncate => open().set_len(at as u64).unwrap(),
            Self::Append => {
                File::options().append(true).open(path).unwrap().write_all(b"more").unwrap();
            }
            Self::Flip | Self::FlipInSecret => {
                let mut file = open();
                let modified = file.metadata().unwrap().modified().unwrap();
                file.seek(SeekFrom::Start(at as u64)).unwrap();
                file.write_all(&[flipped()[at]]).unwrap();
                if self == Self::FlipInSecret {
                    file.set_times(FileTimes::new().set_modified(modified).set_accessed(modified)).unwrap();
                }
            }
            Self::Hollow => {
                open().set_len(at as u64).unwrap();
                open().set_len(bytes.len() as u64).unwrap();
            }
            Self::Replace | Self::ReplaceAlike => {
                put(if self == Self::Replace { flipped() } else { bytes.to_vec() }.as_slice());
                fs::rename(beside, path).unwrap();
            }
            Self::Delete => fs::remove_file(path).unwrap(),
            Self::Link | Self::LinkAlike => {
                put(if self == Self::Link { flipped() } else { bytes.to_vec() }.as_slice());
                fs::remove_file(path).unwrap();
                symlink(beside, path).unwrap();
            }
            Self::Folder => {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            }
            Self::Forbid => fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap(),
            Self::Touch => open().set_modified(std::time::UNIX_EPOCH).unwrap(),
        }
    }
}

/// Files, their torrent, and what they should hold.
struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
    truth: Arc<Truth>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..FILE_COUNT).map(|at| format!("file-{at}-")).collect();
        let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), FILE_LEN)).collect();
        content(&dir.path().join("set"), &files);
        let args = ["create", "set", "-o", "set.torrent", "--piece-size", "16KiB"];
        assert_eq!(sprat(dir.path(), &args).code, Some(0));
        let path = dir.path().to_owned();
        let truth = Arc::new(Truth::load(&path.join("set.torrent"), &path));
        Self { _dir: dir, path, truth }
    }

    fn pieces_of(&self, file: usize) -> Vec<u32> {
        let (file, geometry) = (&self.truth.info.files[file], self.truth.info.geometry);
        let piece_len = u64::from(geometry.piece_len());
        ((file.offset / piece_len) as u32..(file.offset + file.len).div_ceil(piece_len) as u32).collect()
    }

    /// Asks for all of these pieces that are claimed, again and again until all that are claimed
    /// have come, and none came false; which were claimed then.
    fn fetch(&self, port: u16, pieces: &[u32]) -> Vec<u32> {
        let geometry = self.truth.info.geometry;
        // Each time somebody hangs up, a piece at least is claimed no more.
        for _ in 0..=pieces.len() + 3 {
            let Ok(mut peer) = RawPeer::connect(port, &self.truth.info) else { continue };
            let claimed: Vec<u32> = pieces.iter().copied().filter(|&piece| peer.claimed.get(piece)).collect();
            let blocks: Vec<Block> = claimed.iter().map(|&piece| geometry.block(piece, 0)).collect();
            let mut fetch = || {
                peer.ask(&blocks)?;
                for _ in &blocks {
                    let (block, bytes) = peer.block()?;
                    assert!(bytes == self.truth.block(block), "{block:?} came false");
                }
                Ok::<_, std::io::Error>(())
            };
            if fetch().is_ok() {
                return claimed;
            }
        }
        panic!("it goes on claiming what it does not give");
    }
}

/// Somebody who never stops asking for anything that is claimed.
struct Crowd {
    is_over: Arc<AtomicBool>,
    block_count: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Crowd {
    fn start(truth: &Arc<Truth>, port: u16, seed: u64) -> Self {
        let (is_over, block_count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (over, count, truth) = (Arc::clone(&is_over), Arc::clone(&block_count), Arc::clone(truth));
        let thread = thread::spawn(move || {
            let mut rng = Rng::from_number(seed);
            while !over.load(Ordering::Relaxed) {
                // That it is hung up on is no error.
                let _ = ask_on(&truth, port, &mut rng, &over, &count);
            }
        });
        Self { is_over, block_count, thread }
    }

    fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.block_count.load(Ordering::Relaxed)
    }
}

fn ask_on(
    truth: &Truth,
    port: u16,
    rng: &mut Rng,
    is_over: &AtomicBool,
    count: &AtomicU64,
) -> std::io::Result<()> {
    let mut peer = RawPeer::connect(port, &truth.info)?;
    let claimed: Vec<u32> = peer.claimed.iter_set().collect();
    while !is_over.load(Ordering::Relaxed) && !claimed.is_empty() {
        let any = |_| truth.info.geometry.block(claimed[rng.below(claimed.len())], 0);
        let blocks: BTreeSet<Block> = (0..PIPELINE_LEN).map(any).collect();
        peer.ask(&Vec::from_iter(blocks.iter().copied()))?;
        for _ in &blocks {
            let (block, bytes) = peer.block()?;
            assert!(bytes == truth.block(block), "{block:?} came false");
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Changes every file of a running seed, one after the other, while it is asked all the time;
/// blocks checked.
fn round(seed: u64, change_count: usize) -> u64 {
    let mut rng = Rng::from_number(seed);
    let place = Place::new();
    let mut sprat = Sprat::start(&place.path, &["seed", "set.torrent", "-d", ".", "-p", "0", "--json"]);
    let port = sprat.event("seeding")["port"].as_u64().unwrap() as u16;
    let crowd = Crowd::start(&place.truth, port, seed);
    let mut files: Vec<usize> = (0..FILE_COUNT).collect();
    rng.shuffle(&mut files);
    let mut lost_files = Vec::new();
    for (at, &file) in files.iter().take(change_count).enumerate() {
        let change = CHANGES[(at + seed as usize) % CHANGES.len()];
        let pieces = place.pieces_of(file);
        if rng.below(2) == 0 {
            place.fetch(port, &pieces);
        }
        let before = place.truth.good(&place.path);
        let (path, beside) = (place.truth.path(file, &place.path), place.path.join(format!("beside-{file}")));
        change.apply(&path, place.truth.file(file), &beside, &mut rng);
        let good = place.truth.good(&place.path);
        let served = place.fetch(port, &pieces);
        let still: Vec<u32> = pieces.into_iter().filter(|&piece| good.get(piece)).collect();
        let what = format!("{change:?} of {}: {served:?} served, {still:?} good", path.display());
        // While the file was short, a piece at the cut may have been looked at; then it is not
        // claimed any more.
        let lacks = still.iter().filter(|piece| !served.contains(piece)).count();
        let lacks_max = usize::from(change == Change::Hollow);
        assert!(lacks <= lacks_max && served.iter().all(|piece| still.contains(piece)), "{what}");
        if before.has_more_than(&good) {
            lost_files.push(path);
        }
    }
    let block_count = crowd.stop();
    sprat.signal("TERM");
    told_once(&sprat.end(), &lost_files);
    block_count
}

/// Of each file that lost something there was one warning, and of no other.
fn told_once(ended: &Ended, lost_files: &[PathBuf]) {
    let warnings: Vec<&String> =
        ended.out.iter().filter(|line| line.contains("\"event\":\"warning\"")).collect();
    for file in lost_files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let count = warnings.iter().filter(|line| line.contains(name)).count();
        assert_eq!(count, 1, "{name}: {warnings:?}");
    }
    assert_eq!(warnings.len(), lost_files.len(), "{warnings:?}");
}

#[test]
fn of_files_that_somebody_changes_nothing_false_goes_out() {
    let is_long = std::env::var_os("SPRAT_LONG").is_some();
    let (round_count, change_count) = if is_long { (25, FILE_COUNT) } else { (1, 2 * CHANGES.len()) };
    let block_count: u64 = (0..round_count).map(|seed| round(seed, change_count)).sum();
    eprintln!("{} changes, 0 wrong bytes; {block_count} blocks beside", round_count as usize * change_count);
}

/// Between the hashing of a folder and the first request time goes by.
#[test]
fn a_folder_that_changes_right_after_it_was_hashed_is_not_handed_on_false() {
    let place = Place::new();
    let mut seed = Sprat::start(&place.path, &["seed", "set", "-o", "own.torrent", "-p", "0", "--json"]);
    let port = seed.event("seeding")["port"].as_u64().unwrap() as u16;
    let truth = Truth::load(&place.path.join("own.torrent"), &place.path);
    let mut rng = Rng::from_number(3);
    let path = truth.path(1, &place.path);
    Change::FlipInSecret.apply(&path, truth.file(1), &place.path.join("beside"), &mut rng);
    let own = Place { truth: Arc::new(truth), ..place };
    let pieces: Vec<u32> = Bitfield::full(own.truth.info.geometry.piece_count()).iter_set().collect();
    let served = own.fetch(port, &pieces);
    assert_eq!(served, own.truth.good(&own.path).iter_set().collect::<Vec<_>>());
    seed.signal("TERM");
    told_once(&seed.end(), &[path]);
}

/// A change that is noticed makes all of its file suspect, and what of it was not hashed again is
/// not forgotten.
#[test]
fn what_is_suspect_when_a_seed_ends_is_hashed_at_the_next_start() {
    let place = Place::new();
    let state = place.path.join("state");
    let start = |args: &[&str]| {
        let args = [args, &["set.torrent", "-d", ".", "-p", "0", "--json"]].concat();
        Sprat::start_with(&place.path, &args, &[("XDG_STATE_HOME", state.to_str().unwrap())])
    };
    let end = |sprat: Sprat| {
        sprat.signal("TERM");
        assert_eq!(sprat.end().code, Some(0));
    };
    let mut first = start(&["seed"]);
    first.event("seeding");
    end(first);
    let mut seed = start(&["seed"]);
    let port = seed.event("seeding")["port"].as_u64().unwrap() as u16;
    let mut pieces = place.pieces_of(1);
    let (good, flipped) = (pieces[1], pieces[2]);
    let within = place.truth.info.geometry.offset_of(flipped) - place.truth.info.files[1].offset;
    let mut file = File::options().write(true).open(place.truth.path(1, &place.path)).unwrap();
    file.seek(SeekFrom::Start(within)).unwrap();
    file.write_all(&[!place.truth.file(1)[within as usize]]).unwrap();
    assert_eq!(place.fetch(port, &[good]), [good]);
    end(seed);
    let mut again = start(&["download", "--seed"]);
    let port = again.event("started")["port"].as_u64().unwrap() as u16;
    let checked = again.event("checked");
    assert_eq!(checked["good"].as_u64().unwrap() + 1, checked["total"].as_u64().unwrap());
    let served = place.fetch(port, &pieces);
    pieces.retain(|&piece| piece != flipped);
    assert_eq!(served, pieces, "what is false is not claimed");
    again.signal("TERM");
    again.end();
}

/// A running download has its files open: it would go on writing into those that have no name any
/// more.
#[test]
fn files_deleted_and_replaced_while_they_are_downloaded_are_fetched_again() {
    let place = Place::new();
    let start = |state: &str, args: &[&str]| {
        let state = place.path.join(state);
        let args = [args, &["-p", "0", "--json"]].concat();
        Sprat::start_with(&place.path, &args, &[("XDG_STATE_HOME", state.to_str().unwrap())])
    };
    let mut source = start("state-of-source", &["seed", "set.torrent", "--up-limit", "512KiB"]);
    let peer = format!("127.0.0.1:{}", source.event("seeding")["port"]);
    let mut download = start("state", &["download", "set.torrent", "-d", "copy", "--peer", &peer]);
    while download.event("progress")["done"].as_u64().unwrap() < (FILE_COUNT * FILE_LEN / 4) as u64 {}
    let copy = place.path.join("copy");
    let begun: Vec<usize> =
        (0..FILE_COUNT).filter(|&file| place.truth.path(file, &copy).exists()).take(6).collect();
    assert_eq!(begun.len(), 6, "a quarter of it lies in more files than that");
    let mut rng = Rng::from_number(11);
    for (at, &file) in begun.iter().enumerate() {
        let change = if at % 2 == 0 { Change::Delete } else { Change::Replace };
        let beside = place.path.join(format!("beside-{file}"));
        change.apply(&place.truth.path(file, &copy), place.truth.file(file), &beside, &mut rng);
    }
    let ended = download.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(place.truth.good(&copy).is_full(), "it is called complete: {ended:?}");
}

/// What was there at the start of a download may be gone at its end, though nobody asked for it
/// meanwhile.
#[tokio::test]
async fn what_is_spoilt_during_a_download_is_fetched_again_before_it_counts_as_complete() {
    let files = ["a", "b", "c", "d"];
    let content = Content::new(&files.map(|name| (name, 400_000)));
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("content");
    fs::create_dir(&place).unwrap();
    for name in ["a", "b", "c"] {
        fs::copy(content.seed().dir.join("content").join(name), place.join(name)).unwrap();
    }
    let mut torrent = leecher.add(content.download(dir.path())).await.unwrap();
    event(&mut torrent, |event| matches!(event, Event::Checked { .. })).await;
    let mut rng = Rng::from_number(5);
    for (name, change) in [("a", Change::FlipInSecret), ("b", Change::Delete)] {
        let bytes = fs::read(place.join(name)).unwrap();
        change.apply(&place.join(name), &bytes, &dir.path().join("beside"), &mut rng);
    }
    torrent.add_peers(vec![addr(&seeder)]).await.unwrap();
    event(&mut torrent, |event| matches!(event, Event::PieceLost { is_fetching: true, .. })).await;
    within(torrent.completed()).await.unwrap();
    content.assert_same(dir.path());
}

/// Between sprats a piece that is gone costs no connection: the rest comes over the one that there
/// is.
#[tokio::test]
async fn a_seed_of_which_a_file_is_spoilt_keeps_its_peers() {
    let content = Content::new(&[("a", 400_000), ("b", 400_000)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let mut seeding = seed(&seeder, &content).await;
    let path = content.seed().dir.join("content").join("a");
    let bytes = fs::read(&path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    Change::FlipInSecret.apply(&path, &bytes, &dir.path().join("beside"), &mut Rng::from_number(7));
    let mut torrent = leecher.add(content.download(dir.path())).await.unwrap();
    torrent.add_peers(vec![addr(&seeder)]).await.unwrap();
    let left = content.metainfo.info.geometry.piece_count() - 1;
    let mut come = 0;
    while come < left {
        let event = within(torrent.next_event()).await.unwrap();
        assert!(!matches!(event, Event::PeerDisconnected(..)), "{event:?} after {come} of {left}");
        come += u32::from(matches!(event, Event::Piece(_)));
    }
    event(&mut seeding, |event| matches!(event, Event::PieceLost { is_fetching: false, .. })).await;
    let is_told = |torrent: &TorrentHandle| {
        let peers = torrent.snapshot().torrent.peers;
        peers.len() == 1 && peers[0].have_count == left && !peers[0].am_interested
    };
    while !is_told(&torrent) {
        assert!(within(torrent.changed()).await, "it goes on");
    }
}

/// What is not selected is not fetched, even if it was there and is spoilt, and holds up no
/// completion.
#[tokio::test]
async fn a_spoilt_file_that_is_not_selected_is_left_alone() {
    let content = Content::new(&[("a", 393_216), ("b", 393_216)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("content");
    fs::create_dir(&place).unwrap();
    fs::copy(content.seed().dir.join("content").join("a"), place.join("a")).unwrap();
    let selection = Selection::Flags(vec![false, true]);
    let download = AddTorrent { selection, ..content.download(dir.path()) };
    let mut torrent = leecher.add(download).await.unwrap();
    let checked = event(&mut torrent, |event| matches!(event, Event::Checked { .. })).await;
    let bytes = fs::read(place.join("a")).unwrap();
    Change::FlipInSecret.apply(
        &place.join("a"),
        &bytes,
        &dir.path().join("beside"),
        &mut Rng::from_number(5),
    );
    let spoilt = fs::read(place.join("a")).unwrap();
    torrent.add_peers(vec![addr(&seeder)]).await.unwrap();
    let lost = event(&mut torrent, |event| matches!(event, Event::PieceLost { .. })).await;
    within(torrent.completed()).await.unwrap();
    assert_eq!(fs::read(place.join("a")).unwrap(), spoilt, "{checked:?} {lost:?}");
}
