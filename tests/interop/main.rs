//! Transfers with the real clients of others, in both directions: over HTTP and UDP, with our
//! tracker and with opentracker, and without any tracker. Each host is a network namespace of its
//! own; nothing leaves the machine.
//!
//! Where a client, or the right to make namespaces, is missing, a test says so and passes; with
//! `SPRAT_INTEROP=require` it fails instead.

#![cfg(test)]

mod client;
mod content;
mod encrypted;
mod lab;
mod limited_seed;
mod lost_pieces;
mod newcomer;
mod process;
mod super_seed;
mod tracker;
mod trackerless;

use std::time::{Duration, Instant};

use client::Client;
use content::Content;
use lab::Lab;
use tracker::{Tracker, Transport};

/// How long one transfer may take; they take two or three seconds.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(40);

/// Runs `pair` over each tracker and each transport.
fn transfer_everywhere(seed: Client, leech: Client) {
    let what = format!("{seed:?} to {leech:?}");
    if !lab::can_try(&what, [seed.missing(), leech.missing(), tracker::missing()]) {
        return;
    }
    // At once, each in a lab of its own: Transmission looks at its peers only every ten seconds.
    std::thread::scope(|scope| {
        for tracker in [Tracker::Sprat, Tracker::Opentracker] {
            for transport in [Transport::Http, Transport::Udp] {
                scope.spawn(move || transfer(seed, leech, tracker, transport));
            }
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "real processes run in real time; the figure is only printed")]
fn transfer(seed: Client, leech: Client, tracker: Tracker, transport: Transport) {
    let what = format!("{seed:?} to {leech:?} by {tracker:?} over {transport:?}");
    let lab = Lab::new(3);
    let [tracking, seeding, leeching] = &lab.hosts[..] else { unreachable!("three hosts were asked for") };
    let work = tempfile::tempdir().expect("a temporary folder");
    let content = Content::generate(work.path());
    let torrent = content.torrent(&tracker.url(transport, tracking));
    let _tracker = tracker.start(tracking, &work.path().join("tracker"), content.infohash(&torrent));
    let began = Instant::now();
    let _seed = seed.seed(seeding, &torrent, work.path(), content.folder());
    tracker::wait_for_seed(tracking, &tracker.url(Transport::Http, tracking), content.infohash(&torrent));
    let seeding_after = began.elapsed();
    let downloaded = work.path().join("downloaded");
    std::fs::create_dir(&downloaded).expect("a new folder");
    let mut leecher = leech.download(leeching, &torrent, work.path(), &downloaded);
    let complete = process::poll(TRANSFER_TIMEOUT, || {
        leecher.assert_alive_or_done(&what);
        content.is_equal(&downloaded, leech.makes_empty_files())
    });
    assert!(complete, "{what}: not complete; the leecher said: {}", leecher.said());
    eprintln!(
        "{what}: {:.1} s after {:.1} s",
        (began.elapsed() - seeding_after).as_secs_f32(),
        seeding_after.as_secs_f32()
    );
}

#[test]
fn libtorrent_downloads_from_sprat() {
    transfer_everywhere(Client::Sprat, Client::Libtorrent);
}

#[test]
fn sprat_downloads_from_libtorrent() {
    transfer_everywhere(Client::Libtorrent, Client::Sprat);
}

#[test]
fn transmission_downloads_from_sprat_and_sprat_from_transmission() {
    // At once, as above.
    std::thread::scope(|scope| {
        scope.spawn(|| transfer_everywhere(Client::Sprat, Client::Transmission));
        scope.spawn(|| transfer_everywhere(Client::Transmission, Client::Sprat));
    });
}

#[test]
fn aria2_downloads_from_sprat() {
    transfer_everywhere(Client::Sprat, Client::Aria2);
}

#[test]
fn sprat_downloads_from_aria2() {
    transfer_everywhere(Client::Aria2, Client::Sprat);
}

#[test]
fn rtorrent_downloads_from_sprat() {
    transfer_everywhere(Client::Sprat, Client::Rtorrent);
}

#[test]
fn sprat_downloads_from_rtorrent() {
    transfer_everywhere(Client::Rtorrent, Client::Sprat);
}

#[test]
fn qbittorrent_downloads_from_sprat() {
    transfer_everywhere(Client::Sprat, Client::Qbittorrent);
}

#[test]
fn sprat_downloads_from_qbittorrent() {
    transfer_everywhere(Client::Qbittorrent, Client::Sprat);
}

#[test]
fn sprat_downloads_from_sprat_on_another_host() {
    transfer_everywhere(Client::Sprat, Client::Sprat);
}
