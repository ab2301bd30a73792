//! `sprat simulate`: production peers in virtual time; a swarm against its fluid bound, a DHT
//! against theory.
//!
//! What is asked for is a scenario of the simulator; what comes of it is printed as a table, or as
//! one JSON object for programs.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::clock;
use super::failure::Failure;
use super::report::Report;
use super::size::{PieceLen, Rate, parse_duration, parse_len, parse_piece_len, parse_rate};
use super::size::{show_duration, show_len, show_rate};
use crate::sim::dht::report::{Report as DhtReport, Spread};
use crate::sim::dht::scenario::{Attack, Disaster, Enemies, Scenario as DhtScenario, Weather};
use crate::sim::scenario::Role;
use crate::sim::{Line, Scenario, Swarm, dht};

/// A swarm that takes longer than this is reported as unfinished.
const SWARM_TIME_MAX: Duration = Duration::from_secs(7 * 86_400);

#[derive(Debug, Subcommand)]
pub(crate) enum SimulateCommand {
    /// A DHT: nodes that keep their routing tables, announce, and look up from elsewhere
    Dht(DhtArgs),
    /// A swarm: seeds and peers that share one content
    Swarm(SwarmArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sprat simulate dht --nodes 10000 --churn 60m --loss 0.01 --nat 0.6
  sprat simulate dht --nodes 3000 --sybil 0.3 --attack gather-fitting
  sprat simulate dht --restart 0.5 --json

The same options and seed give the same run, bit for bit: compare the trace.")]
pub(crate) struct DhtArgs {
    /// Nodes, hostile ones among them
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(4..=1_000_000))]
    nodes: u32,
    /// Everything follows from it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Median of a session (60m); a peer that leaves is replaced [default: no peer leaves]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    churn: Option<Duration>,
    /// Datagrams that get lost, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    loss: f64,
    /// Nodes behind a NAT, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    nat: f64,
    /// Mean latency, one way
    #[arg(long, value_name = "TIME", default_value = "40ms", value_parser = parse_span)]
    latency: Duration,
    /// Hostile nodes, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    sybil: f64,
    /// What the hostile ones are up to
    #[arg(long, value_enum, default_value_t = AttackArg::Gather)]
    attack: AttackArg,
    /// Forged tokens, and as many forged replies, against one node
    #[arg(long, value_name = "N", default_value_t = 0)]
    forgeries: u64,
    /// Announces, each looked up from elsewhere
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    lookups: u32,
    /// Virtual time at rest, before the lookups: there the traffic of maintenance is measured
    #[arg(long, value_name = "TIME", default_value = "25m", value_parser = parse_span)]
    rest: Duration,
    /// Virtual time over which announces and lookups are spread
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_span)]
    work: Duration,
    /// A part of all nodes, 0 to 1, restarts within a minute, five minutes into the lookups
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share, conflicts_with = "partition")]
    restart: f64,
    /// The network falls into halves for so long, five minutes into the lookups
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    partition: Option<Duration>,
}

/// What hostile nodes are up to.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum AttackArg {
    /// Gather at one infohash, with whatever ids
    Gather,
    /// Gather there with ids that fit their addresses
    GatherFitting,
    /// All claim one id
    OneId,
}

#[derive(Debug, Args)]
pub(crate) struct SwarmArgs {
    /// Complete peers at the start
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    seeds: u16,
    /// Peers that fetch the content
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    peers: u16,
    /// Peers that fetch and give nothing
    #[arg(long, value_name = "N", default_value_t = 0)]
    free_riders: u16,
    /// Everything follows from it
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How much content
    #[arg(long, default_value = "32MiB", value_parser = parse_len)]
    size: u64,
    /// Bytes a piece, a power of two
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = parse_piece_len)]
    piece_size: PieceLen,
    /// What each may send a second
    #[arg(long, value_name = "RATE", default_value = "1MB", value_parser = parse_rate)]
    up_rate: Rate,
    /// What each may receive a second
    #[arg(long, value_name = "RATE", default_value = "4MB", value_parser = parse_rate)]
    down_rate: Rate,
    /// Mean latency, one way
    #[arg(long, value_name = "TIME", default_value = "30ms", value_parser = parse_span)]
    latency: Duration,
    /// Segments that come a retransmission late, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    loss: f64,
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1".to_owned()),
    }
}

/// Longest span of virtual time: what the largest simulation could live through in a day.
const SPAN_MAX: Duration = Duration::from_secs(30 * 86_400);

fn parse_span(text: &str) -> Result<Duration, String> {
    let span = parse_duration(text)?;
    if span > SPAN_MAX { Err("at most 30d".to_owned()) } else { Ok(span) }
}

/// Simulates what was asked for.
pub(crate) fn run(command: &SimulateCommand, report: &Report) -> Result<(), Failure> {
    match command {
        SimulateCommand::Dht(args) => simulate_dht(args, report),
        SimulateCommand::Swarm(args) => simulate_swarm(args, report),
    }
}

fn simulate_dht(args: &DhtArgs, report: &Report) -> Result<(), Failure> {
    let scenario = dht_scenario(args);
    let span = scenario.plan.arrivals + scenario.plan.settling + scenario.plan.rest + scenario.plan.work;
    if scenario.trials > 0 && scenario.plan.work < scenario.plan.gap {
        let gap = show_duration(scenario.plan.gap);
        return Err(Failure::Usage(format!("--work is at least {gap}: an announce is looked up after that")));
    }
    let since = clock::now();
    let meter = report.meter(span.as_secs());
    let result = dht::Overlay::new(scenario.clone()).run(|virtual_time| {
        meter.update(
            virtual_time.as_secs().min(span.as_secs()),
            || format!("simulating: {} of {}", show_duration(virtual_time), show_duration(span)),
            || json!({"event": "simulating", "seconds": virtual_time.as_secs(), "of": span.as_secs()}),
        );
    });
    drop(meter);
    let real = clock::now().duration_since(since);
    report.say(&dht_table(&scenario, &result, real));
    report.event(&dht_event(&scenario, &result, real));
    Ok(())
}

fn dht_scenario(args: &DhtArgs) -> DhtScenario {
    let after = Duration::from_secs(300);
    let within = Duration::from_secs(60);
    let restart = (args.restart > 0.0).then_some(Disaster::Restart { after, share: args.restart, within });
    let partition = args.partition.map(|span| Disaster::Partition { after, span });
    let mut scenario = DhtScenario {
        seed: args.seed,
        nodes: args.nodes as usize,
        weather: Weather { latency: args.latency, loss: args.loss, nat: args.nat },
        churn: args.churn,
        trials: args.lookups as usize,
        enemies: Enemies {
            share: args.sybil,
            attack: match args.attack {
                AttackArg::Gather => Attack::Gather,
                AttackArg::GatherFitting => Attack::GatherFitting,
                AttackArg::OneId => Attack::OneId,
            },
            forgeries: args.forgeries,
        },
        disaster: restart.or(partition),
        ..DhtScenario::default()
    };
    scenario.plan.rest = args.rest;
    scenario.plan.work = args.work;
    scenario
}

/// A line of the table: a name and its figures.
fn line(name: &str, figures: &str) -> String {
    format!("{name:<22} {figures}\n")
}

/// A quantity's figures, with so many digits after the point.
fn figures(spread: &Spread, digits: usize) -> String {
    let Spread { mean, median, p99, max, .. } = spread;
    format!("{mean:>10.digits$} {median:>10.digits$} {p99:>10.digits$} {max:>10.digits$}")
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn dht_table(scenario: &DhtScenario, result: &DhtReport, real: Duration) -> String {
    let (lookups, rest, tables) = (&result.lookups, &result.rest, &result.tables);
    let mut text = format!("{:<22} {:>10} {:>10} {:>10} {:>10}\n", "", "mean", "median", "p99", "max");
    text += &line("hops", &figures(&lookups.hops, 2));
    text += &line("seconds to find", &figures(&lookups.found_seconds, 2));
    text += &line("seconds to the end", &figures(&lookups.done_seconds, 2));
    text += &line("queries a lookup", &figures(&lookups.queries, 1));
    text += &line("queries an announce", &figures(&lookups.announce_queries, 1));
    text += &line("copies stored", &figures(&lookups.stored, 1));
    text += &line("at rest out, B/s", &figures(&rest.sent, 1));
    text += &line("at rest in, B/s", &figures(&rest.received, 1));
    text += &line("nodes known", &figures(&tables.nodes, 1));
    text += &line("of these good", &figures(&tables.good, 1));
    text += &line("overlay's size, guess", &figures(&tables.size_estimate, 0));
    if scenario.disaster.is_some() {
        text += &line("worst minute, B/s", &figures(&result.peak.rate, 1));
        text += &line("worst minute / rest", &figures(&result.peak.ratio, 1));
        text += &line("worst / mean's rest", &figures(&result.peak.ratio_to_mean, 1));
    }
    let all = lookups.all;
    text += &line("found", &format!("{} of {}, {}", all.found, all.done, percent(all.share())));
    if scenario.disaster.is_some() {
        text += &minutes_line(result);
    }
    let bound = scenario.hops_bound();
    text += &line("theory", &format!("log2({}) / 3 = {bound:.2} hops", scenario.nodes));
    text += &line(
        "load on the reachable",
        &format!("Gini {:.2}; p99 {:.1} times the mean", rest.gini, ratio(&rest.received)),
    );
    text += &line(
        "kept as good",
        &format!(
            "{} gone, {} behind a NAT, {} hostile; {} of all nodes read-only",
            percent(tables.dead),
            percent(tables.behind_nat),
            percent(tables.hostile),
            percent(tables.read_only)
        ),
    );
    if scenario.enemies.forgeries > 0 {
        let counts = result.forgeries;
        let told = format!(
            "{} of {} tokens, {} of {} replies accepted",
            counts.tokens_accepted, counts.tokens_sent, counts.replies_accepted, counts.replies_sent
        );
        text += &line("forgeries", &told);
    }
    let (events, seconds) = (result.event_count, real.as_secs_f64());
    let virtual_time = show_duration(Duration::from_micros(result.ended_at.as_micros()));
    text += &line("simulated", &format!("{virtual_time} in {seconds:.1} s, {events} events"));
    text + line("trace", &format!("{:016x}", result.trace_digest)).trim_end()
}

/// How the lookups of each minute went.
fn minutes_line(result: &DhtReport) -> String {
    let share = |minute: &[dht::report::Tally; 2]| {
        let both: dht::report::Tally = minute.iter().copied().sum();
        if both.done == 0 { "-".to_owned() } else { format!("{:.0}", both.share() * 100.0) }
    };
    let shares: Vec<String> = result.lookups.minutes.iter().map(share).collect();
    line("found by minute, %", &shares.join(" "))
}

fn ratio(spread: &Spread) -> f64 {
    if spread.mean > 0.0 { spread.p99 / spread.mean } else { 0.0 }
}

fn dht_event(scenario: &DhtScenario, result: &DhtReport, real: Duration) -> Value {
    let spread = |spread: &Spread| {
        json!({
            "count": spread.count, "mean": spread.mean, "median": spread.median, "p99": spread.p99,
            "max": spread.max,
        })
    };
    let (lookups, rest, tables) = (&result.lookups, &result.rest, &result.tables);
    let minute = |minute: &[dht::report::Tally; 2]| {
        let [same, other] = minute;
        json!({"done": same.done + other.done, "found": same.found + other.found,
            "across_done": other.done, "across_found": other.found})
    };
    json!({
        "event": "simulated", "what": "dht", "nodes": scenario.nodes, "hostile": scenario.hostile_count(),
        "seed": scenario.seed, "trace": format!("{:016x}", result.trace_digest),
        "lookups": {
            "done": lookups.all.done, "found": lookups.all.found, "hops": spread(&lookups.hops),
            "hops_bound": scenario.hops_bound(), "found_seconds": spread(&lookups.found_seconds),
            "done_seconds": spread(&lookups.done_seconds), "queries": spread(&lookups.queries),
            "announce_queries": spread(&lookups.announce_queries), "stored": spread(&lookups.stored),
            "minutes": lookups.minutes.iter().map(minute).collect::<Vec<_>>(),
        },
        "rest": {"sent": spread(&rest.sent), "received": spread(&rest.received), "gini": rest.gini},
        "tables": {
            "nodes": spread(&tables.nodes), "good": spread(&tables.good),
            "size_estimate": spread(&tables.size_estimate), "read_only": tables.read_only,
            "dead": tables.dead, "behind_nat": tables.behind_nat, "hostile": tables.hostile,
        },
        "peak": {
            "rate": spread(&result.peak.rate), "ratio": spread(&result.peak.ratio),
            "ratio_to_mean": spread(&result.peak.ratio_to_mean),
        },
        "forgeries": {
            "tokens_sent": result.forgeries.tokens_sent, "tokens_accepted": result.forgeries.tokens_accepted,
            "replies_sent": result.forgeries.replies_sent,
            "replies_accepted": result.forgeries.replies_accepted,
        },
        "events": result.event_count, "datagrams": result.datagram_count,
        "virtual_seconds": result.ended_at.as_micros() as f64 / 1e6, "seconds": real.as_secs_f64(),
    })
}

fn simulate_swarm(args: &SwarmArgs, report: &Report) -> Result<(), Failure> {
    let piece_len = if args.piece_size == PieceLen(0) { 64 << 10 } else { args.piece_size.0 };
    let piece_count = u32::try_from(args.size.div_ceil(u64::from(piece_len))).ok().filter(|&count| count > 0);
    let (Some(piece_count), Some(up_rate), Some(down_rate)) = (piece_count, args.up_rate.0, args.down_rate.0)
    else {
        return Err(Failure::Usage("a swarm needs content, and rates above 0".to_owned()));
    };
    let peer_line = Line { up_rate, down_rate };
    let scenario = Scenario {
        seed: args.seed,
        piece_count,
        piece_len,
        seeds: args.seeds.into(),
        peers: args.peers.into(),
        free_riders: args.free_riders.into(),
        seed_line: peer_line,
        peer_line,
        latency: args.latency,
        loss: args.loss,
        ..Scenario::default()
    };
    let since = clock::now();
    let result = Swarm::new(scenario.clone()).run(SWARM_TIME_MAX);
    let real = clock::now().duration_since(since).as_secs_f64();
    let Some(took) = result.completion() else {
        return Err(Failure::Failed(format!(
            "not everybody completed within {}",
            show_duration(SWARM_TIME_MAX)
        )));
    };
    let (seconds, bound) = (took.as_secs_f64(), result.bound.as_secs_f64());
    let uploaded: u64 =
        result.hosts.iter().filter(|host| host.role == Role::Seed).map(|host| host.uploaded).sum();
    let copies = uploaded as f64 / scenario.total_len() as f64;
    report.say(&format!(
        "{} of {} to {} peers at {}: {seconds:.1} s, {:.2} times the bound of {bound:.1} s; the seeds sent \
         {copies:.2} copies\nsimulated in {real:.1} s, {} events, trace {:016x}",
        show_len(scenario.total_len()),
        super::text::counted(scenario.seeds, "seed"),
        scenario.peers,
        show_rate(up_rate),
        seconds / bound,
        result.event_count,
        result.trace_digest
    ));
    report.event(&json!({
        "event": "simulated", "what": "swarm", "peers": scenario.peers, "seeds": scenario.seeds,
        "seed": scenario.seed, "completed_seconds": seconds, "bound_seconds": bound, "copies": copies,
        "events": result.event_count, "seconds": real, "trace": format!("{:016x}", result.trace_digest),
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_spans_are_within_their_bounds() {
        assert_eq!(parse_share("0.6"), Ok(0.6));
        for wrong in ["-0.1", "1.1", "NaN", "much"] {
            assert!(parse_share(wrong).is_err(), "{wrong}");
        }
        assert!(parse_span("60m").is_ok() && parse_span("31d").is_err());
    }
}
