//! Newcomers by a magnet link that announce `left=0`, because they cannot know yet what is left.

use std::time::Duration;

use crate::client::Client;
use crate::content::Content;
use crate::lab::{self, Lab};
use crate::process::{self, Process};
use crate::tracker::{self, Tracker, Transport};

/// How long the transfer may take; it takes some seconds.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);

/// aria2 learns the metadata, and then the content, from a seed that only the tracker names.
#[test]
fn aria2_downloads_a_magnet_from_a_seed_that_the_tracker_names() {
    if !lab::can_try("a newcomer of aria2", [Client::Aria2.missing(), tracker::missing()]) {
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
    let mut seed = seeding.command(env!("CARGO_BIN_EXE_sprat"));
    seed.arg("seed").arg(&torrent).arg("-d").arg(content.folder());
    seed.args(["--no-dht", "--no-lsd"]).env("XDG_STATE_HOME", work.path());
    let _seed = Process::start(seed, &work.path().join("seed.log"));
    tracker::wait_for_seed(tracking, &url, infohash);
    let downloaded = work.path().join("downloaded");
    std::fs::create_dir(&downloaded).expect("a new folder");
    let mut leecher = leeching.command("aria2c");
    leecher.args(["--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false"]);
    leecher.args(["--enable-peer-exchange=false", "--seed-time=0", "--file-allocation=none"]);
    leecher.arg(format!("--dir={}", downloaded.display()));
    leecher.arg(format!("magnet:?xt=urn:btih:{infohash}&tr={url}"));
    let mut leecher = Process::start(leecher, &work.path().join("leech.log"));
    let complete = process::poll(TRANSFER_TIMEOUT, || {
        leecher.assert_alive_or_done("aria2");
        content.is_equal(&downloaded, false)
    });
    assert!(complete, "not complete; aria2 said: {}", leecher.said());
}
