//! Seeds that take only encrypted connections, which sprat does not speak yet: the user is told why
//! nothing comes.

use std::time::Duration;

use crate::client::Client;
use crate::content::Content;
use crate::lab::{self, Lab};
use crate::process;
use crate::tracker::{self, Tracker, Transport};

/// The line comes with the second refusal; Transmission and aria2 dial us too, after some seconds.
const TIMEOUT: Duration = Duration::from_secs(60);

fn tells_of(seed: Client) {
    let what = format!("{seed:?} that requires encryption");
    if !lab::can_try(&what, [seed.missing(), tracker::missing()]) {
        return;
    }
    let lab = Lab::new(3);
    let [tracking, seeding, leeching] = &lab.hosts[..] else { unreachable!("three hosts were asked for") };
    let work = tempfile::tempdir().expect("a temporary folder");
    let content = Content::generate(work.path());
    let url = Tracker::Sprat.url(Transport::Http, tracking);
    let torrent = content.torrent(&url);
    let infohash = content.infohash(&torrent);
    let _tracker = Tracker::Sprat.start(tracking, &work.path().join("tracker"), infohash);
    let _seed = seed.seed_encrypted(seeding, &torrent, work.path(), content.folder());
    tracker::wait_for_seed(tracking, &url, infohash);
    let downloaded = work.path().join("downloaded");
    std::fs::create_dir(&downloaded).expect("a new folder");
    let leech = Client::Sprat.download(leeching, &torrent, work.path(), &downloaded);
    let is_told = process::poll(TIMEOUT, || leech.said().contains("encryption, which is not supported yet"));
    assert!(is_told, "{what}: it said: {}", leech.said());
    assert!(leech.said().contains("1 peer was reached"), "{what}: it said: {}", leech.said());
}

#[test]
fn a_peer_that_requires_encryption_is_named() {
    // At once: most of the time is spent on waiting.
    std::thread::scope(|scope| {
        for seed in [Client::Libtorrent, Client::Transmission, Client::Aria2, Client::Qbittorrent] {
            scope.spawn(move || tells_of(seed));
        }
    });
}
