//! The DHT by scenario: what it promises to those who look for something, and to those who only
//! take part.
//!
//! The everyday forms have a thousand nodes or fewer; the long ones, up to ten thousand, are run by
//! `cargo test --release --test sim -- --ignored --nocapture dht`, one scenario a test.

use std::time::Duration;

use sprat::proto::dht::defence::Defence;
use sprat::sim::dht::report::Tally;
use sprat::sim::dht::scenario::{Attack, Disaster, Enemies, Plan, Weather};
use sprat::sim::dht::{Overlay, Report, Scenario};

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// Bytes a second each way that a node at rest may cost.
const REST_RATE_MAX: f64 = 200.0;

fn run(scenario: &Scenario) -> Report {
    let report = Overlay::new(scenario.clone()).run(|_| {});
    tell(scenario, &report);
    report
}

/// The figures, for `--nocapture`.
fn tell(scenario: &Scenario, report: &Report) {
    let (lookups, rest, tables) = (&report.lookups, &report.rest, &report.tables);
    println!(
        "{} nodes, seed {}: found {} of {}; hops median {} p99 {} (bar {:.2}); seconds median {:.2} p99 {:.2}; \
         {:.1} queries; stored {:.1}\n  at rest out {:.0} in {:.0} B/s (p99 {:.0}, {:.0}; max {:.0}, {:.0}), \
         Gini {:.2}; tables {:.0} nodes, {:.4} dead, {:.4} NAT, {:.4} hostile; {:.2} read-only\n  \
         {} events, {} datagrams, trace {:016x}",
        scenario.nodes,
        scenario.seed,
        lookups.all.found,
        lookups.all.done,
        lookups.hops.median,
        lookups.hops.p99,
        scenario.hops_bound(),
        lookups.found_seconds.median,
        lookups.found_seconds.p99,
        lookups.queries.mean,
        lookups.stored.mean,
        rest.sent.mean,
        rest.received.mean,
        rest.sent.p99,
        rest.received.p99,
        rest.sent.max,
        rest.received.max,
        rest.gini,
        tables.nodes.mean,
        tables.dead,
        tables.behind_nat,
        tables.hostile,
        tables.read_only,
        report.event_count,
        report.datagram_count,
        report.trace_digest
    );
    if scenario.disaster.is_some() {
        println!("  worst minute over rest: {:?}\n  by minute: {:?}", report.peak.ratio, lookups.minutes);
    }
    if scenario.enemies.forgeries > 0 {
        println!("  {:?}", report.forgeries);
    }
}

/// A small overlay for what happens every day.
fn small() -> Scenario {
    Scenario {
        nodes: 400,
        plan: Plan {
            arrivals: minutes(2),
            settling: minutes(3),
            rest: minutes(1),
            work: minutes(4),
            gap: minutes(1),
        },
        trials: 100,
        ..Scenario::default()
    }
}

/// Ten thousand nodes, and the trials that the long forms ask for.
fn large() -> Scenario {
    Scenario {
        nodes: 10_000,
        plan: Plan {
            arrivals: minutes(10),
            settling: minutes(15),
            rest: minutes(20),
            work: minutes(15),
            gap: minutes(2),
        },
        trials: 1_000,
        ..Scenario::default()
    }
}

/// Loss, NATs and churn as they are out there.
fn rough(scenario: Scenario) -> Scenario {
    let weather = Weather { loss: 0.01, nat: 0.6, ..scenario.weather };
    Scenario { weather, churn: Some(minutes(60)), ..scenario }
}

fn hostile(scenario: Scenario, share: f64, attack: Attack) -> Scenario {
    Scenario { enemies: Enemies { share, attack, forgeries: 0 }, ..scenario }
}

fn assert_found(report: &Report, least: f64) {
    let all = report.lookups.all;
    assert!(all.done > 0 && all.share() >= least, "{all:?}");
}

#[test]
fn a_thousand_nodes_find_what_was_announced_elsewhere() {
    let plan = Plan { arrivals: minutes(1), settling: minutes(2), ..small().plan };
    let scenario = Scenario { nodes: 1_000, plan, trials: 200, ..Scenario::default() };
    let report = run(&scenario);
    assert_found(&report, 0.995);
    assert!(report.lookups.hops.median <= scenario.hops_bound());
}

#[test]
fn churn_loss_and_translators_hide_little() {
    let scenario = rough(small());
    assert_found(&run(&scenario), 0.98);
}

#[test]
fn one_seed_gives_one_run_and_another_seed_another() {
    let plan = Plan { arrivals: minutes(1), settling: minutes(1), ..small().plan };
    let with_seed = |seed| run(&Scenario { seed, nodes: 100, plan, trials: 20, ..rough(small()) });
    let first = with_seed(5);
    assert_eq!(first, with_seed(5));
    assert_ne!(first.trace_digest, with_seed(6).trace_digest);
}

#[test]
fn half_of_all_restarting_is_soon_forgotten() {
    let disaster = Disaster::Restart { after: minutes(2), share: 0.5, within: minutes(1) };
    let plan = Plan { work: minutes(8), ..small().plan };
    let report = run(&Scenario { disaster: Some(disaster), plan, ..small() });
    let after = report.lookups.since(minutes(6));
    assert!(after.done > 10 && after.share() >= 0.97, "{after:?}");
}

#[test]
fn hostile_nodes_around_an_infohash_hide_it_from_few() {
    for (share, attack, least) in [
        (0.1, Attack::Gather, 0.95),
        (0.3, Attack::Gather, 0.8),
        (0.1, Attack::GatherFitting, 0.9),
        (0.3, Attack::GatherFitting, 0.8),
    ] {
        let report = run(&hostile(small(), share, attack));
        assert_found(&report, least);
        assert!(report.tables.hostile <= share, "{attack:?}: {}", report.tables.hostile);
    }
}

#[test]
fn many_nodes_of_one_id_do_no_harm() {
    assert_found(&run(&hostile(small(), 0.3, Attack::OneId)), 0.99);
}

#[test]
fn forged_tokens_and_blind_replies_are_not_believed() {
    let enemies = Enemies { forgeries: 20_000, ..Enemies::default() };
    let report = run(&Scenario { nodes: 100, enemies, ..small() });
    let counts = report.forgeries;
    assert_eq!((counts.tokens_accepted, counts.replies_accepted), (0, 0));
    assert!(counts.tokens_sent >= 20_000 && counts.replies_sent >= 20_000, "{counts:?}");
    assert_found(&report, 0.99);
}

#[test]
#[ignore = "long: ten thousand nodes, once without and once with churn, the latter twice"]
fn dht_of_ten_thousand_finds_what_was_announced() {
    let scenario = large();
    let report = run(&scenario);
    assert_found(&report, 0.999);
    assert!(report.lookups.hops.median <= scenario.hops_bound());
    assert!(report.rest.sent.mean < REST_RATE_MAX && report.rest.received.mean < REST_RATE_MAX);
    let report = run(&rough(large()));
    assert_found(&report, 0.99);
    assert!(report.lookups.hops.median <= scenario.hops_bound());
    assert!(report.rest.sent.mean < REST_RATE_MAX && report.rest.received.mean < REST_RATE_MAX);
    assert_eq!(report, run(&rough(large())), "the same seed, the same run");
}

#[test]
#[ignore = "long: ten thousand nodes, half of which restart"]
fn dht_of_ten_thousand_survives_a_mass_restart() {
    let disaster = Disaster::Restart { after: minutes(5), share: 0.5, within: minutes(1) };
    let report = run(&Scenario { disaster: Some(disaster), ..large() });
    let after = report.lookups.since(minutes(10));
    assert!(after.done > 100 && after.share() >= 0.99, "{after:?}");
    assert!(report.peak.ratio.max <= 10.0, "{:?}", report.peak);
}

#[test]
#[ignore = "long: ten thousand nodes in two halves for an hour"]
fn dht_of_ten_thousand_heals_after_a_partition() {
    let disaster = Disaster::Partition { after: minutes(5), span: minutes(60) };
    let plan = Plan { work: minutes(125), ..large().plan };
    let report = run(&Scenario { disaster: Some(disaster), plan, trials: 2_500, ..large() });
    let within = report.lookups.within(minutes(15), minutes(65));
    assert!(within.share() >= 0.99, "each half is a DHT of its own: {within:?}");
    let after = report.lookups.since(minutes(95));
    assert!(after.done > 100 && after.share() >= 0.99, "half an hour later: {after:?}");
}

#[test]
#[ignore = "long: ten thousand nodes, three thousand of which claim one id"]
fn dht_of_ten_thousand_bears_thousands_of_one_id() {
    assert_found(&run(&hostile(large(), 0.3, Attack::OneId)), 0.99);
}

/// The schedule of a network under attack.
fn under_attack() -> Plan {
    Plan { arrivals: minutes(5), settling: minutes(10), rest: minutes(1), work: minutes(6), gap: minutes(1) }
}

/// Who is closest to a target is a matter of luck, so that one infohash says little: five are
/// looked for.
fn assert_withstands(nodes: usize, attack: Attack, share: f64, least: f64) {
    let reports = (1..=5).map(|seed| {
        run(&hostile(
            Scenario { seed, nodes, plan: under_attack(), trials: 400, ..Scenario::default() },
            share,
            attack,
        ))
    });
    let reports: Vec<Report> = reports.collect();
    // Who asks all the time is known to more than others are: of thirty nodes that shows.
    let known = reports.iter().map(|report| report.tables.hostile).fold(0.0, f64::max);
    assert!(known <= f64::max(share, 0.02), "{attack:?}: {known} of the tables");
    let all: Tally = reports.iter().map(|report| report.lookups.all).sum();
    println!("{nodes} nodes, {attack:?}, {share}: {all:?}, {:.4}", all.share());
    assert!(all.share() >= least, "{attack:?}, {share}: {all:?}");
}

#[test]
#[ignore = "long: three thousand nodes, from one in a hundred to three in ten hostile, five times each"]
fn dht_of_three_thousand_withstands_those_who_gather() {
    for attack in [Attack::Gather, Attack::GatherFitting] {
        for (share, least) in [(0.01, 0.99), (0.1, 0.95), (0.3, 0.8)] {
            assert_withstands(3_000, attack, share, least);
        }
    }
}

#[test]
#[ignore = "long: ten thousand nodes, one in ten hostile, five times each"]
fn dht_of_ten_thousand_withstands_one_in_ten_who_gather() {
    assert_withstands(10_000, Attack::GatherFitting, 0.1, 0.95);
    assert_withstands(10_000, Attack::Gather, 0.1, 0.95);
}

#[test]
#[ignore = "long: ten thousand nodes, three in ten hostile, five times each"]
fn dht_of_ten_thousand_withstands_three_in_ten_who_gather() {
    assert_withstands(10_000, Attack::GatherFitting, 0.3, 0.8);
    assert_withstands(10_000, Attack::Gather, 0.3, 0.8);
}

#[test]
#[ignore = "long: a million forged tokens and a million blind replies"]
fn dht_believes_none_of_a_million_forgeries() {
    let enemies = Enemies { forgeries: 1_000_000, ..Enemies::default() };
    let report = run(&Scenario { nodes: 1_000, enemies, ..large() });
    let counts = report.forgeries;
    assert_eq!((counts.tokens_accepted, counts.replies_accepted), (0, 0));
    assert!(counts.tokens_sent >= 1_000_000 && counts.replies_sent >= 1_000_000, "{counts:?}");
    assert_found(&report, 0.99);
}

/// A row of the measurement: its name, and what it switches off.
type Row = (&'static str, fn(&mut Defence));

/// The rules of the defence, each with a switch that turns it off.
const RULES: [Row; 11] = [
    ("all rules", |_| {}),
    ("no rule", |defence| {
        *defence = Defence {
            id_binding: false,
            prefix_quota: false,
            disjoint_paths: false,
            wide_closest: false,
            crowd_response: false,
            source_limit: false,
            neighbour_places: false,
            sampled_size: false,
            own_id_paths: false,
        };
    }),
    ("without id_binding", |defence| defence.id_binding = false),
    ("without prefix_quota", |defence| defence.prefix_quota = false),
    ("without disjoint_paths", |defence| defence.disjoint_paths = false),
    ("without wide_closest", |defence| defence.wide_closest = false),
    ("without crowd_response", |defence| defence.crowd_response = false),
    ("without source_limit", |defence| defence.source_limit = false),
    ("without neighbour_places", |defence| defence.neighbour_places = false),
    ("without sampled_size", |defence| defence.sampled_size = false),
    ("without own_id_paths", |defence| defence.own_id_paths = false),
];

/// Measures the share of lookups that found the peers, in percent, and the queries of one lookup,
/// with and without each rule, for the table in `proto/dht/defence`. `SPRAT_NODES` (3,000 if not
/// set) and `SPRAT_SEEDS` (2) give the size, `SPRAT_RULE` names the one row to measure. Whatever
/// the rows are worth, the rules together have to pay.
#[test]
#[ignore = "long: three thousand nodes under three attacks, with each rule switched off: .ci/long"]
fn dht_defence_rule_by_rule() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (nodes, seeds) = (number("SPRAT_NODES", 3_000), number("SPRAT_SEEDS", 2));
    println!("{nodes} nodes, {seeds} seeds: found %, queries a lookup");
    let only = std::env::var("SPRAT_RULE").ok();
    let rules = RULES.into_iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name));
    let mut shares = Vec::new();
    for (name, switch) in rules {
        let attacks = [(Attack::GatherFitting, 0.1), (Attack::GatherFitting, 0.3), (Attack::Gather, 0.3)];
        let figures = attacks.map(|(attack, share)| without(switch, nodes, seeds as u64, attack, share));
        let columns = figures.map(|(found, queries)| format!("{:5.1} {queries:3.0}", 100.0 * found));
        println!("| {name} | {} |", columns.join(" | "));
        shares.push((name, figures.map(|(found, _)| found)));
    }
    let found = |row| shares.iter().find(|(name, _)| *name == row).map(|(_, found)| *found);
    if let (Some(with), Some(none)) = (found(RULES[0].0), found(RULES[1].0)) {
        for ((with, none), least) in with.into_iter().zip(none).zip([0.95, 0.8, 0.8]) {
            assert!(with >= least && none < with / 2.0, "{with} with all rules, {none} with none");
        }
    }
}

/// The share of lookups that found the peers, and the queries of one, where honest nodes have a
/// rule switched off.
fn without(switch: fn(&mut Defence), nodes: usize, seeds: u64, attack: Attack, share: f64) -> (f64, f64) {
    let mut defence = Defence::ALL;
    switch(&mut defence);
    let plan = under_attack();
    let reports = (1..=seeds).map(|seed| {
        let scenario = Scenario { seed, nodes, plan, trials: 400, defence, ..Scenario::default() };
        Overlay::new(hostile(scenario, share, attack)).run(|_| {})
    });
    let reports: Vec<Report> = reports.collect();
    let all: Tally = reports.iter().map(|report| report.lookups.all).sum();
    let queries = reports.iter().map(|report| report.lookups.queries.mean).sum::<f64>();
    (all.share(), queries / seeds as f64)
}
