//! Peers on real disks: the production machines and the production storage download in virtual
//! time, while machines go down and disks fail. That no false piece is claimed and no false block
//! sent, and that what was durable is there after a power cut, the simulator itself looks at.

#![cfg(test)]

use std::time::Duration;

use rustix::io::Errno;
use sprat::proto::block::BLOCK_LEN;
use sprat::proto::rng::Rng;
use sprat::proto::time::Instant;
use sprat::sim::disk::{Disk, Failure, Faults, When};
use sprat::sim::scenario::{Ending, HostReport, LifePlan, MachinePlan, Report};
use sprat::sim::{Line, Scenario, Swarm};

use crate::sample::{MODELS, run_count};

const LIMIT: Duration = Duration::from_secs(3_600);
/// What a line brings in a second.
const DOWN_RATE: u64 = 400_000;
/// Longest that a piece may stay in caches alone: the interval of commits, and a little for the
/// commit.
const AGE_MAX: Duration = Duration::from_millis(2_100);
/// The same of any block, from when it came: with a little for its write, too.
const BLOCK_AGE_MAX: Duration = Duration::from_millis(2_300);
/// Longest that a peer may need after a fault beyond what it needs undisturbed: its disk is tried
/// each second.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// The same where the disk forgot pieces: who was complete has let go of others that are, and dials
/// them again later.
const REDIAL_MAX: Duration = Duration::from_secs(120);
/// Bytes of small pieces that were completed within the time of a commit and begun before it: some
/// pieces under way.
const BEGUN_LEN_MAX: u64 = 8 * 32 * 1024;
/// Longest that a block waits in memory for the rest of its piece, and a little for the disk: what
/// a kill may cost.
const MEMORY_AGE_MAX: Duration = Duration::from_millis(1_100);
/// Pieces under way.
const PARTIAL_COUNT_MAX: u64 = 5;
/// Blocks of a piece that may wait for longer: too few for a write of their own.
const FEW_COUNT_MAX: u64 = 15;
/// Where the first peer stands in a report.
const FIRST: usize = 1;

/// What a line brings in this time.
fn traffic(time: Duration) -> u64 {
    (time.as_secs_f64() * DOWN_RATE as f64) as u64
}

/// What an end may cost of what came, if nothing waits for longer than that but blocks that are too
/// few.
fn cost_max(seed: u64, age: Duration) -> u64 {
    let blocks_in_piece = u64::from(of_either(seed, Vec::new()).piece_len / BLOCK_LEN);
    let few = FEW_COUNT_MAX.min(blocks_in_piece - 1);
    traffic(age) + PARTIAL_COUNT_MAX * few * u64::from(BLOCK_LEN)
}

/// With an odd seed 12 MiB in pieces that take several seconds each.
fn of_either(seed: u64, machines: Vec<MachinePlan>) -> Scenario {
    let small = scenario(seed, machines);
    if seed.is_multiple_of(2) { small } else { Scenario { piece_count: 6, piece_len: 2 << 20, ..small } }
}

/// 2 MiB for three peers on slow lines, half a minute undisturbed.
fn scenario(seed: u64, machines: Vec<MachinePlan>) -> Scenario {
    let line = Line { up_rate: 200_000, down_rate: DOWN_RATE };
    Scenario {
        seed,
        piece_count: 64,
        piece_len: 32 * 1024,
        peers: 3,
        seed_line: line,
        peer_line: line,
        machines,
        ..Scenario::default()
    }
}

fn machine(seed: u64, lives: Vec<LifePlan>) -> MachinePlan {
    MachinePlan { model: MODELS[seed as usize % 3], apart: seed / 3 % 2 == 1, lives }
}

fn run(scenario: Scenario) -> Report {
    let seed = scenario.seed;
    let report = Swarm::new(scenario).run(LIMIT);
    assert!(report.completion().is_some(), "seed {seed}: everybody completes");
    report
}

/// A life that ends at a random call, or a random moment.
fn short_life(rng: &mut Rng, ending: Ending) -> LifePlan {
    let rest = Duration::from_millis(rng.below(5_000) as u64);
    let mut life = LifePlan { ending, rest, ..LifePlan::default() };
    match rng.below(3) {
        0 => life.content.cut_at = Some(1 + rng.below(150) as u64),
        1 => life.journal.cut_at = Some(1 + rng.below(100) as u64),
        _ => {}
    }
    life.length = Some(Duration::from_millis(rng.below(15_000) as u64));
    life
}

/// The worst and the median of some figures.
fn worst_and_median(mut figures: Vec<u64>) -> (u64, u64) {
    figures.sort_unstable();
    (figures.last().copied().unwrap_or(0), figures.get(figures.len() / 2).copied().unwrap_or(0))
}

fn ends(report: &Report) -> impl Iterator<Item = &sprat::sim::scenario::EndReport> {
    report.hosts.iter().flat_map(|host| &host.ends)
}

#[test]
fn a_power_cut_at_any_moment_costs_two_seconds_of_traffic_and_little_else() {
    let mut lost = Vec::new();
    for seed in 0..run_count(30, 2_000) {
        let mut rng = Rng::from_number(seed);
        let lives = (0..3).map(|_| short_life(&mut rng, Ending::PowerCut)).collect();
        let report = run(of_either(seed, vec![machine(seed, lives)]));
        for end in ends(&report) {
            assert!(end.age <= AGE_MAX, "seed {seed}: {end:?}");
            assert!(end.lost_len <= cost_max(seed, BLOCK_AGE_MAX), "seed {seed}: {end:?}");
            let is_small = seed.is_multiple_of(2);
            assert!(
                !is_small || end.lost_piece_len <= traffic(AGE_MAX) + BEGUN_LEN_MAX,
                "seed {seed}: {end:?}"
            );
            lost.push(end.lost_len);
        }
    }
    let (count, (worst, median)) = (lost.len(), worst_and_median(lost));
    eprintln!("N2: {count} power cuts of a downloading peer; lost {worst} bytes at worst, median {median}");
}

#[test]
fn a_kill_at_any_moment_costs_a_second_of_traffic_and_little_else() {
    let mut lost = Vec::new();
    for seed in 0..run_count(20, 1_000) {
        let mut rng = Rng::from_number(seed);
        let lives = (0..3).map(|_| short_life(&mut rng, Ending::Kill)).collect();
        let report = run(of_either(seed, vec![machine(seed, lives)]));
        for end in ends(&report) {
            assert_eq!(end.lost_piece_len, 0, "seed {seed}: {end:?}");
            assert!(end.lost_len <= cost_max(seed, MEMORY_AGE_MAX), "seed {seed}: {end:?}");
            lost.push(end.lost_len);
        }
    }
    let (count, (worst, median)) = (lost.len(), worst_and_median(lost));
    eprintln!("N1: {count} kills of a downloading peer; lost {worst} bytes at worst, median {median}");
}

#[test]
fn a_torrent_that_leaves_in_order_loses_nothing_and_its_next_start_hashes_nothing() {
    let (mut count, mut cut) = (0, Vec::new());
    for seed in 0..run_count(30, 1_000) {
        let mut rng = Rng::from_number(seed);
        let lives: Vec<_> = (0..3).map(|_| short_life(&mut rng, Ending::Leave)).collect();
        let report = run(of_either(seed, vec![machine(seed, lives.clone())]));
        for (end, life) in report.hosts[FIRST].ends.iter().zip(lives) {
            assert!(end.lost_len <= cost_max(seed, BLOCK_AGE_MAX), "seed {seed}: {end:?}");
            if life.content.cut_at.or(life.journal.cut_at).is_some() {
                // The power may have gone out before it had left.
                cut.push(end.lost_len);
            } else {
                assert_eq!((end.lost_len, end.age), (0, Duration::ZERO), "seed {seed}: {end:?}");
                count += 1;
            }
        }
    }
    let (worst, median) = worst_and_median(cut);
    eprintln!(
        "{count} leaves cost nothing; with power cuts, also while leaving, {worst} at worst, median {median}"
    );
    assert!(count > 0);
}

/// When a host was done, after this moment.
fn done_after(host: &HostReport, at: Duration) -> Duration {
    (host.completed_at.unwrap() - Instant::ZERO).saturating_sub(at)
}

/// How long the swarm takes with nothing in its way.
fn undisturbed(seed: u64) -> Duration {
    run(of_either(seed, vec![machine(seed, Vec::new())])).completion().unwrap()
}

#[test]
fn a_disk_that_is_full_or_fails_for_a_time_holds_its_own_peer_up_and_no_longer() {
    let mut late = Vec::new();
    for seed in 0..run_count(60, 1_000) {
        let mut rng = Rng::from_number(seed);
        let (from, len) = (1 + rng.below(20) as u64, 1 + rng.below(100) as u64);
        let until = Duration::from_secs(from + len);
        let time = When::Time(Disk::time_after(from * 1_000_000)..Disk::time_after(until.as_micros() as u64));
        let error = [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::ROFS, Errno::INTR][rng.below(5)];
        let forgets = rng.below(2) == 0;
        let faults = match seed % 5 {
            0 => Faults { space: Some((rng.below(2_000_000) as u64, time)), ..Faults::default() },
            kind => {
                let failure = match kind {
                    1 => Failure::Refused(error),
                    2 => Failure::Short(error),
                    3 => Failure::Unsynced { error: Errno::IO, forgets },
                    _ => Failure::Unread(Errno::IO),
                };
                Faults { failing: Some((time, failure)), ..Faults::default() }
            }
        };
        let on_journal = rng.below(2) == 0;
        let mut life = LifePlan { ending: Ending::PowerCut, ..LifePlan::default() };
        if on_journal {
            life.journal = faults.clone();
        }
        life.content = faults;
        if rng.below(2) == 0 {
            // And then the power goes out.
            life.length = Some(Duration::from_millis(rng.below(60_000) as u64));
        }
        let report = run(of_either(seed, vec![machine(seed, vec![life])]));
        let host = &report.hosts[FIRST];
        let last_end = host.ends.last().map_or(Duration::ZERO, |end| end.at - Instant::ZERO);
        let after = done_after(host, until.max(last_end));
        let span = undisturbed(seed);
        let more = if seed % 5 == 3 { REDIAL_MAX } else { RECOVERY_MAX };
        assert!(after <= span + more, "seed {seed}: {after:?} after it, else {span:?}");
        late.push(after.as_millis() as u64);
    }
    let (count, (worst, median)) = (late.len(), worst_and_median(late));
    eprintln!("N5: {count} disks failed for a time; done {worst} ms after that at worst, median {median}");
}

/// A swarm in which the first peer's disk forgets, again and again, what a sync of its was to make
/// durable: pieces lost, and connections closed for it.
fn forgetful(seed: u64, plain_haves: bool) -> (usize, usize) {
    let from = 2 + seed % 20;
    let time = When::Time(Disk::time_after(from * 1_000_000)..Disk::time_after((from + 12) * 1_000_000));
    let failing = Some((time, Failure::Unsynced { error: Errno::IO, forgets: true }));
    let content = Faults { failing, ..Faults::default() };
    let mut scenario = scenario(seed, vec![machine(seed, vec![LifePlan { content, ..LifePlan::default() }])]);
    scenario.variations.plain_haves = plain_haves;
    let report = run(scenario);
    (report.hosts[FIRST].lost_count, report.hosts.iter().map(|host| host.anew_count).sum())
}

#[test]
fn pieces_that_a_disk_forgot_cost_no_connection_and_are_fetched_again() {
    let (mut lost, mut closed) = (0, 0);
    for seed in 0..run_count(12, 300) {
        let (lost_count, anew_count) = forgetful(seed, false);
        assert_eq!(anew_count, 0, "seed {seed}: {lost_count} lost");
        lost += lost_count;
        let (lost_count, anew_count) = forgetful(seed, true);
        // No peer was told yet of a piece that is lost in the interval in which it was gained.
        assert!(lost_count > 0 || anew_count == 0, "seed {seed}: connections closed without a loss");
        closed += anew_count;
    }
    eprintln!("{lost} pieces forgotten, 0 connections closed; without the extension {closed}");
    assert!(lost > 20 && closed > 20);
}

/// Bytes that the first peer receives twice because its disk fails all syncs for 10 to 60 s.
fn received_twice(seed: u64, forgets: bool) -> u64 {
    let mut rng = Rng::from_number(seed);
    let (from, len) = (3 + rng.below(15) as u64, 10 + rng.below(50) as u64);
    let time = When::Time(Disk::time_after(from * 1_000_000)..Disk::time_after((from + len) * 1_000_000));
    let failing = Some((time, Failure::Unsynced { error: Errno::IO, forgets }));
    let content = Faults { failing, ..Faults::default() };
    let life = LifePlan { content, ..LifePlan::default() };
    let scenario = Scenario { piece_count: 512, ..scenario(seed, vec![machine(seed, vec![life])]) };
    let total_len = scenario.total_len();
    run(scenario).hosts[FIRST].downloaded.saturating_sub(total_len)
}

#[test]
fn failed_syncs_cost_only_what_the_disk_forgot() {
    for forgets in [false, true] {
        let twice: Vec<u64> = (0..run_count(8, 40)).map(|seed| received_twice(seed, forgets)).collect();
        let (worst, median) = worst_and_median(twice);
        eprintln!(
            "syncs failed; the disk forgets: {forgets}; received twice {worst} at worst, median {median}"
        );
        assert!(worst <= if forgets { traffic(AGE_MAX) } else { 0 });
    }
}

#[test]
fn a_disk_that_stalls_for_a_minute_holds_nobody_else_up() {
    for seed in 0..run_count(6, 200) {
        let mut rng = Rng::from_number(seed);
        let from = Duration::from_secs(rng.below(15) as u64);
        let until = from + Duration::from_secs(60);
        let micros = |at: Duration| Disk::time_after(at.as_micros() as u64);
        let failing = Some((When::Time(micros(from)..micros(until)), Failure::Stalled));
        let faults = Faults { failing, ..Faults::default() };
        let life = LifePlan { content: faults.clone(), journal: faults, ..LifePlan::default() };
        let report = run(scenario(seed, vec![machine(seed, vec![life])]));
        let span = undisturbed(seed);
        for other in &report.hosts[FIRST + 1..] {
            let took = done_after(other, Duration::ZERO);
            assert!(took <= until, "seed {seed}: {took:?} of another peer, undisturbed {span:?}");
        }
        let after = done_after(&report.hosts[FIRST], until);
        assert!(after <= span + RECOVERY_MAX, "seed {seed}: {after:?} after it, else {span:?}");
    }
}

#[test]
fn peers_that_go_down_again_and_again_get_there_all_the_same() {
    let mut twice = Vec::new();
    for seed in 0..run_count(10, 300) {
        let mut rng = Rng::from_number(seed);
        let machines = (0..3_u64).map(|number| {
            let ending = [Ending::PowerCut, Ending::Kill, Ending::Leave][rng.below(3)];
            let count = if number == 0 { 12 } else { 2 };
            machine(seed + number, (0..count).map(|_| short_life(&mut rng, ending)).collect())
        });
        let machines = machines.collect();
        let scenario = scenario(seed, machines);
        let total_len = scenario.total_len();
        let report = run(scenario);
        let hosts = &report.hosts[FIRST..];
        twice.extend(hosts.iter().map(|host| host.downloaded.saturating_sub(total_len)));
    }
    let (worst, median) = worst_and_median(twice);
    eprintln!("again and again: fetched twice {worst} bytes of 2 MiB at worst, median {median}");
}

#[test]
fn outages_run_the_same_from_one_seed() {
    let with_seed = |seed| {
        let lives = (0..3).map(|_| short_life(&mut Rng::from_number(seed), Ending::PowerCut)).collect();
        run(scenario(seed, vec![machine(seed, lives)]))
    };
    assert_eq!(with_seed(5), with_seed(5));
}
