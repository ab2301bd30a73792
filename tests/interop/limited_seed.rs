//! A first seed with an upload limit, and leechers of several kinds at once: it sends little more
//! than one copy.
//!
//! Each leecher picks pieces without knowing what the others have asked the seed for, so a seed
//! that serves requests as they come sends many blocks twice: 1.4 copies to libtorrent and
//! qBittorrent.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::client::{self, Client};
use crate::content::Content;
use crate::lab::{self, Lab};
use crate::process;
use crate::tracker::{self, Tracker, Transport};

/// How long the leechers may take to find each other.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long all may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(120);

/// What is sent, how fast, and how much of it at most.
#[derive(Clone, Copy, Debug)]
struct Form {
    generate: fn(&Path) -> Content,
    /// Bytes per second.
    limit: u64,
    copies_max: f64,
}

/// Six seconds of content, of which requests at the start and at the end are a larger part.
const SHORT: Form = Form { generate: Content::generate_large, limit: 4_000_000, copies_max: 1.15 };
/// Seventeen seconds, for a release build on a machine that does nothing else; beside a seed of
/// rtorrent.
const LONG: Form = Form { generate: Content::generate_long, limit: 8_000_000, copies_max: 1.06 };

/// What a run may differ from another one of the same.
const COMPARED_MAX: f64 = 1.03;

/// One swarm at a time: they are measured.
static TURN: Mutex<()> = Mutex::new(());

/// How a transfer went.
#[derive(Clone, Copy, Debug)]
struct Figures {
    /// Content bytes that the seed sent, of one copy.
    copies: f64,
    /// Until all leechers were complete, of the time that one copy takes at the limit.
    ratio: f64,
}

/// Sends from a limited seed to these leechers.
fn seed_to(leechers: &[Client]) {
    if std::env::var_os("SPRAT_LONG").is_some() {
        compare(leechers, LONG.copies_max);
    } else if can_try(leechers) {
        let ours = transfer(Client::Sprat, leechers, SHORT);
        assert!(ours.copies <= SHORT.copies_max, "{leechers:?}: {ours:?}");
    }
}

/// In the long form, and from a limited seed of rtorrent too, which must be neither faster nor send
/// less.
fn compare(leechers: &[Client], copies_max: f64) {
    if !can_try(leechers) {
        return;
    }
    let ours = transfer(Client::Sprat, leechers, LONG);
    let theirs = transfer(Client::Rtorrent, leechers, LONG);
    let what = format!("{leechers:?}: {ours:?}, rtorrent {theirs:?}");
    assert!(ours.copies <= copies_max, "{what}");
    assert!(
        ours.copies <= COMPARED_MAX * theirs.copies && ours.ratio <= COMPARED_MAX * theirs.ratio,
        "{what}"
    );
}

fn can_try(leechers: &[Client]) -> bool {
    let clients = leechers.iter().chain([&Client::Rtorrent]).map(|client| client.missing());
    lab::can_try(&format!("a limited seed to {leechers:?}"), clients.chain([tracker::missing()]))
}

/// The leechers are connected with each other before the seed comes.
#[expect(
    clippy::disallowed_methods,
    reason = "real processes run in real time; judged only in the long form"
)]
fn transfer(seed: Client, leechers: &[Client], form: Form) -> Figures {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let what = format!("a limited seed of {seed:?} to {leechers:?}");
    let lab = Lab::new(2 + leechers.len() as u8);
    let [tracking, seeding, leeching @ ..] = &lab.hosts[..] else { unreachable!("more were asked for") };
    let work = tempfile::tempdir().expect("a temporary folder");
    let content = (form.generate)(work.path());
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
    let _seed = client::limited_seed(seed, seeding, &torrent, work.path(), content.folder(), form.limit);
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
    let took = began.elapsed().as_secs_f64();
    let copies = seeding.sent_len() as f64 / content.total_len() as f64;
    let ratio = took / (content.total_len() as f64 / form.limit as f64);
    eprintln!("{what}: {copies:.3} copies, {ratio:.2} of the bound");
    Figures { copies, ratio }
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
#[ignore = "a machine that does nothing else, and minutes: .ci/long"]
fn a_limited_seed_sends_one_copy_with_transmission_among_the_leechers() {
    seed_to(&[Client::Libtorrent, Client::Qbittorrent, Client::Transmission]);
}

#[test]
#[ignore = "a machine that does nothing else, and minutes: .ci/long"]
fn a_limited_seed_sends_one_copy_to_four_of_ours() {
    seed_to(&[Client::Sprat; 4]);
}

/// rtorrent tells peers of which it asks nothing of its pieces each 30 s, so that they have nothing
/// to ask it for, choke it, and it takes the rest from the seed. No seed can send one copy to
/// these, but ours is to be no worse than rtorrent's.
#[test]
#[ignore = "a machine that does nothing else, and minutes: .ci/long"]
fn a_limited_seed_is_no_slower_than_that_of_rtorrent_with_a_leecher_that_hardly_uploads() {
    compare(&[Client::Libtorrent, Client::Qbittorrent, Client::Rtorrent], f64::INFINITY);
}

#[test]
#[ignore = "a machine that does nothing else, and minutes: .ci/long"]
fn a_limited_seed_sends_one_copy_to_two_of_ours_with_libtorrent_and_transmission() {
    seed_to(&[Client::Sprat, Client::Libtorrent, Client::Sprat, Client::Transmission]);
}
