//! What people see when a name is all that they have.

use std::path::Path;

use serde_json::Value;

use crate::process::{Sprat, content, sprat, tree};

/// A folder with `set/`, which is being seeded; the seed, its port and its infohash.
fn seeded(more: &[&str]) -> (tempfile::TempDir, Sprat, u16, String) {
    let dir = tempfile::tempdir().unwrap();
    content(&dir.path().join("set"), &[("large.bin", 3_000_001), ("b.iso", 70_000), ("empty", 0)]);
    let args = [&["seed", "set", "--port", "0", "--json"], more].concat();
    let mut seed = Sprat::start(dir.path(), &args);
    let seeding = seed.event("seeding");
    let port = seeding["port"].as_u64().unwrap().try_into().unwrap();
    let infohash = seeding["infohash"].as_str().unwrap().to_owned();
    assert!(seeding["magnet"].as_str().unwrap().contains(&infohash));
    (dir, seed, port, infohash)
}

fn assert_same(dir: &Path, copy: &str) {
    assert!(tree(&dir.join("set")) == tree(&dir.join(copy).join("set")), "{copy} differs");
}

#[test]
fn digits_letters_and_links_download_with_a_line_for_each_stage() {
    let (dir, _seed, port, infohash) = seeded(&[]);
    let peer = format!("127.0.0.1:{port}");
    let bytes = data_encoding::HEXLOWER.decode(infohash.as_bytes()).unwrap();
    let base32 = data_encoding::BASE32.encode(&bytes);
    let link = format!("magnet:?xt=urn:btih:{base32}&dn=a+name&x.pe={peer}");
    let cases: [(&str, &str, &[&str]); 3] = [
        ("digits", &infohash, &["--peer", &peer]),
        ("letters", &base32, &["--peer", &peer]),
        ("link", &link, &[]),
    ];
    for (copy, torrent, more) in cases {
        // Each with a state of its own, as the description is kept.
        let state = dir.path().join(format!("{copy}-state"));
        let variables = [("XDG_STATE_HOME", state.to_str().unwrap())];
        let args = [&["download", torrent, "-d", copy, "-p", "0"], more].concat();
        let ended = Sprat::start_with(dir.path(), &args, &variables).end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_same(dir.path(), copy);
        for (line, words) in
            ended.out.iter().zip(["Finding peers of", "Metadata received", "Downloading set (", "Completed"])
        {
            assert!(line.starts_with(words), "{words}: {ended:?}");
        }
        assert!(ended.out.len() >= 4 && ended.err.is_empty(), "{ended:?}");
    }
}

#[test]
fn programs_hear_each_stage_and_an_interrupted_download_goes_on() {
    let (dir, _seed, port, infohash) = seeded(&[]);
    let peer = format!("127.0.0.1:{port}");
    let args = ["download", &infohash, "-d", "copy", "-p", "0", "--peer", &peer, "--json"];
    let slow = [&args[..], &["--down-limit", "500KB"]].concat();
    let mut first = Sprat::start(dir.path(), &slow);
    assert_eq!(first.event("named")["infohash"], infohash.as_str());
    assert_eq!(first.event("described")["private"], false);
    assert_eq!(first.event("started")["name"], "set");
    while first.event("progress")["done"] == 0 {}
    first.signal("INT");
    assert_eq!(first.end().code, Some(130));
    let mut again = Sprat::start(dir.path(), &args);
    assert_ne!(again.event("checked")["good"], 0);
    again.event("completed");
    assert_eq!(again.end().code, Some(0));
    assert_same(dir.path(), "copy");
}

#[test]
fn files_are_selected_before_anybody_knows_them() {
    let (dir, _seed, port, infohash) = seeded(&[]);
    let peer = format!("127.0.0.1:{port}");
    let args =
        |copy, select| ["download", &infohash, "-d", copy, "-p", "0", "--peer", &peer, "--select", select];
    assert_eq!(sprat(dir.path(), &args("copy", "*.iso")).code, Some(0));
    assert_eq!(tree(&dir.path().join("copy/set")).len(), 1);
    let refused = sprat(dir.path(), &args("other", "*.zip"));
    assert_eq!((refused.code, refused.err.len()), (Some(2), 1), "{refused:?}");
    assert!(refused.err[0].contains("*.zip"), "{refused:?}");
    let link = format!("magnet:?xt=urn:btih:{infohash}&x.pe={peer}&so=9");
    let refused = sprat(dir.path(), &["download", &link, "-d", "third", "-p", "0"]);
    assert_eq!((refused.code, refused.err.len()), (Some(3), 1), "{refused:?}");
}

#[test]
fn a_link_is_shown_as_its_torrent_or_as_it_is() {
    let (dir, _seed, port, infohash) = seeded(&[]);
    let link =
        format!("magnet:?xt=urn:btih:{infohash}&dn=other&x.pe=127.0.0.1:{port}&tr=udp%3A%2F%2F127.0.0.1%3A1");
    let shown = sprat(dir.path(), &["show", &link, "-p", "0", "--json"]);
    assert_eq!((shown.code, shown.out.len()), (Some(0), 1), "{shown:?}");
    let object: Value = serde_json::from_str(&shown.out[0]).unwrap();
    let torrent = sprat(dir.path(), &["show", "set.torrent", "--json"]);
    let mut expected: Value = serde_json::from_str(&torrent.out[0]).unwrap();
    expected["trackers"] = serde_json::json!([["udp://127.0.0.1:1"]]);
    assert_eq!(object, expected);
    let offline = sprat(dir.path(), &["show", &link, "--json", "--offline"]);
    let object: Value = serde_json::from_str(&offline.out[0]).unwrap();
    assert_eq!((&object["name"], &object["files"]), (&"other".into(), &Value::Null));
    // What is said on the way does not mix with the result.
    let text = sprat(dir.path(), &["show", &link, "-p", "0"]);
    assert!(text.out[0].starts_with("name       set"), "{text:?}");
}

#[test]
fn a_name_that_nobody_answers_to_is_given_up_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = "a".repeat(40);
    let ended = sprat(dir.path(), &["show", &nobody, "-p", "0", "--timeout", "1s", "--quiet"]);
    assert_eq!((ended.code, ended.err.len()), (Some(1), 1), "{ended:?}");
    assert!(ended.err[0].contains("within 1 s") && ended.err[0].contains("--peer"), "{ended:?}");
    // Where nothing can find a peer, that is said.
    let mut waiting = Sprat::start(dir.path(), &["download", &nobody, "-p", "0"]);
    waiting.line("no peer was given");
    waiting.signal("INT");
    let ended = waiting.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.out.iter().any(|line| line.contains("run the same command again")), "{ended:?}");
}

#[test]
fn a_private_torrent_is_made_and_says_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    content(&dir.path().join("set"), &[("file", 100_000)]);
    let tracker = "http://127.0.0.1:1/announce";
    for (name, more, warns) in [("with", &["--tracker", tracker][..], false), ("without", &[], true)] {
        let args = [&["create", "set", "--private", "-o", name], more].concat();
        assert_eq!(sprat(dir.path(), &args).code, Some(0));
        let variables = [("SPRAT_NO_DHT", "0"), ("SPRAT_DHT_BOOTSTRAP", "none")];
        let args = ["download", name, "-d", "copy", "-p", "0"];
        let mut download = Sprat::start_with(dir.path(), &args, &variables);
        download.line(if warns { "no peer was given" } else { "tracker" });
        download.signal("INT");
        let ended = download.end();
        let warned = ended.err.iter().any(|line| line.contains("no peer was given"));
        assert_eq!((ended.code, warned), (Some(130), warns), "{ended:?}");
    }
}
