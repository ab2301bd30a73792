//! A first seed with an upload limit, and leechers of several kinds at once: it sends little more than one copy.
//!
//! Each leecher picks pieces without knowing what the others have asked the seed for, so a seed that serves requests as
//! they come sends many blocks twice: 1.4 copies to libtorrent and qBittorrent.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::client::{self, Client};
use crate::content::Content;
use crate::lab::{self, Lab};
use crate::process;
use crate::tracker::{self, Tracker, Transport};

/// Bytes per second: the content takes 13 seconds.
const LIMIT: u64 = 2_000_000;
/// How long the leechers may take to find each other.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long all may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(120);

/// Copies sent at most: they are 1.02 to 1.10 of so short a content, and more on a machine that is busy with other things.
const COPIES_MAX: f64 = 1.2;

/// One swarm at a time: they are measured.
static TURN: Mutex<()> = Mutex::new(());

/// Sends from a limited seed to these, who are connected with each other before the seed comes.
#[expect(clippy::disallowed_methods, reason = "real processes run in real time; the figure is only printed")]
fn seed_to(leechers: &[Client]) {
    let missing = leechers.iter().filter_map(|client| client.missing());
    let missing: Vec<_> = missing.chain(lab::missing()).chain(tracker::missing()).collect();
    if !missing.is_empty() {
        let what = format!("a limited seed to {leechers:?} not tried: {} missing", missing.join(", "));
        assert_ne!(std::env::var("SPRAT_INTEROP").as_deref(), Ok("require"), "{what}");
        eprintln!("{what}");
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let what = format!("a limited seed to {leechers:?}");
    let lab = Lab::new(2 + leechers.len() as u8);
    let [tracking, seeding, leeching @ ..] = &lab.hosts[..] else { unreachable!("more were asked for") };
    let work = tempfile::tempdir().expect("a temporary folder");
    let content = Content::generate_large(work.path());
    let torrent = content.torrent(&Tracker::Sprat.url(Transport::Http, tracking));
    let infohash = content.infohash(&torrent);
    let _tracker = Tracker::Sprat.start(tracking, &work.path().join("tracker"), infohash);
    let mut processes = Vec::new();
    let mut folders = Vec::new();
    for (number, (client, host)) in leechers.iter().zip(leeching).enumerate() {
        let folder = work.path().join(format!("downloaded-{number}"));
        std::fs::create_dir(&folder).expect("a new folder");
        processes.push(client.join(host, &torrent, work.path(), number, &folder));
        folders.push(folder);
        // One after the other: each is told of those before it.
        let before =
            || leeching[..number].iter().all(|other| other.connected_to().contains(&host.ip.to_string()));
        assert!(process::poll(CONNECT_TIMEOUT, before), "{what}: {client:?} does not find the others");
    }
    let _seed = client::limited_seed(seeding, &torrent, work.path(), content.folder(), LIMIT);
    let all_connected = || leeching.iter().all(|host| seeding.connected_to().contains(&host.ip.to_string()));
    assert!(process::poll(CONNECT_TIMEOUT, all_connected), "{what}: the seed does not find all");
    let began = Instant::now();
    let mut left: Vec<_> = folders.iter().collect();
    let complete = process::poll(TRANSFER_TIMEOUT, || {
        processes.iter_mut().for_each(|process| process.assert_alive_or_done(&what));
        left.retain(|folder| !content.is_equal(folder, false));
        left.is_empty()
    });
    let said: Vec<_> = processes.iter().map(process::Process::said).collect();
    assert!(complete, "{what}: not complete: {left:?}; the leechers said: {said:?}");
    let copies = seeding.sent_len() as f64 / content.total_len() as f64;
    let bound = content.total_len() as f64 / LIMIT as f64;
    eprintln!("{what}: {copies:.3} copies, {:.2} of the bound", began.elapsed().as_secs_f64() / bound);
    assert!(copies <= COPIES_MAX, "{what}: {copies:.3} copies");
}

#[test]
fn a_limited_seed_sends_one_copy_to_libtorrent_and_qbittorrent() {
    seed_to(&[Client::Libtorrent, Client::Qbittorrent]);
}

#[test]
fn a_limited_seed_sends_one_copy_to_four_kinds_of_client() {
    seed_to(&[Client::Sprat, Client::Libtorrent, Client::Qbittorrent, Client::Aria2]);
}

#[test]
fn a_limited_seed_sends_one_copy_with_transmission_among_the_leechers() {
    seed_to(&[Client::Libtorrent, Client::Qbittorrent, Client::Transmission]);
}

#[test]
fn a_limited_seed_sends_one_copy_to_four_of_ours() {
    seed_to(&[Client::Sprat; 4]);
}

#[test]
fn a_limited_seed_sends_one_copy_to_two_of_ours_with_libtorrent_and_transmission() {
    seed_to(&[Client::Sprat, Client::Libtorrent, Client::Sprat, Client::Transmission]);
}
