//! `sprat dht node`: a node by itself, for others to begin at, with its figures as they change.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::clock;
use super::dht_args::NodeArgs;
use super::failure::Failure;
use super::interrupt::{Interrupts, Signal};
use super::plan::{self, PORT_USUAL};
use super::report::Report;
use super::runtime;
use super::size::show_rate;
use super::text::counted;
use crate::engine::Config;
use crate::engine::dht::{DhtHandle, OverlaySnapshot, Snapshot};

/// Runs until told to stop.
pub(super) fn run(args: &NodeArgs, report: &Report) -> Result<(), Failure> {
    runtime::block_on(async {
        let mut interrupts = Interrupts::catch()?;
        let config = Config {
            port: args.port.unwrap_or(PORT_USUAL),
            dht: Some(plan::dht(&args.bootstrap)),
            ..Config::default()
        };
        let engine = plan::start(&config, args.port.is_some()).await?;
        let port = engine.listen_port();
        report
            .say(&format!("DHT node on port {port}; others begin at it with --dht-bootstrap ADDRESS:{port}"));
        report.event(&json!({"event": "started", "port": port}));
        let result = match engine.dht() {
            Some(dht) => watch(&dht, args.every, report, &mut interrupts).await,
            None => Err(Failure::Failed("the engine has no DHT node".to_owned())),
        };
        interrupts.unless(engine.shutdown()).await;
        result?.end_of_service()
    })
}

/// Prints figures until a signal comes.
async fn watch(
    dht: &DhtHandle,
    every: Duration,
    report: &Report,
    interrupts: &mut Interrupts,
) -> Result<Signal, Failure> {
    let mut ticks = tokio::time::interval(every);
    let mut last = (clock::now(), dht.snapshot().await?);
    loop {
        tokio::select! {
            signal = interrupts.next() => return Ok(signal),
            _ = ticks.tick() => {}
        }
        let present = (clock::now(), dht.snapshot().await?);
        let rates = Rates::between(&last, &present);
        report.say(&line(&present.1, &rates));
        report.event(&event(&present.1, &rates));
        last = present;
    }
}

/// What happened in a second between two looks.
struct Rates {
    received: u64,
    sent: u64,
    queries: u64,
}

impl Rates {
    fn between(last: &(Instant, Snapshot), present: &(Instant, Snapshot)) -> Self {
        let seconds = present.0.duration_since(last.0).as_secs_f64().max(0.001);
        let rate = |before: u64, now: u64| (now.saturating_sub(before) as f64 / seconds).round() as u64;
        let (last, present) = (&last.1, &present.1);
        let queries = |(answered, dropped, refused): (u64, u64, u64)| answered + dropped + refused;
        Self {
            received: rate(last.received.1, present.received.1),
            sent: rate(last.sent.1, present.sent.1),
            queries: rate(queries(last.queries), queries(present.queries)),
        }
    }
}

fn line(snapshot: &Snapshot, rates: &Rates) -> String {
    let overlay = |overlay: &OverlaySnapshot| {
        let family = if overlay.is_v6 { "IPv6" } else { "IPv4" };
        format!("{family} {} ({} good)", counted(overlay.nodes.0, "node"), overlay.nodes.1)
    };
    let overlays: Vec<String> = snapshot.overlays.iter().map(overlay).collect();
    let (torrents, peers) = snapshot.stored_peers;
    format!(
        "{}; {} in, {} out, {} queries/s; keeps {} of {} and {}{}",
        overlays.join(", "),
        show_rate(rates.received),
        show_rate(rates.sent),
        rates.queries,
        counted(peers, "peer"),
        counted(torrents, "torrent"),
        counted(snapshot.stored_items, "item"),
        if snapshot.read_only { "; not reached from outside yet" } else { "" }
    )
}

/// The same for programs; counts are from the start on.
fn event(snapshot: &Snapshot, rates: &Rates) -> Value {
    let overlay = |overlay: &OverlaySnapshot| {
        json!({
            "family": if overlay.is_v6 { 6 } else { 4 }, "id": overlay.id.to_string(),
            "external": overlay.external.map(|addr| addr.to_string()),
            "nodes": overlay.nodes.0, "good": overlay.nodes.1, "size_estimate": overlay.size_estimate,
        })
    };
    let overlays: Vec<Value> = snapshot.overlays.iter().map(overlay).collect();
    let (answered, dropped, refused) = snapshot.queries;
    json!({
        "event": "node", "overlays": overlays,
        "receive_rate": rates.received, "send_rate": rates.sent, "query_rate": rates.queries,
        "received": {"datagrams": snapshot.received.0, "bytes": snapshot.received.1},
        "sent": {"datagrams": snapshot.sent.0, "bytes": snapshot.sent.1},
        "queries": {"answered": answered, "dropped": dropped, "refused": refused},
        "torrents": snapshot.stored_peers.0, "peers": snapshot.stored_peers.1, "items": snapshot.stored_items,
        "lookups": snapshot.lookups, "read_only": snapshot.read_only,
    })
}
