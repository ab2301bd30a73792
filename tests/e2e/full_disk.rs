//! N5: disks that are full, for real: a state that is told, passes by itself, and concerns nobody
//! else.

use std::path::Path;

use sprat::engine::{AddTorrent, Event, Stage, StorageFault};

use super::engine::{Content, addr, engine, event, seed, within};
use crate::process::{Sprat, content, sprat, tree};
use crate::small_disk::{SmallDisk, allocated_len};

/// A seed of `set` in `dir`, and its address.
fn seed_of(dir: &Path) -> (Sprat, String) {
    let mut seed = Sprat::start(dir, &["seed", "set", "-p", "0", "--json"]);
    let peer = format!("127.0.0.1:{}", seed.event("seeding")["port"]);
    (seed, peer)
}

/// A seed of 4 MB in `dir`, and beside it a small disk for the copy, on which 2 MiB are free; None:
/// disks cannot be mounted here.
fn seed_beside_a_full_disk(dir: &Path) -> Option<(SmallDisk, Sprat, String)> {
    content(&dir.join("set"), &[("a", 3_000_001), ("b/c", 1_000_000)]);
    let disk = SmallDisk::mount(&dir.join("copy"), "size=5m")?;
    disk.fill_but(2 << 20);
    let (seed, peer) = seed_of(dir);
    Some((disk, seed, peer))
}

fn assert_same(dir: &Path) {
    assert!(tree(&dir.join("set")) == tree(&dir.join("copy/set")), "the copy differs");
}

#[test]
fn a_full_disk_pauses_the_download_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let Some((disk, _seed, peer)) = seed_beside_a_full_disk(path) else { return };
    let args = ["download", "set.torrent", "-d", "copy", "-p", "0", "--peer", &peer];
    let mut download = Sprat::start(path, &args);
    let told = download.line("full");
    assert!(told.starts_with("warning: the file system of copy is full: "), "{told}");
    assert!(told.contains(" MiB more are needed") && told.contains("goes on by itself"), "{told}");
    assert!(std::fs::read(path.join("copy/set/a")).is_ok_and(|bytes| bytes.len() == 3_000_001));
    disk.free();
    download.line("takes data again");
    let ended = download.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.err.len(), 1, "told once: {ended:?}");
    assert_same(path);
}

#[test]
fn programs_are_told_what_is_full_how_much_is_missing_and_when_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let Some((disk, _seed, peer)) = seed_beside_a_full_disk(path) else { return };
    let args = ["download", "set.torrent", "-d", "copy", "-p", "0", "--json", "--peer", &peer];
    let mut download = Sprat::start(path, &args);
    let full = download.event("storage");
    assert_eq!((&full["state"], &full["place"]), (&"full".into(), &"copy".into()), "{full}");
    let missing = full["missing"].as_u64().unwrap();
    assert!((1_500_000..=4_000_001).contains(&missing), "{full}");
    disk.free();
    assert_eq!(download.event("storage")["state"], "good");
    download.event("completed");
    assert_eq!(download.end().code, Some(0));
    assert_same(path);
}

#[test]
fn a_start_that_waits_for_room_shows_how_much_is_wanted_and_present() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let Some((disk, _seed, _)) = seed_beside_a_full_disk(path) else { return };
    let args = ["-d", "copy", "-p", "0", "--preallocate", "--select"];
    let start = |more: &[&str]| Sprat::start(path, &[&["download", "set.torrent"], &args[..], more].concat());
    let shown = start(&["a"]).line("waiting: the file system of copy is full: ");
    assert!(shown.starts_with("  0% 0 B of 2.9 MiB, "), "{shown}");
    assert!(shown.contains(" more are needed"), "{shown}");
    // A part is there: the first MiB, and with the rest of the room nothing else.
    disk.free();
    std::fs::create_dir_all(path.join("copy/set")).unwrap();
    let part = &std::fs::read(path.join("set/a")).unwrap()[..1 << 20];
    std::fs::write(path.join("copy/set/a"), part).unwrap();
    disk.fill_but(1 << 20);
    let shown = start(&["a"]).line("waiting: the file system of copy is full: ");
    assert!(shown.starts_with(" 34% 1.0 MiB of 2.9 MiB, "), "{shown}");
}

#[tokio::test]
async fn a_torrent_on_another_disk_does_not_notice() {
    let (stuck, free) = (Content::new(&[("stuck", 3_000_000)]), Content::new(&[("free", 3_000_000)]));
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("small"), "size=4m") else { return };
    disk.fill_but(1 << 20);
    let (seeder, leecher) = (engine().await, engine().await);
    let _seeds = (seed(&seeder, &stuck).await, seed(&seeder, &free).await);
    let peers = vec![addr(&seeder)];
    let small = dir.path().join("small");
    let download = AddTorrent { peers: peers.clone(), ..stuck.download(&small) };
    let mut waiting = leecher.add(download).await.unwrap();
    let is_full = |event: &Event| matches!(event, Event::Storage(Some(StorageFault::Full { .. })));
    event(&mut waiting, is_full).await;
    let large = dir.path().join("large");
    let mut other = leecher.add(AddTorrent { peers, ..free.download(&large) }).await.unwrap();
    within(other.completed()).await.unwrap();
    free.assert_same(&large);
    assert!(matches!(waiting.snapshot().stage, Stage::Waiting(_)));
    disk.free();
    within(waiting.completed()).await.unwrap();
    stuck.assert_same(&small);
}

#[test]
fn room_that_is_set_apart_is_taken_at_once_or_missed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let Some((disk, _seed, peer)) = seed_beside_a_full_disk(path) else { return };
    let args = ["download", "set.torrent", "-d", "copy", "-p", "0", "--json", "--preallocate"];
    // Nobody to fetch anything from.
    let mut alone = Sprat::start(path, &args);
    let full = alone.event("storage");
    assert_eq!((&full["state"], &full["place"]), (&"full".into(), &"copy".into()), "{full}");
    assert!(full["missing"].as_u64().unwrap() >= 1_900_000, "{full}");
    let progress = alone.event("progress");
    assert_eq!((&progress["done"], &progress["total"]), (&0.into(), &4_000_001.into()), "{progress}");
    disk.free();
    assert_eq!(alone.event("storage")["state"], "good");
    for (name, len) in [("a", 3_000_001), ("b/c", 1_000_000)] {
        assert!(allocated_len(&path.join("copy/set").join(name)) >= len, "{name}");
    }
    alone.signal("INT");
    alone.end();
    let ended = sprat(path, &[&args[..], &["--peer", &peer]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_same(path);
}
