//! Files that were there before a download: what is not its own is not touched.

use std::path::Path;

use crate::process::{Ended, Sprat, content, sprat, tree};
use crate::scene::{LARGE_LEN, Scene};
use crate::small_disk::SmallDisk;

fn long(path: &Path) {
    use std::io::Write;
    std::fs::File::options().append(true).open(path).unwrap().write_all(b"and more").unwrap();
}

#[test]
fn one_error_names_all_files_that_are_not_ours_and_none_is_touched() {
    let scene = Scene::new();
    scene.put("large.bin", &[b'x'; 700_000]);
    scene.put("notes.txt", b"my own notes");
    let before = tree(&scene.path("to"));
    let refused = scene.download(&[]);
    assert_eq!((refused.code, refused.err.len()), (Some(1), 1), "{refused:?}");
    for part in ["large.bin", "notes.txt (other content)", "--overwrite", "-d"] {
        assert!(refused.err[0].contains(part), "{refused:?}");
    }
    let refused = scene.download(&["--json"]);
    let told = refused.out.iter().find(|line| line.contains("\"foreign\"")).unwrap();
    let told: serde_json::Value = serde_json::from_str(told).unwrap();
    assert_eq!(
        (&told["files"][0]["why"], &told["files"][1]["why"]),
        (&"longer".into(), &"other_content".into())
    );
    let refused = scene.run(&["seed", "set.torrent", "-d", "to", "--port", "0"]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(tree(&scene.path("to")) == before, "nothing is touched, and nothing made");

    let verified = scene.run(&["verify", "set.torrent", "-d", "to"]);
    assert_eq!(verified.code, Some(3));
    assert!(verified.err[0].contains("--overwrite"), "{verified:?}");

    let selected = scene.download(&["--select", "set/other.bin"]);
    assert_eq!(selected.code, Some(0), "{selected:?}");
    assert_eq!(std::fs::read(scene.path("to/set/notes.txt")).unwrap(), b"my own notes");
    assert_eq!(std::fs::read(scene.path("to/set/large.bin")).unwrap().len(), 700_000);
    assert_eq!(scene.download(&[]).code, Some(1), "they did not become ours by that");

    let ended = scene.download(&["--overwrite"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    scene.assert_same();
    let verified = scene.run(&["verify", "set.torrent", "-d", "to"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[test]
fn what_to_do_about_short_files_is_said_only_where_it_is_known() {
    let scene = Scene::new();
    let seed = || scene.run(&["seed", "set.torrent", "-d", "to", "--port", "0"]);
    let refused = seed();
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.err[0].contains("sprat download"), "nothing is there: {refused:?}");
    for bytes in [&[b'x'; 1_000][..], &std::fs::read(scene.path("set/large.bin")).unwrap()[..60_000]] {
        scene.put("large.bin", bytes);
        let refused = seed();
        assert_eq!(refused.code, Some(3), "{refused:?}");
        assert!(refused.err[0].contains("sprat verify"), "{refused:?}");
        assert!(!refused.err[0].contains("sprat download"), "a file may not be the torrent's: {refused:?}");
    }
}

#[test]
fn what_the_parts_file_has_of_a_file_does_not_make_it_ours() {
    let scene = Scene::new();
    let selected = scene.download(&["--select", "set/large.bin"]);
    assert_eq!(selected.code, Some(0), "{selected:?}");
    scene.put("notes.txt", b"my own notes");
    let refused = scene.download(&[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err[0].contains("notes.txt (other content)"), "{refused:?}");
    let verified = scene.run(&["verify", "set.torrent", "-d", "to"]);
    assert_eq!(verified.code, Some(3), "{verified:?}");
    assert!(verified.err[0].contains("--overwrite"), "{verified:?}");
    assert_eq!(std::fs::read(scene.path("to/set/notes.txt")).unwrap(), b"my own notes");
    assert_eq!(scene.download(&["--overwrite"]).code, Some(0));
    scene.assert_same();
}

#[test]
fn a_seed_writes_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new();
    let (program, empty) = (scene.path("set/program"), scene.path("set/empty"));
    std::fs::write(&program, b"#!/bin/sh").unwrap();
    std::fs::write(&empty, b"").unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(sprat(scene.dir.path(), &["create", "set", "-o", "more.torrent"]).code, Some(0));
    let shown = scene.run(&["show", "more.torrent", "--offline", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown.out[0]).unwrap();
    let parts = scene.path(&format!(".{}.parts", shown["infohash_v1"].as_str().unwrap()));
    std::fs::write(&parts, b"parts").unwrap();
    std::fs::remove_file(&empty).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o644)).unwrap();

    let args = ["seed", "more.torrent", "--port", "0", "--json"];
    let state = scene.path("state");
    let mut seed = Sprat::start_with(scene.dir.path(), &args, &[("XDG_STATE_HOME", state.to_str().unwrap())]);
    seed.event("seeding");
    seed.signal("TERM");
    assert_eq!(seed.end().code, Some(0));
    assert_eq!(std::fs::read(&parts).unwrap(), b"parts");
    assert!(!empty.exists());
    assert_eq!(std::fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn a_longer_file_is_reported_by_all_and_cut_if_it_is_ours() {
    let scene = Scene::new();
    assert_eq!(scene.download(&[]).code, Some(0));
    long(&scene.path("to/set/large.bin"));
    let verified = scene.run(&["verify", "set.torrent", "-d", "to"]);
    assert_eq!(verified.code, Some(3));
    assert!(verified.out.iter().any(|line| line.starts_with("long") && line.contains("large.bin")));
    let mut seed = Sprat::start(scene.dir.path(), &["seed", "set.torrent", "-d", "to", "--port", "0"]);
    assert!(seed.line("longer than the torrent says").contains("large.bin"));
    seed.line_so_far("Seeding");
    drop(seed);
    assert_eq!(scene.download(&[]).code, Some(0), "it is ours");
    scene.assert_same();

    // Without a journal nobody knows whose it is.
    long(&scene.path("to/set/large.bin"));
    std::fs::remove_dir_all(scene.path("state")).unwrap();
    let refused = scene.download(&[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err[0].contains("8 bytes longer"), "{refused:?}");
    assert_eq!(scene.download(&["--overwrite"]).code, Some(0));
    scene.assert_same();
}

/// The user's file holds the whole content and more, so that it can be seeded. A new file often has
/// the inode number of the removed one.
#[test]
fn a_file_that_came_into_the_place_of_ours_does_not_become_ours_by_seeding_it() {
    for how in ["rename", "remove", "remove the folder"] {
        let scene = Scene::new();
        assert_eq!(scene.download(&[]).code, Some(0));
        let longer =
            |name: &str| [&std::fs::read(scene.path("set").join(name)).unwrap()[..], b"mine"].concat();
        match how {
            "rename" => {
                std::fs::write(scene.path("new"), longer("large.bin")).unwrap();
                std::fs::rename(scene.path("new"), scene.path("to/set/large.bin")).unwrap();
            }
            "remove" => {
                std::fs::remove_file(scene.path("to/set/large.bin")).unwrap();
                scene.put("large.bin", &longer("large.bin"));
            }
            _ => {
                std::fs::remove_dir_all(scene.path("to/set")).unwrap();
                for name in ["large.bin", "notes.txt", "other.bin"] {
                    scene.put(name, &longer(name));
                }
            }
        }
        let before = tree(&scene.path("to"));
        let state = scene.path("state");
        let args = ["seed", "set.torrent", "-d", "to", "--port", "0", "--json"];
        for _ in 0..2 {
            let mut seed =
                Sprat::start_with(scene.dir.path(), &args, &[("XDG_STATE_HOME", state.to_str().unwrap())]);
            seed.event("seeding");
            assert!(seed.has_said("longer"), "it is warned of");
            seed.signal("TERM");
            assert_eq!(seed.end().code, Some(0));
            let refused = scene.download(&[]);
            assert_eq!(refused.code, Some(1), "{how}: {refused:?}");
            assert!(refused.err[0].contains("4 bytes longer"), "{refused:?}");
        }
        assert!(tree(&scene.path("to")) == before, "{how}");
    }
}

#[test]
fn what_was_begun_elsewhere_is_continued_with_a_journal_or_without() {
    let scene = Scene::new();
    let bytes = std::fs::read(scene.path("set/large.bin")).unwrap();
    scene.put("large.bin", &[&bytes[..70_000], &vec![0; LARGE_LEN - 70_000]].concat());
    scene.put("notes.txt", b"");
    scene.put("other.bin", &[0; 100_000]);
    let ended = scene.download(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.iter().any(|line| line.contains("2 of 10 pieces are there already")), "{ended:?}");
    scene.assert_same();
}

#[test]
fn a_folder_that_is_gone_is_not_made_again_unasked() {
    let scene = Scene::new();
    assert_eq!(scene.download_to("disk/films", &[]).code, Some(0));
    std::fs::rename(scene.path("disk"), scene.path("elsewhere")).unwrap();
    let refused = scene.download_to("disk/films", &[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err[0].contains("--overwrite") && refused.err[0].contains("mount"), "{refused:?}");
    assert!(!refused.err[0].contains("put that right"), "no other advice: {refused:?}");
    assert!(!scene.path("disk").exists());
    let ended = scene.download_to("disk/films", &["--overwrite"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(tree(&scene.path("set")) == tree(&scene.path("disk/films/set")));
    std::fs::remove_dir_all(scene.path("disk")).unwrap();
    std::fs::rename(scene.path("elsewhere"), scene.path("disk")).unwrap();
    assert_eq!(scene.download_to("disk/films", &[]).code, Some(0), "the disk is back");
    // Deleted, and made anew where it was.
    std::fs::remove_dir_all(scene.path("disk/films")).unwrap();
    std::fs::create_dir(scene.path("disk/films")).unwrap();
    assert_eq!(scene.download_to("disk/films", &[]).code, Some(0));
}

#[test]
fn the_folder_of_a_disk_that_is_not_mounted_is_not_filled() {
    let scene = Scene::new();
    std::fs::create_dir_all(scene.path("disk/films")).unwrap();
    let Some(disk) = SmallDisk::mount(&scene.path("disk"), "size=32m") else { return };
    assert_eq!(scene.download_to("disk/films", &[]).code, Some(0));
    drop(disk);
    let refused = scene.download_to("disk/films", &[]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err[0].contains("--overwrite") && refused.err[0].contains("mount"), "{refused:?}");
    assert!(!refused.err[0].contains("put that right"), "no other advice: {refused:?}");
    assert_eq!(std::fs::read_dir(scene.path("disk/films")).unwrap().count(), 0);
    assert_eq!(scene.download_to("disk/films", &["--overwrite"]).code, Some(0));
}

#[test]
fn a_file_that_is_replaced_while_it_is_seeded_shows_at_both_ends() {
    let scene = Scene::new();
    let mut seed =
        Sprat::start(scene.dir.path(), &["seed", "set", "-o", "again.torrent", "--port", "0", "--json"]);
    let peer = format!("127.0.0.1:{}", seed.event("seeding")["port"]);
    std::fs::write(scene.path("new"), vec![7; LARGE_LEN]).unwrap();
    std::fs::rename(scene.path("new"), scene.path("set/large.bin")).unwrap();
    let args = ["download", "again.torrent", "-d", "to", "--port", "0", "--peer", &peer];
    let mut download = Sprat::start(scene.dir.path(), &args);
    download.line("no connected peer has any of the");
    loop {
        let progress = seed.event("progress");
        if progress["done"].as_u64() < progress["total"].as_u64() {
            break;
        }
    }
    assert!(seed.has_said("piece_lost"));
}

#[test]
fn people_see_that_a_file_was_replaced_while_it_is_seeded() {
    let scene = Scene::new();
    let mut seed = Sprat::start(scene.dir.path(), &["seed", "set", "-o", "again.torrent", "--port", "0"]);
    let started = seed.line(" on port ");
    let peer = format!("127.0.0.1:{}", started.rsplit(' ').next().unwrap());
    seed.line("Others run");
    std::fs::write(scene.path("new"), vec![7; LARGE_LEN]).unwrap();
    std::fs::rename(scene.path("new"), scene.path("set/large.bin")).unwrap();
    let args = ["download", "again.torrent", "-d", "to", "--port", "0", "--peer", &peer];
    let mut download = Sprat::start(scene.dir.path(), &args);
    let warning = seed.line("warning: ");
    assert!(warning.contains("set/large.bin") && warning.contains("are not uploaded"), "{warning}");
    let progress = seed.line("% seeding");
    assert!(!progress.contains("100%"), "{progress}");
    assert!(progress.contains("the rest has changed on disk"), "{progress}");
    let stuck = download.line("no connected peer has any of the");
    assert!(stuck.starts_with("warning: "), "{stuck}");
}

#[test]
fn an_empty_file_that_is_missing_is_made_and_nothing_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    content(&path.join("set"), &[("a", 40_000), ("empty", 0)]);
    assert_eq!(sprat(path, &["create", "set"]).code, Some(0));
    let empty = path.join("set/empty");
    std::fs::remove_file(&empty).unwrap();
    let missing = sprat(path, &["verify", "set.torrent"]);
    assert_eq!(missing.code, Some(3), "{missing:?}");
    assert!(missing.err[0].ends_with("`sprat download` makes the missing empty files"), "{missing:?}");
    assert_eq!(sprat(path, &["download", "set.torrent", "-p", "0"]).code, Some(0));
    assert_eq!(sprat(path, &["verify", "set.torrent"]).code, Some(0));

    std::fs::remove_file(&empty).unwrap();
    std::fs::create_dir(&empty).unwrap();
    let folder = sprat(path, &["verify", "set.torrent"]);
    assert_eq!((folder.code, folder.err.len()), (Some(3), 1), "{folder:?}");
    assert!(folder.err[0].contains("set/empty (a folder stands where a file belongs)"), "{folder:?}");
    assert!(folder.err[0].contains("move away") && !folder.err[0].contains("cuts"), "{folder:?}");
    std::fs::remove_dir(&empty).unwrap();
    std::fs::write(&empty, "x").unwrap();
    let longer = sprat(path, &["verify", "set.torrent"]);
    assert!(longer.err[0].ends_with("cuts longer files to their length"), "{longer:?}");
}

/// Runs a command that may not read files of mode 0; None: this user may, and can be no other one.
fn run_without_privileges(scene: &Scene, unreadable: &Path, args: &[&str]) -> Option<Ended> {
    if std::fs::File::open(unreadable).is_err() {
        return Some(scene.run(args));
    }
    let user = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let probe = std::process::Command::new("setpriv").args(user).arg("true").status();
    if !probe.is_ok_and(|status| status.success()) {
        println!("running as another user is not possible here: not tried");
        return None;
    }
    let args = [&user[..], &[env!("CARGO_BIN_EXE_sprat")], args].concat();
    let variables = [("XDG_STATE_HOME", "/nonexistent")];
    Some(Sprat::start_program(Path::new("setpriv"), scene.dir.path(), &args, &variables).end())
}

#[test]
fn files_that_this_user_may_not_read_are_not_called_damaged() {
    let scene = Scene::new();
    let large = scene.path("set/large.bin");
    let opened = std::process::Command::new("chmod").args(["-R", "a+rX"]).arg(scene.dir.path()).status();
    assert!(opened.unwrap().success());
    std::fs::set_permissions(&large, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let args = ["verify", "set.torrent"];
    let Some(verified) = run_without_privileges(&scene, &large, &args) else { return };
    assert_eq!((verified.code, verified.err.len()), (Some(1), 1), "{verified:?}");
    assert!(verified.err[0].contains("could not be checked"), "{verified:?}");
    assert!(verified.err[0].contains("set/large.bin: Permission denied"), "{verified:?}");
    let said = format!("{verified:?}");
    assert!(!said.contains("damaged") && !said.contains("missing"), "{said}");
    std::fs::set_permissions(&large, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::set_permissions(scene.path("set"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let Some(closed) = run_without_privileges(&scene, &large, &args) else { return };
    if closed.code != Some(0) {
        assert_eq!((closed.code, closed.err.len()), (Some(1), 1), "{closed:?}");
        assert!(closed.err[0].contains("Permission denied"), "{closed:?}");
    }
}

#[test]
fn what_may_not_be_looked_at_is_neither_damaged_nor_missing() {
    let scene = Scene::new();
    let nowhere = scene.run(&["seed", "set.torrent", "-d", "nosuchdir", "--port", "0"]);
    assert_eq!((nowhere.code, nowhere.err.len()), (Some(1), 1), "{nowhere:?}");
    assert!(nowhere.err[0].contains("nosuchdir: No such file or directory"), "{nowhere:?}");
    assert!(!scene.path("nosuchdir").exists());
    let file = scene.run(&["seed", "set.torrent", "-d", "set.torrent", "--port", "0"]);
    assert!(file.code == Some(1) && file.err[0].contains("set.torrent"), "{file:?}");
}

#[test]
fn one_file_of_several_can_be_verified_and_all_be_had_later() {
    let scene = Scene::new();
    let ended = scene.download(&["--select", "set/notes.txt"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let verified = scene.run(&["verify", "set.torrent", "-d", "to", "--files"]);
    assert_eq!(verified.code, Some(3), "{verified:?}");
    let is_good =
        |name: &str| verified.out.iter().any(|line| line.starts_with("good") && line.contains(name));
    assert!(is_good("notes.txt"), "{verified:?}");
    assert!(verified.out.iter().filter(|line| line.starts_with("missing")).count() == 2, "{verified:?}");
    for (selected, there) in [("set/other.bin", 1), ("set/notes.txt", 4), ("set/large.bin", 4)] {
        let ended = scene.download(&["--select", selected]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let told = format!("{there} of 10 pieces are there already");
        assert!(ended.out.iter().any(|line| line.contains(&told)), "{selected}: {ended:?}");
    }
    let ended = scene.download(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.iter().any(|line| line.contains("Complete")), "{ended:?}");
    scene.assert_same();
    assert_eq!(std::fs::read_dir(scene.path("to")).unwrap().count(), 1, "the parts file is gone");
}

#[test]
fn a_magnet_does_not_touch_files_that_are_not_its_own_either() {
    let scene = Scene::new();
    let shown = scene.run(&["show", "set.torrent", "--offline", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown.out[0]).unwrap();
    scene.put("large.bin", &[b'x'; 10]);
    let (infohash, peer) = (shown["infohash_v1"].as_str().unwrap(), format!("127.0.0.1:{}", scene.port));
    let args = ["download", infohash, "-d", "to", "--port", "0", "--peer", &peer];
    let refused = scene.run(&args);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.last().unwrap().contains("large.bin (other content)"), "{refused:?}");
    assert_eq!(std::fs::read(scene.path("to/set/large.bin")).unwrap(), [b'x'; 10]);
    assert_eq!(scene.run(&[&args[..], &["--overwrite"]].concat()).code, Some(0));
    scene.assert_same();
}

#[test]
fn a_download_that_is_killed_goes_on_also_without_its_journal() {
    for loses_journal in [false, true] {
        let scene = Scene::new();
        let peer = format!("127.0.0.1:{}", scene.port);
        let args = ["download", "set.torrent", "-d", "to", "--port", "0", "--json", "--down-limit", "100KB"];
        let state = scene.path("state");
        let variables = [("XDG_STATE_HOME", state.to_str().unwrap())];
        let mut download =
            Sprat::start_with(scene.dir.path(), &[&args[..], &["--peer", &peer]].concat(), &variables);
        loop {
            // At least one piece of each file is there, or may be.
            let progress = download.event("progress");
            if progress["done"].as_u64() > Some(0) {
                break;
            }
        }
        drop(download);
        if loses_journal {
            std::fs::remove_dir_all(&state).unwrap();
        }
        let ended = scene.download(&[]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        scene.assert_same();
    }
}
