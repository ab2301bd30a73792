//! Tests of content on a real disk: written pieces are read and checked again, and no other file
//! changes.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::storage::fs::RealFs;
use crate::storage::handles::Handles;
use crate::storage::report::Condition;
use crate::storage::testing::sample;

fn bitfield(len: u32, set: &[u32]) -> Bitfield {
    let mut field = Bitfield::new(len);
    set.iter().for_each(|&piece| assert!(field.set(piece)));
    field
}

/// Whether any file of the content, or the parts file, exists.
fn exists(content: &Content<RealFs>) -> bool {
    let files = &content.info().files;
    let filled = (0..=files.len()).filter(|&number| files.get(number).is_none_or(|file| file.len > 0));
    filled.into_iter().any(|number| content.stamp(number).unwrap().is_some())
}

#[test]
fn pieces_across_files_are_written_read_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&[("t/a", 10), ("t/empty", 0), ("t/deep/er/b", 90), ("t/c", 1), ("t/d", 33)], 32);
    let content = sample.content(folder.path(), &[]);
    assert!(!exists(&content));
    assert!(content.wanted().is_full());
    assert!(sample.check(&content).is_empty());
    for piece in sample.pieces().rev() {
        sample.write(&content, piece).unwrap();
    }
    assert!(exists(&content));
    content.make_whole().and_then(|()| content.sync()).unwrap();
    for (at, name) in ["t/a", "t/empty", "t/deep/er/b", "t/c", "t/d"].iter().enumerate() {
        assert_eq!(fs::read(folder.path().join(name)).unwrap(), sample.file(at), "{name}");
    }
    assert_eq!(sample.check(&content).len(), 5);
    let mut block = [0; 20];
    content.read_block(Block { piece: 3, offset: 4, len: 20 }, &mut block).unwrap();
    assert_eq!(block, sample.piece(3)[4..24]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no parts file without unselected files");
}

#[test]
fn reads_and_writes_beyond_the_piece_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&[("f", 100)], 32);
    let content = sample.content(folder.path(), &[]);
    for (piece, offset, len) in [(3, 4, 1), (4, 0, 1), (0, 32, 1), (0, u32::MAX, 5)] {
        let error = content.read_block(Block { piece, offset, len }, &mut vec![0; len as usize]).unwrap_err();
        assert_eq!(error.source.kind(), ErrorKind::InvalidInput, "{piece} {offset} {len}");
    }
    assert!(content.read_block(Block { piece: 0, offset: 0, len: 4 }, &mut [0; 5]).is_err());
    for (piece, len) in [(0, 31), (0, 33), (3, 32), (4, 1)] {
        assert!(content.write_piece(piece, &[&vec![0; len]]).is_err(), "{piece} {len}");
    }
    assert!(!exists(&content), "and nothing was written");
}

#[test]
fn files_have_their_length_from_the_first_write_and_check_finds_the_good_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&[("t/a", 100), ("t/b", 100)], 32);
    let content = sample.content(folder.path(), &[]);
    sample.write(&content, 1).unwrap();
    sample.write(&content, 5).unwrap();
    drop(content);
    assert_eq!(fs::metadata(folder.path().join("t/a")).unwrap().len(), 100);
    let again = sample.content(folder.path(), &[]);
    assert!(exists(&again));
    assert_eq!(sample.check(&again), [1, 5]);
}

#[test]
fn pad_files_are_zeros_and_never_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&[("t/a", 10), ("pad", 22), ("t/b", 5), ("pad", 27)], 32);
    let content = sample.content(folder.path(), &[]);
    for piece in sample.pieces() {
        sample.write(&content, piece).unwrap();
    }
    content.make_whole().and_then(|()| content.sync()).unwrap();
    assert_eq!(sample.check(&content), [0, 1]);
    assert!(!folder.path().join("pad").exists());
    let mut block = [9; 25];
    content.read_block(Block { piece: 0, offset: 7, len: 25 }, &mut block).unwrap();
    assert_eq!(block, sample.piece(0)[7..]);
    assert_eq!(content.report(&Bitfield::full(2)).len(), 2);
}

#[test]
fn unselected_files_are_not_created_and_their_parts_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    // Pieces: 0 = a; 1 = a b; 2 = b; 3 = b c; 4 = c d e.
    let sample = sample(&[("t/a", 40), ("t/b", 70), ("t/c", 20), ("t/d", 2), ("t/e", 28)], 32);
    let selected = [false, true, false, false, true];
    let content = sample.content(folder.path(), &selected);
    assert_eq!(content.wanted(), bitfield(5, &[1, 2, 3, 4]));
    for piece in 1..5 {
        sample.write(&content, piece).unwrap();
    }
    content.make_whole().and_then(|()| content.sync()).unwrap();
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&folder.path().join("t")), ["b", "e"]);
    assert_eq!(names(folder.path()), [format!(".{}.parts", sample.info.infohash), "t".to_owned()]);
    assert_eq!(fs::read(folder.path().join("t/b")).unwrap(), sample.file(1));
    let read = |content: &Content<_>, piece| {
        let mut block = [0; 32];
        content.read_block(Block { piece, offset: 0, len: 32 }, &mut block).map(|()| block)
    };
    assert_eq!(read(&content, 4).unwrap(), sample.piece(4));
    assert!(sample.write(&content, 0).is_err(), "a is not selected");

    let again = sample.content(folder.path(), &selected);
    assert_eq!(sample.check(&again), [1, 2, 3, 4]);
    assert_eq!(read(&again, 1).unwrap(), sample.piece(1));
    assert!(again.report(&again.wanted()).iter().all(super::super::report::FileReport::is_whole));
}

#[test]
fn an_existing_unselected_file_is_read_and_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&[("a", 20), ("b", 20)], 32);
    fs::write(folder.path().join("a"), sample.file(0)).unwrap();
    fs::write(folder.path().join("b"), sample.file(1)).unwrap();
    let content = sample.content(folder.path(), &[false, true]);
    assert_eq!(sample.check(&content), [0, 1]);
    let mut block = [0; 32];
    content.read_block(Block { piece: 0, offset: 0, len: 32 }, &mut block).unwrap();
    assert_eq!(block, sample.piece(0));
    fs::write(folder.path().join("a"), "mine").unwrap();
    sample.write(&content, 0).unwrap();
    assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"mine");
    assert_eq!(sample.check(&content), [0, 1], "the parts file has its bytes now");
}

#[test]
fn planted_links_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "precious, and longer than any piece of the torrent").unwrap();
    fs::create_dir(folder.path().join("t")).unwrap();
    symlink(outside.path(), folder.path().join("t/evil")).unwrap();
    symlink(&victim, folder.path().join("t/file")).unwrap();
    symlink("file", folder.path().join("t/inner")).unwrap();
    symlink(outside.path().join("new"), folder.path().join("t/dangling")).unwrap();
    for name in ["t/evil/victim", "t/evil/new", "t/file", "t/inner", "t/dangling"] {
        let sample = sample(&[(name, 32)], 32);
        let content = sample.content(folder.path(), &[]);
        let error = sample.write(&content, 0).unwrap_err();
        let obstacle = if name.starts_with("t/evil/") { "t/evil" } else { name };
        assert_eq!(error.path, folder.path().join(obstacle));
        assert!(content.read_block(Block { piece: 0, offset: 0, len: 32 }, &mut [0; 32]).is_err(), "{name}");
        assert!(content.check_piece(0, &mut Vec::new()).is_err(), "{name}");
        let report = content.report(&Bitfield::new(1));
        assert!(matches!(report[0].condition, Condition::Unreadable(_)), "{name}: {report:?}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert!(fs::read(&victim).unwrap().starts_with(b"precious, and"));
}

#[test]
fn special_files_are_refused_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    fs::write(folder.path().join("f"), "x").unwrap();
    let pipe = folder.path().join("p");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for (name, obstacle) in [("d", "d"), ("p", "p"), ("f/below", "f")] {
        let sample = sample(&[(name, 32)], 32);
        let content = sample.content(folder.path(), &[]);
        assert_eq!(sample.write(&content, 0).unwrap_err().path, folder.path().join(obstacle));
        assert!(content.check_piece(0, &mut Vec::new()).is_err(), "{name}");
    }
}

#[test]
fn longer_files_are_not_truncated_and_the_report_names_each_fault() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["whole", "short", "long", "damaged", "missing", "none"];
    let sample = sample(&names.map(|name| (name, if name == "none" { 0 } else { 64 })), 32);
    for (at, name) in names[..4].iter().enumerate() {
        let mut bytes = sample.file(at).to_vec();
        match *name {
            "short" => bytes.truncate(40),
            "long" => bytes.extend(b"mine"),
            "damaged" => bytes[33] ^= 1,
            _ => {}
        }
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let content = sample.content(folder.path(), &[]);
    let good = sample.check(&content);
    assert_eq!(good, [0, 1, 2, 4, 5, 6]);
    let report = content.report(&bitfield(10, &good));
    let missing: Vec<_> = report.iter().map(|file| file.missing_len).collect();
    assert_eq!(missing, [0, 32, 0, 32, 64, 0]);
    assert!(matches!(report[0].condition, Condition::Whole));
    assert!(matches!(report[1].condition, Condition::Shorter { actual_len: 40 }));
    assert!(matches!(report[2].condition, Condition::Longer { actual_len: 68 }));
    assert!(matches!(report[3].condition, Condition::Damaged));
    assert!(matches!(report[4].condition, Condition::Missing));
    assert!(matches!(report[5].condition, Condition::Missing), "an empty file can be missing too");

    for piece in sample.pieces() {
        sample.write(&content, piece).unwrap();
    }
    content.make_whole().and_then(|()| content.sync()).unwrap();
    let report = content.report(&bitfield(10, &sample.check(&content)));
    let bad: Vec<_> = report.iter().filter(|file| !file.is_whole()).map(|file| file.file).collect();
    assert_eq!(bad, [2], "the bytes beyond the end of long are kept");
}

#[test]
fn thousands_of_files_use_few_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<_> = (0..2_000).map(|at| format!("t/{}/{at}", at % 7)).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), 3)).collect();
    let sample = sample(&files, 64);
    let handles = Handles::new(16);
    let content = sample.content_with(folder.path(), &[], &handles);
    for piece in sample.pieces() {
        sample.write(&content, piece).unwrap();
        assert!(handles.open_count() <= 16);
    }
    content.make_whole().and_then(|()| content.sync()).unwrap();
    assert_eq!(sample.check(&content).len(), sample.pieces().len());
    assert_eq!(handles.open_count(), 16);
}

#[test]
fn the_longest_paths_and_names_are_usable() {
    let folder = tempfile::tempdir().unwrap();
    // Longer than what one system call takes as a path (4,096).
    let deep = vec!["d".repeat(200); 40].join("/") + "/file";
    let long = "n".repeat(255);
    let sample = sample(&[(deep.as_str(), 40), (long.as_str(), 40)], 32);
    let content = sample.content(folder.path(), &[]);
    for piece in sample.pieces() {
        sample.write(&content, piece).unwrap();
    }
    content.make_whole().and_then(|()| content.sync()).unwrap();
    content.fs().close();
    assert_eq!(sample.check(&content), [0, 1, 2]);
    assert!(content.report(&Bitfield::full(3)).iter().all(super::super::report::FileReport::is_whole));
}

#[test]
fn executable_files_get_the_executable_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut sample = sample(&[("tool", 10), ("data", 10)], 32);
    sample.info.files[0].attributes.executable = true;
    let content = sample.content(folder.path(), &[]);
    sample.write(&content, 0).unwrap();
    content.make_whole().and_then(|()| content.sync()).unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
    assert_eq!((mode("tool") & 0o100, mode("data") & 0o111), (0o100, 0));
}

#[test]
fn pieces_are_written_and_read_concurrently() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&[("a", 5_000), ("b", 3), ("c", 7_000)], 32);
    let content = sample.content_with(folder.path(), &[], &Handles::new(2));
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (content, sample) = (&content, &sample);
            scope.spawn(move || {
                for piece in sample.pieces().filter(|piece| piece % 4 == part) {
                    sample.write(content, piece).unwrap();
                    assert!(content.check_piece(piece, &mut Vec::new()).unwrap());
                }
            });
        }
    });
    assert_eq!(sample.check(&content).len(), sample.pieces().len());
}

#[test]
fn a_sync_does_not_recreate_a_removed_file_and_marks_its_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&[("a", 20)], 32);
    let content = sample.content(folder.path(), &[]);
    sample.write(&content, 0).unwrap();
    content.sync().unwrap();
    sample.write(&content, 0).unwrap();
    fs::remove_file(folder.path().join("a")).unwrap();
    content.fs().close();
    assert_eq!(content.sync().unwrap(), [(0, None)]);
    assert!(content.unverified.contains(0) && !folder.path().join("a").exists());
}

#[test]
fn an_unreadable_file_is_not_reported_as_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&[("a", 100), ("b", 10), ("c", 50)], 32);
    let content = sample.content(folder.path(), &[]);
    sample.pieces().for_each(|piece| sample.write(&content, piece).unwrap());
    let refused = StorageError::new(&folder.path().join("a"), io::ErrorKind::PermissionDenied);
    let errors = std::iter::once((refused.path.clone(), refused)).collect();
    // Piece 3 lies in all of them.
    let (mut good, mut unread) = (Bitfield::new(5), Bitfield::new(5));
    (0..4).for_each(|piece| {
        unread.set(piece);
    });
    let conditions = |good: &Bitfield, errors| {
        let report = content.report_with(good, &unread, errors);
        report.into_iter().map(|found| format!("{:?}", found.condition)).collect::<Vec<_>>()
    };
    let found = conditions(&good, errors);
    assert!(found[0].starts_with("Unreadable"), "{found:?}");
    assert_eq!(found[1..], ["Unchecked", "Damaged"], "of the last one a piece was read");
    good.set(4);
    let found = conditions(&good, std::collections::BTreeMap::new());
    assert_eq!(found[1..], ["Unchecked", "Unchecked"]);
}
