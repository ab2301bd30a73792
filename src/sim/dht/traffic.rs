//! What a host sends and receives, in bytes on the wire: IPv4 and UDP headers are counted too.

use super::report::{Peak, Rest, Spread, gini};
use crate::proto::time::Duration;

/// IPv4 and UDP headers of a datagram, bytes.
const HEADERS_LEN: u64 = 20 + 8;

/// Datagrams and bytes one way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
}

impl Flow {
    fn count(&mut self, len: usize) {
        self.datagrams += 1;
        self.bytes += len as u64 + HEADERS_LEN;
    }
}

/// A host's books. They go on when somebody else takes the host's place: what is measured is the
/// cost of taking part, arrivals included.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: Flow,
    pub(super) received: Flow,
    rest_mark: [u64; 2],
    /// Bytes a second out and in while nobody asked for anything.
    rest: [f64; 2],
    minute_mark: u64,
    /// Most bytes of one minute, both ways, after the disaster.
    peak: u64,
    /// It was asked for something of its own this minute.
    is_busy: bool,
}

impl Traffic {
    pub(super) fn sends(&mut self, len: usize) {
        self.sent.count(len);
    }

    pub(super) fn receives(&mut self, len: usize) {
        self.received.count(len);
    }

    pub(super) fn rest_begins(&mut self) {
        self.rest_mark = self.totals();
    }

    pub(super) fn rest_ends(&mut self, span: Duration) {
        let (totals, seconds) = (self.totals(), span.as_secs_f64().max(1.0));
        self.rest = [0, 1].map(|way| (totals[way] - self.rest_mark[way]) as f64 / seconds);
    }

    /// Bytes a second out and in at rest.
    pub(super) fn at_rest(&self) -> [f64; 2] {
        self.rest
    }

    /// This minute is no measure of what a disaster does.
    pub(super) fn is_busy(&mut self) {
        self.is_busy = true;
    }

    /// A minute is over; whether it counts as one after a disaster.
    pub(super) fn minute_ends(&mut self, is_after_disaster: bool) {
        let total: u64 = self.totals().iter().sum();
        if is_after_disaster && !self.is_busy {
            self.peak = self.peak.max(total - self.minute_mark);
        }
        self.minute_mark = total;
        self.is_busy = false;
    }

    /// Most bytes a second over a minute after the disaster, both ways.
    pub(super) fn peak(&self) -> f64 {
        self.peak as f64 / 60.0
    }

    fn totals(&self) -> [u64; 2] {
        [self.sent.bytes, self.received.bytes]
    }
}

/// What these hosts cost at rest; the load is compared among those that strangers reach.
pub(super) fn rest<'a>(
    hosts: impl Iterator<Item = &'a Traffic> + Clone,
    reachable: impl Iterator<Item = &'a Traffic>,
) -> Rest {
    let way = |way: usize| Spread::of(hosts.clone().map(|traffic| traffic.at_rest()[way]).collect());
    let loads = reachable.map(|traffic| traffic.at_rest().iter().sum());
    Rest { sent: way(0), received: way(1), gini: gini(loads.collect()) }
}

/// What a disaster did to these hosts, beside what they cost at rest.
pub(super) fn peak<'a>(hosts: impl Iterator<Item = &'a Traffic> + Clone, rest: &Rest) -> Peak {
    let mean = (rest.sent.mean + rest.received.mean).max(1.0);
    let rates: Vec<f64> = hosts.clone().map(Traffic::peak).collect();
    let ratios = hosts.map(|traffic| traffic.peak() / traffic.at_rest().iter().sum::<f64>().max(1.0));
    Peak {
        ratio: Spread::of(ratios.collect()),
        ratio_to_mean: Spread::of(rates.iter().map(|rate| rate / mean).collect()),
        rate: Spread::of(rates),
    }
}
