//! BEP 12: tiers of trackers. All of a tier before the next one within it, the one that answers
//! first the next time; and the client's manners towards trackers that fail.

use std::collections::BTreeMap;

use sprat::proto::infohash::InfoHash;
use sprat::proto::peer_id::PeerId;
use sprat::proto::rng::Rng;
use sprat::proto::time::{Duration, Instant};
use sprat::proto::tracker::Progress;
use sprat::proto::tracker::announcer::{Announcer, Config, Output};
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

/// Drives an announcer until `until` against trackers of which `alive` says whether they answer:
/// every announce, in order.
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

/// What a tracker has seen of one client.
#[derive(Debug, Default)]
struct Seen {
    under_way: bool,
    /// Answers that reached the client.
    answered: Vec<AnnounceEvent>,
    sent: Vec<AnnounceEvent>,
}

/// What holds whatever trackers and users do.
fn assert_manners(seen: &BTreeMap<String, Seen>) {
    for (url, Seen { answered, sent, .. }) in seen {
        let count = |events: &[AnnounceEvent], event| events.iter().filter(|&&e| e == event).count();
        assert_eq!(sent.first(), Some(&AnnounceEvent::Started), "{url}: {sent:?}");
        assert!(count(answered, AnnounceEvent::Started) <= 1, "{url}: {answered:?}");
        assert!(count(answered, AnnounceEvent::Completed) <= 1, "{url}: {answered:?}");
        assert!(count(sent, AnnounceEvent::Stopped) <= 1, "{url}: {sent:?}");
        let last = sent.iter().position(|&event| event == AnnounceEvent::Stopped);
        assert!(last.is_none_or(|at| at + 1 == sent.len()), "{url}: {sent:?}");
    }
}

#[test]
fn manners_hold_under_any_order_of_answers_failures_and_wishes() {
    for seed in 0..1500 {
        let mut rng = Rng::from_number(seed);
        let mut machine =
            announcer(seed, &[&["http://a/", "udp://b:1", "https://c/"], &["http://d/"], &["udp://e:1"]]);
        let (mut now, mut under_way, mut seen) = (at(0), Vec::new(), BTreeMap::<String, Seen>::new());
        let mut left = false;
        for step in 0..80 {
            match rng.below(10) {
                0..5 if !under_way.is_empty() => {
                    let (request, url, event) = under_way.swap_remove(rng.below(under_way.len()));
                    let tracker: &mut Seen = seen.get_mut(&url).unwrap();
                    let fine = rng.below(3) > 0;
                    tracker.under_way = false;
                    if fine {
                        tracker.answered.push(event);
                    }
                    let interval = Duration::from_secs(60);
                    let reply = Ok(AnnounceReply { interval, ..AnnounceReply::default() });
                    machine.handle_reply(now, request, if fine { reply } else { Err(TrackerError::Timeout) });
                }
                5 => machine.handle_completed(now),
                6 => machine.handle_need_peers(now),
                7 if step > 40 => {
                    machine.handle_stopped(now);
                    if !std::mem::replace(&mut left, true) {
                        // Answers to what was under way do not matter any more, but to `started`.
                        under_way.retain(|(_, _, event)| *event == AnnounceEvent::Started);
                        seen.values_mut().for_each(|tracker| tracker.under_way = false);
                    }
                }
                _ => {
                    now = machine.poll_timeout().unwrap_or(now).max(now).min(now + Duration::from_secs(20));
                    machine.handle_timeout(now);
                }
            }
            while let Some(output) = machine.poll_output() {
                if let Output::Failed { url, .. } = &output {
                    // By an error, or because it took too long: then a later answer is ignored.
                    seen.get_mut(url).unwrap().under_way = false;
                    under_way.retain(|(_, asked, _)| asked != url);
                }
                if let Output::Announce { request, url, announce } = output {
                    let tracker = seen.entry(url.clone()).or_default();
                    assert!(!std::mem::replace(&mut tracker.under_way, true) || left, "one at a time");
                    tracker.sent.push(announce.event);
                    under_way.push((request, url, announce.event));
                }
            }
        }
        assert_manners(&seen);
        machine.handle_stopped(now);
        while let Some(next) = machine.poll_timeout() {
            machine.handle_timeout(next);
            assert!(next <= now + Duration::from_secs(120));
        }
        assert!(machine.is_done());
    }
}
