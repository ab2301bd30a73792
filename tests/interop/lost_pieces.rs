//! Files that change under a seed of ours: libtorrent is told which pieces are gone (BEP 54), and
//! stays.

use std::path::Path;
use std::time::Duration;

use crate::client::Client;
use crate::content::Content;
use crate::lab::{self, Lab};
use crate::process::{self, Process};

/// Where everybody listens; each has a host of its own.
const PORT: &str = "7000";
/// It takes two or three seconds.
const TIMEOUT: Duration = Duration::from_secs(40);

#[test]
fn libtorrent_is_told_of_lost_pieces_and_stays_connected() {
    if !lab::can_try("lost pieces", [Client::Libtorrent.missing()]) {
        return;
    }
    let lab = Lab::new(2);
    let [seeding, leeching] = &lab.hosts[..] else { unreachable!("two hosts were asked for") };
    let work = tempfile::tempdir().expect("a temporary folder");
    let content = Content::generate(work.path());
    let torrent = content.torrent_without_tracker();
    let mut seed = seeding.command(env!("CARGO_BIN_EXE_sprat"));
    seed.env("XDG_STATE_HOME", work.path()).arg("seed").arg(&torrent).arg("-d").arg(content.folder());
    seed.args(["-p", PORT, "--no-dht", "--no-lsd", "--no-port-forward", "--json"]);
    let seed = Process::start(seed, &work.path().join("seed.log"));
    assert!(process::poll(TIMEOUT, || seed.said().contains("\"event\":\"seeding\"")), "{}", seed.said());
    // Claimed they are until somebody asks for them.
    let lost_count = content.spoil();
    let mut leech = leeching.command("python3");
    leech.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/libtorrent_watch.py"));
    leech.arg(&torrent).arg(work.path().join("leech")).args([PORT, &seeding.ip.to_string(), PORT]);
    let leech = Process::start(leech, &work.path().join("leech.log"));
    let left = content.piece_count(&torrent) - lost_count;
    let expected = format!("connections 1 theirs {left} ours {left}");
    assert!(process::poll(TIMEOUT, || leech.said().ends_with(&expected)), "{expected}: {}", leech.said());
}
