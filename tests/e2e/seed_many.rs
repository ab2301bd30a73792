//! `seed FOLDER -d DIR`: a torrent whose disk fails holds up no other one.

use std::path::Path;

use crate::odd_fs::OddFs;
use crate::process::{Sprat, content, sprat};

/// A folder of three torrents: `a`, whose content is on a disk of its own; `b`, which is whole;
/// `c`, which is damaged. None: there can be no disk that fails.
fn torrents(dir: &Path) -> Option<OddFs> {
    std::fs::create_dir(dir.join("torrents")).unwrap();
    content(&dir.join("data"), &[("a/file", 40_000), ("b", 40_000), ("c", 40_000)]);
    for name in ["a", "b", "c"] {
        let (from, to) = (format!("data/{name}"), format!("torrents/{name}.torrent"));
        assert_eq!(sprat(dir, &["create", &from, "-o", &to]).code, Some(0));
    }
    let disk = OddFs::mount(&dir.join("data/a"))?;
    content(&dir.join("data"), &[("a/file", 40_000)]);
    std::fs::write(dir.join("data/c"), "damaged").unwrap();
    Some(disk)
}

fn warning(seed: &mut Sprat, part: &str) {
    while !seed.event("warning")["text"].as_str().unwrap().contains(part) {}
}

#[test]
fn a_torrent_whose_disk_fails_holds_up_no_other_and_is_seeded_when_that_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = torrents(dir.path()) else { return };
    disk.fail(true);
    let args = ["seed", "torrents", "-d", "data", "-p", "0", "--json"];
    let mut seed = Sprat::start(dir.path(), &args);
    warning(&mut seed, "torrents/a.torrent: data/a/file: Input/output error");
    warning(&mut seed, "left out: torrents/c.torrent");
    let seeding = seed.event("seeding");
    assert_eq!((seeding["torrents"].as_u64(), seeding["waiting"].as_u64()), (Some(1), Some(1)), "{seeding}");
    disk.fail(false);
    let seeding = seed.event("seeding");
    assert_eq!((seeding["torrents"].as_u64(), seeding["waiting"].as_u64()), (Some(2), Some(0)), "{seeding}");
    seed.signal("TERM");
    assert_eq!(seed.end().code, Some(0));
}

#[test]
fn a_torrent_whose_disk_fails_keeps_no_seed_from_leaving() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = torrents(dir.path()) else { return };
    disk.fail(true);
    let args = ["seed", "torrents", "-d", "data", "-p", "0", "--json", "--seed-time", "1s"];
    let ended = sprat(dir.path(), &args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let is_told = |line: &String| line.contains("\"warning\"") && line.contains("torrents/a.torrent");
    assert!(ended.out.iter().any(is_told), "{ended:?}");
}
