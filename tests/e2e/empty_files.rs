//! A torrent without a byte of content: its names and its metadata are all that goes from peer to
//! peer.

use serde_json::Value;

use crate::process::{Sprat, content, sprat, tree};

fn port(seed: &mut Sprat) -> String {
    format!("127.0.0.1:{}", seed.event("seeding")["port"])
}

#[test]
fn its_link_downloads_shows_and_seeds_and_goes_on_from_peer_to_peer() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    content(&at.join("set"), &[("empty", 0), ("sub/empty too", 0)]);
    let created = sprat(at, &["create", "set", "-o", "set.torrent"]);
    assert_eq!(created.code, Some(0), "{created:?}");
    let shown = sprat(at, &["show", "set.torrent", "--json"]);
    let object: Value = serde_json::from_str(&shown.out[0]).unwrap();
    let link = format!("magnet:?xt=urn:btih:{}", object["infohash_v1"].as_str().unwrap());

    let mut first = Sprat::start(at, &["seed", "set.torrent", "-p", "0", "--json"]);
    let peer = port(&mut first);
    let by_link = sprat(at, &["show", &link, "-p", "0", "--peer", &peer, "--json"]);
    assert_eq!(by_link.code, Some(0), "{by_link:?}");
    assert_eq!(serde_json::from_str::<Value>(&by_link.out[0]).unwrap()["files"], object["files"]);
    let downloaded = sprat(at, &["download", &link, "-d", "copy", "-p", "0", "--peer", &peer]);
    assert_eq!(downloaded.code, Some(0), "{downloaded:?}");
    assert!(tree(&at.join("set")) == tree(&at.join("copy/set")));
    assert_eq!(sprat(at, &["verify", "set.torrent", "-d", "copy"]).code, Some(0));

    // Who has the files and only the link seeds them, and gives the metadata on.
    let args = ["seed", &link, "-d", "copy", "-p", "0", "--peer", &peer, "--json"];
    let mut second = Sprat::start(at, &args);
    let peer = port(&mut second);
    first.signal("TERM");
    assert_eq!(first.end().code, Some(0));
    let downloaded = sprat(at, &["download", &link, "-d", "third", "-p", "0", "--peer", &peer]);
    assert_eq!(downloaded.code, Some(0), "{downloaded:?}");
    assert!(tree(&at.join("set")) == tree(&at.join("third/set")));
    // A piece of the names is missing: that is not complete.
    std::fs::remove_file(at.join("third/set/empty")).unwrap();
    assert_eq!(sprat(at, &["verify", "set.torrent", "-d", "third"]).code, Some(3));
}
