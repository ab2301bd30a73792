//! `sprat dht`: questions to the DHT, asked by a node that joins for as long as they take.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout_at};

use super::clock;
use super::dht_args::{AnnounceArgs, AskArgs, DhtArgs, DhtCommand, PeersArgs};
use super::failure::Failure;
use super::interrupt::Interrupts;
use super::plan;
use super::report::Report;
use super::runtime;
use super::size::show_duration;
use super::text::{counted, printable};
use super::{dht_items, dht_node};
use crate::engine::dht::{Announce, DhtHandle, DhtRequest, Found, Outcome, ReadOnly};
use crate::engine::{Config, DhtConfig, Engine, EngineError, address};

/// Does what the command says.
pub(crate) fn run(args: &DhtArgs, report: &Report) -> Result<(), Failure> {
    match &args.command {
        DhtCommand::Node(args) => dht_node::run(args, report),
        DhtCommand::Peers(args) => ask(&args.ask, args.port, async |asker| peers(args, &asker, report).await),
        DhtCommand::Announce(args) => ask(&args.ask, 0, async |asker| announce(args, &asker, report).await),
        DhtCommand::Get(args) => {
            ask(&args.ask, args.port, async |asker| dht_items::find(args, &asker, report).await)
        }
        DhtCommand::Put(args) => {
            // What is wrong with the item is told before anybody is asked.
            let draft = dht_items::draft(args, report)?;
            ask(&args.ask, args.port, async |asker| dht_items::store(args, draft, &asker, report).await)
        }
    }
}

/// A node for one question.
pub(super) struct Asker {
    dht: DhtHandle,
    timeout: Duration,
    until: Instant,
}

/// Starts a node, asks, and stops the node.
fn ask(
    args: &AskArgs,
    port: u16,
    question: impl AsyncFnOnce(Asker) -> Result<(), Failure>,
) -> Result<(), Failure> {
    runtime::block_on(async {
        let mut interrupts = Interrupts::catch()?;
        // It leaves in a moment: other nodes need not add it to their tables.
        let dht = DhtConfig { read_only: ReadOnly::Always, ..plan::dht(&args.bootstrap) };
        // Without a way out by IPv6, that family's nodes would be waited for in vain.
        let listen =
            if address::reaches_ipv6() { Vec::new() } else { vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)] };
        let engine = Engine::start(Config { port, listen, dht: Some(dht), ..Config::default() }).await?;
        let Some(dht) = engine.dht() else {
            return Err(Failure::Failed("the engine has no DHT node".to_owned()));
        };
        let until = Instant::from_std(clock::now() + args.timeout);
        let result = tokio::select! {
            signal = interrupts.next() => Err(Failure::Interrupted(signal)),
            result = question(Asker { dht, timeout: args.timeout, until }) => result,
        };
        interrupts.unless(engine.shutdown()).await;
        result
    })
}

impl Asker {
    /// Asks, and hands every finding to `found`; how it went.
    pub(super) async fn ask(
        &self,
        request: DhtRequest,
        mut found: impl FnMut(Found),
    ) -> Result<Outcome, Failure> {
        let mut search = self.dht.start(request).await?;
        let done = async {
            loop {
                match search.next().await? {
                    Found::Done(outcome) => return Some(outcome),
                    finding @ (Found::Peers { .. } | Found::Item(_)) => found(finding),
                }
            }
        };
        let Ok(done) = timeout_at(self.until, done).await else {
            let time = show_duration(self.timeout);
            return Err(Failure::Failed(format!("not done in {time}; give it more time with --timeout")));
        };
        let outcome = done.ok_or(EngineError::Stopped)?;
        if outcome.answered == 0 {
            return Err(Failure::Failed(
                "no DHT node answered; name one that does with --dht-bootstrap".to_owned(),
            ));
        }
        Ok(outcome)
    }
}

async fn peers(args: &PeersArgs, asker: &Asker, report: &Report) -> Result<(), Failure> {
    let request = DhtRequest::Peers { infohash: args.infohash, announce: None, scrape: args.scrape };
    let mut seen = BTreeSet::new();
    let print = |found| {
        let Found::Peers { peers, .. } = found else { return };
        for peer in peers.into_iter().filter(|&peer| seen.insert(peer)) {
            report.say(&peer.to_string());
            report.event(&json!({"event": "peer", "addr": peer.to_string()}));
        }
    };
    let outcome = asker.ask(request, print).await?;
    let (seeds, downloaders) = outcome.scrape.unzip();
    report.event(&json!({
        "event": "done", "peers": seen.len(), "asked": outcome.asked, "answered": outcome.answered,
        "hops": outcome.hops, "seconds": outcome.took.as_secs_f64(), "seeds": seeds, "downloaders": downloaders,
    }));
    if seen.is_empty() {
        return Err(Failure::Failed(format!("no peers found for {}: {}", args.infohash, effort(&outcome))));
    }
    let estimate = outcome
        .scrape
        .map(|(seeds, downloaders)| format!("; about {seeds} seeds and {downloaders} downloaders in all"));
    report.note(&format!(
        "{}: {}{}",
        counted(seen.len(), "peer"),
        effort(&outcome),
        estimate.unwrap_or_default()
    ));
    Ok(())
}

async fn announce(args: &AnnounceArgs, asker: &Asker, report: &Report) -> Result<(), Failure> {
    let announce = Announce { port: Some(args.port), seed: args.seed };
    let request = DhtRequest::Peers { infohash: args.infohash, announce: Some(announce), scrape: false };
    let mut others = BTreeSet::new();
    let count = |found| {
        if let Found::Peers { peers, .. } = found {
            others.extend(peers);
        }
    };
    let outcome = asker.ask(request, count).await?;
    require_stored(&outcome)?;
    report.event(&json!({
        "event": "announced", "infohash": args.infohash.to_string(), "port": args.port,
        "nodes": outcome.stored, "peers": others.len(),
    }));
    report.say(&format!(
        "{} now name port {} of this machine for {}; {} found there",
        counted(outcome.stored as usize, "node"),
        args.port,
        args.infohash,
        counted(others.len(), "peer")
    ));
    Ok(())
}

/// Refuses to call it done if no node took what was to be stored.
pub(super) fn require_stored(outcome: &Outcome) -> Result<(), Failure> {
    if outcome.stored > 0 {
        return Ok(());
    }
    let why = outcome.refused.as_ref().map(|words| format!("; one said: {}", printable(words)));
    Err(Failure::Failed(format!("no node took it: {}{}", effort(outcome), why.unwrap_or_default())))
}

/// What a question cost, in words.
pub(super) fn effort(outcome: &Outcome) -> String {
    let seconds = outcome.took.as_secs_f64();
    format!("{} of {} nodes answered, {seconds:.1} s", outcome.answered, outcome.asked)
}
