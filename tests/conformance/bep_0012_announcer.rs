//! BEP 12: tiers of trackers. All of a tier before the next one within it, the one that answers first the next
//! time; and the client's manners towards trackers that fail.

use std::collections::BTreeMap;

use sprat::proto::infohash::InfoHash;
use sprat::proto::peer_id::PeerId;
use sprat::proto::rng::Rng;
use sprat::proto::time::{Duration, Instant};
use sprat::proto::tracker::announcer::{Announcer, Config, Output, Progress};
use sprat::proto::tracker::{AnnounceEvent, AnnounceReply, TrackerError};

const INTERVAL: Duration = Duration::from_secs(1800);

fn at(secs: u64) -> Instant {
    Instant::from_micros(secs * 1_000_000)
}

fn announcer(seed: u64, tiers: &[&[&str]]) -> Announcer {
    let tiers = tiers.iter().map(|tier| tier.iter().map(|url| url.to_string()).collect()).collect();
    let config =
        Config { infohash: InfoHash([1; 20]), peer_id: PeerId([2; 20]), port: 3, tiers, numwant: 50 };
    Announcer::new(config, Progress { left: 1, ..Progress::default() }, Rng::from_number(seed), at(0))
}

/// Drives an announcer until `until` against trackers of which `alive` says whether they answer: every
/// announce, in order.
fn drive(
    machine: &mut Announcer,
    now: &mut Instant,
    until: Instant,
    alive: impl Fn(&str, Instant) -> bool,
) -> Vec<(Instant, String, AnnounceEvent)> {
    let mut log = Vec::new();
    while let Some(next) = machine.poll_timeout().filter(|&next| next <= until) {
        *now = next.max(*now);
        machine.handle_timeout(*now);
        while let Some(output) = machine.poll_output() {
            if let Output::Announce { request, url, announce } = output {
                let reply = if alive(&url, *now) {
                    Ok(AnnounceReply { interval: INTERVAL, ..AnnounceReply::default() })
                } else {
                    Err(TrackerError::Timeout)
                };
                log.push((*now, url, announce.event));
                machine.handle_reply(*now, request, reply);
            }
        }
    }
    log
}

#[test]
fn the_order_within_a_tier_is_shuffled() {
    let mut firsts = BTreeMap::new();
    for seed in 0..60 {
        let mut machine = announcer(seed, &[&["http://a/", "http://b/", "http://c/"]]);
        let log = drive(&mut machine, &mut at(0), at(0), |_, _| true);
        assert_eq!(log.len(), 1, "one tracker of a tier is enough");
        *firsts.entry(log[0].1.clone()).or_insert(0) += 1;
    }
    assert_eq!(firsts.len(), 3);
    assert!(firsts.values().all(|&count| count > 8), "{firsts:?}");
}

#[test]
fn the_one_that_answers_is_asked_first_the_next_time() {
    for seed in 0..20 {
        let mut machine = announcer(seed, &[&["http://a/", "http://b/", "http://c/"]]);
        let log = drive(&mut machine, &mut at(0), at(4000), |url, _| url == "http://b/");
        let after: Vec<_> = log.iter().skip_while(|entry| entry.1 != "http://b/").collect();
        assert_eq!(after.len(), 3, "{log:?}");
        assert!(after.iter().all(|entry| entry.1 == "http://b/"));
        assert_eq!(after[0].2, AnnounceEvent::Started);
        assert_eq!(after[1].2, AnnounceEvent::None);
    }
}

#[test]
fn every_tier_is_announced_to() {
    let mut machine = announcer(1, &[&["http://a/"], &["http://b/"], &["udp://c:1"]]);
    let log = drive(&mut machine, &mut at(0), at(0), |_, _| true);
    let mut urls: Vec<_> = log.into_iter().map(|entry| entry.1).collect();
    urls.sort();
    assert_eq!(urls, ["http://a/", "http://b/", "udp://c:1"]);
}

#[test]
fn a_tracker_that_starts_a_little_later_is_found_within_seconds() {
    for seed in 0..20 {
        let mut machine = announcer(seed, &[&["http://a/"]]);
        let log = drive(&mut machine, &mut at(0), at(60), |_, now| now >= at(1));
        let (found_at, _, event) = log.last().unwrap();
        assert!(*found_at <= at(4), "{log:?}");
        assert_eq!(*event, AnnounceEvent::Started);
    }
}

#[test]
fn a_dead_tracker_is_asked_ever_less() {
    let mut machine = announcer(1, &[&["http://a/"]]);
    let log = drive(&mut machine, &mut at(0), at(24 * 3600), |_, _| false);
    assert!((48..80).contains(&log.len()), "{} announces in a day", log.len());
    let in_the_first_minute = log.iter().filter(|entry| entry.0 < at(60)).count();
    assert!((4..=7).contains(&in_the_first_minute), "{in_the_first_minute}");
}
