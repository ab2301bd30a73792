//! Swarms by scenario: what a swarm promises, against its fluid bound.

use std::collections::BTreeSet;
use std::time::Duration;

use sprat::sim::scenario::{Report, Role, Variations};
use sprat::sim::{Line, Reveal, Scenario, Swarm};

/// Long past the end of every scenario here.
const LIMIT: Duration = Duration::from_secs(3_600);

fn run(scenario: Scenario) -> Report {
    Swarm::new(scenario).run(LIMIT)
}

/// A small swarm, for what does not need a crowd.
fn small() -> Scenario {
    Scenario { peers: 12, piece_count: 100, ..Scenario::default() }
}

#[test]
fn a_flash_crowd_of_fifty_completes_near_the_bound() {
    let scenario = Scenario { piece_count: 256, piece_len: 256 * 1024, ..Scenario::default() };
    let report = run(scenario.clone());
    let took = report.completion().expect("everybody completes");
    let ratio = took.as_secs_f64() / report.bound.as_secs_f64();
    let sent_by_seed = report.hosts[0].uploaded as f64 / scenario.total_len() as f64;
    let news = report.availability_per_peer_and_piece(scenario.piece_count);
    println!(
        "50 peers: {took:?}, {ratio:.2} times the bound of {:?}; the seed sent {sent_by_seed:.2} copies; \
         news {news:.1} bytes a peer and piece; {} events",
        report.bound, report.event_count
    );
    assert!(ratio <= 1.5, "{ratio}");
    assert!(report.banned().is_empty());
}

#[test]
fn neighbours_on_a_fast_network_do_not_wait_for_news() {
    let line = Line { up_rate: 100_000_000, down_rate: 100_000_000 };
    let scenario = Scenario {
        peers: 8,
        piece_count: 512,
        piece_len: 256 * 1024,
        seed_line: line,
        peer_line: line,
        latency: Duration::from_micros(200),
        ..Scenario::default()
    };
    let report = run(scenario.clone());
    let took = report.completion().expect("everybody completes");
    let ratio = took.as_secs_f64() / report.bound.as_secs_f64();
    let news = report.availability_per_peer_and_piece(scenario.piece_count);
    println!("fast network: {took:?}, {ratio:.2} times the bound; news {news:.1} bytes a peer and piece");
    assert!(ratio <= 1.5, "{ratio}");
}

#[test]
fn a_crowd_of_fifty_runs_the_same_from_one_seed_and_otherwise_from_another() {
    let with_seed = |seed| run(Scenario { seed, loss: 0.01, piece_count: 64, ..Scenario::default() });
    let first = with_seed(11);
    assert_eq!(first, with_seed(11));
    assert_ne!(first.trace_digest, with_seed(12).trace_digest);
}

#[test]
fn a_seed_may_leave_when_one_copy_is_out() {
    let variations = Variations { seeds_leave: true, ..Variations::default() };
    let report = run(Scenario { variations, ..small() });
    assert!(report.completion().is_some(), "{report:?}");
}

#[test]
fn a_super_seed_is_told_of_the_pieces_that_it_gave() {
    for (reveal, peers) in [
        (Reveal::WhenDownloaded, 1),
        (Reveal::WhenDownloaded, 5),
        (Reveal::WhenShared, 1),
        (Reveal::WhenShared, 2),
        (Reveal::WhenShared, 5),
    ] {
        for plain_haves in [false, true] {
            let super_seeding = Some(reveal);
            let variations = Variations { super_seeding, plain_haves, ..Variations::default() };
            let scenario = Scenario { peers, piece_count: 64, piece_len: 256 << 10, variations, ..small() };
            let report = run(scenario.clone());
            let took = report.completion().expect("everybody completes");
            let ratio = took.as_secs_f64() / report.bound.as_secs_f64();
            let copies = report.hosts[0].uploaded as f64 / scenario.total_len() as f64;
            println!("{reveal:?} to {peers}: {took:?}, {ratio:.2} times the bound; {copies:.2} copies sent");
            assert!(ratio <= 2.5, "{reveal:?} to {peers}: {ratio}");
        }
    }
}

#[test]
fn a_limited_seed_sends_one_copy_to_peers_that_heed_no_suggestion() {
    let line = Line { up_rate: 20_000_000, down_rate: 20_000_000 };
    // Without the rule about free riders 1.36 copies go to two peers and one of those.
    let cases = [(1, 0, 1.05), (2, 0, 1.05), (3, 0, 1.05), (8, 0, 1.05), (2, 1, 1.1), (6, 2, 1.25)];
    for (peers, free_riders, max) in cases {
        let limit = 2_000_000;
        let variations = Variations { foreign_peers: true, seed_limit: Some(limit), ..Variations::default() };
        let scenario = Scenario {
            peers,
            free_riders,
            piece_count: 256,
            piece_len: 128 * 1024,
            seed_line: line,
            peer_line: line,
            latency: Duration::from_millis(1),
            variations,
            ..Scenario::default()
        };
        let report = run(scenario.clone());
        let took = report.completion().expect("everybody completes").as_secs_f64();
        let ratio = took / (scenario.total_len() as f64 / limit as f64);
        let copies = report.hosts[0].uploaded as f64 / scenario.total_len() as f64;
        let what = format!(
            "to {peers} and {free_riders} free riders: {copies:.2} copies in {ratio:.2} of the bound"
        );
        println!("{what}");
        assert!(copies <= max && ratio <= max + 0.05, "{what}");
    }
}

#[test]
fn liars_are_banned_and_nobody_else() {
    let scenario = Scenario { poisoners: 4, poison: 0.3, seed: 3, ..small() };
    let report = run(scenario);
    assert!(report.completion().is_some());
    let liars = report.hosts.iter().filter(|host| host.role == Role::Poisoner);
    assert_eq!(report.banned(), liars.map(|host| host.addr).collect::<BTreeSet<_>>());
    assert!(report.hosts.iter().any(|host| host.role == Role::Peer && !host.banned.is_empty()));
}

#[test]
fn who_gives_nothing_waits_longer() {
    // Uploads are short: nobody has any to spare, and who is complete leaves.
    let line = |up_rate| Line { up_rate, down_rate: 4_000_000 };
    let report = run(Scenario {
        peers: 20,
        free_riders: 5,
        seed_line: line(1_000_000),
        peer_line: line(300_000),
        variations: Variations { complete_leave: true, ..Variations::default() },
        ..Scenario::default()
    });
    let mean = |role| {
        let times = report.completions(role);
        let seconds = times.iter().map(|time| time.expect("everybody completes").as_secs_f64());
        seconds.sum::<f64>() / times.len() as f64
    };
    let (peers, free_riders) = (mean(Role::Peer), mean(Role::FreeRider));
    println!("contributors took {peers:.1} s, free riders {free_riders:.1} s");
    assert!(free_riders > 1.2 * peers, "{free_riders} {peers}");
}

#[test]
fn news_in_batches_cost_fewer_bytes_than_haves() {
    let scenario = small();
    let variations = Variations { plain_haves: true, ..Variations::default() };
    let plain = run(Scenario { variations, ..scenario.clone() });
    let batched = run(scenario.clone());
    let cost = |report: &Report| report.availability_per_peer_and_piece(scenario.piece_count);
    println!(
        "availability: {:.1} bytes a peer and piece by HAVE, {:.1} by sp_have",
        cost(&plain),
        cost(&batched)
    );
    assert!(cost(&batched) < cost(&plain));
}

#[test]
fn sixty_different_swarms_keep_every_promise() {
    for seed in 0..60 {
        let seeds_leave = seed % 2 == 1;
        let poison = [0.02, 0.3, 1.0][seed as usize % 3];
        let scenario = Scenario {
            seed,
            peers: 14,
            piece_count: 40 + seed as u32,
            piece_len: if seed % 3 == 0 { 20_000 } else { 65_536 },
            seeds: 1 + seed as usize % 3,
            free_riders: seed as usize % 4,
            poisoners: seed as usize % 5,
            poison,
            loss: 0.02,
            arrivals: Duration::from_secs(seed % 40),
            variations: Variations {
                seeds_leave,
                complete_leave: seed % 4 == 0,
                plain_haves: seed % 7 == 0,
                ..Variations::default()
            },
            ..Scenario::default()
        };
        let liars = scenario.poisoners;
        let report = run(scenario);
        assert!(report.completion().is_some(), "seed {seed}: everybody completes");
        let banned = report.banned().len();
        assert!(banned == liars || (poison < 0.1 && banned < liars), "seed {seed}: {banned} of {liars}");
    }
}
