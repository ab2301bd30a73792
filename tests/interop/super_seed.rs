//! Seeds of others that super-seed (BEP 16): they show a piece at a time and wait for the HAVE of
//! it, of the peer that got it or of another one.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::content::Content;
use crate::lab::{self, Lab};
use crate::process;
use crate::tracker::{self, Tracker, Transport};

/// libtorrent takes twelve seconds, most of it until it has unchoked all; rtorrent two, which shows
/// nothing until a peer sends it a message (60 s to a leecher of libtorrent).
const TIMEOUT: Duration = Duration::from_secs(40);

/// Lets `seed` super-seed to `leeches`, until ours are complete.
#[expect(clippy::disallowed_methods, reason = "real processes run in real time; the figure is only printed")]
fn super_seed(seed: Client, leeches: &[Client]) {
    let what = format!("{seed:?} super-seeds to {leeches:?}");
    let clients = leeches.iter().chain([&seed]).map(|client| client.missing());
    if !lab::can_try(&what, clients.chain([tracker::missing()])) {
        return;
    }
    let lab = Lab::new(2 + leeches.len() as u8);
    let [tracking, seeding, leeching @ ..] = &lab.hosts[..] else { unreachable!("so many were asked for") };
    let work = tempfile::tempdir().expect("a temporary folder");
    let content = Content::generate(work.path());
    let torrent = content.torrent_of_large_pieces(&Tracker::Sprat.url(Transport::Http, tracking));
    let infohash = content.infohash(&torrent);
    let _tracker = Tracker::Sprat.start(tracking, &work.path().join("tracker"), infohash);
    let mut seed = seed.super_seed(seeding, &torrent, work.path(), content.folder());
    tracker::wait_for_seed(tracking, &Tracker::Sprat.url(Transport::Http, tracking), infohash);
    let began = Instant::now();
    let mut running = Vec::new();
    for (number, (client, host)) in leeches.iter().zip(leeching).enumerate() {
        let folder = work.path().join(number.to_string());
        let downloaded = folder.join("downloaded");
        std::fs::create_dir_all(&downloaded).expect("a new folder");
        running.push((*client, client.download(host, &torrent, &folder, &downloaded), downloaded));
    }
    for (client, leech, downloaded) in &mut running {
        let complete = process::poll(TIMEOUT, || {
            seed.assert_alive_or_done(&what);
            content.is_equal(downloaded, client.makes_empty_files())
        });
        assert!(complete, "{what}: {client:?} not complete; it said: {}", leech.said());
    }
    eprintln!("{what}: {:.1} s", began.elapsed().as_secs_f32());
}

#[test]
fn sprats_download_from_a_super_seed_of_libtorrent() {
    // At once: most of the time is spent until all are unchoked.
    let leeches: [&[Client]; 3] =
        [&[Client::Sprat], &[Client::Sprat; 3], &[Client::Sprat, Client::Libtorrent]];
    std::thread::scope(|scope| {
        for leeches in leeches {
            scope.spawn(move || super_seed(Client::Libtorrent, leeches));
        }
    });
}

#[test]
fn sprats_download_from_a_super_seed_of_rtorrent() {
    super_seed(Client::Rtorrent, &[Client::Sprat; 2]);
}
