//! The simulated network: hosts with an uplink and a downlink, and connections between them.
//!
//! What a host sends leaves by its uplink one segment at a time, its connections taking turns;
//! after the latency it passes the receiver's downlink one segment at a time, and what one
//! connection sent arrives in order. A connection has a window, so that a slow receiver slows its
//! sender and not the sender's others. A lost segment is one that comes a retransmission later.
//!
//! Invariants: content bytes sent are delivered, dropped at a closed end, or under way; no line
//! carries more than its rate. It does not know what messages mean.

use std::collections::VecDeque;

use super::content::Tag;
use crate::proto::block::{BLOCK_LEN, Block};
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::wire::message::{BLOCK_HEADER_LEN, Message};

/// A host's number.
pub(super) type HostId = usize;
/// A connection's number.
pub(super) type LinkId = usize;

/// Small messages are gathered into segments of at most this many bytes; a block fills one alone.
const SEGMENT_LEN_MAX: u64 = BLOCK_LEN as u64;
/// Least bytes of one connection under way: four blocks, so that no line stands still at short
/// latencies.
const WINDOW_LEN_MIN: u64 = 4 * (BLOCK_LEN as u64 + BLOCK_HEADER_LEN as u64);

/// A host's connection to the network, bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Out of the host.
    pub up_rate: u64,
    /// Into the host.
    pub down_rate: u64,
}

/// What a connection carries.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    Message(Message),
    Block(Block, Tag),
    /// The sender closed.
    Close,
}

impl Parcel {
    fn len(&self) -> u64 {
        match self {
            Self::Message(message) => message.encoded_len() as u64,
            Self::Block(block, _) => u64::from(block.len) + BLOCK_HEADER_LEN as u64,
            Self::Close => 0,
        }
    }

    fn content_len(&self) -> u64 {
        match self {
            Self::Block(block, _) => u64::from(block.len),
            Self::Message(_) | Self::Close => 0,
        }
    }
}

/// Parcels of one connection that travel together.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) link: LinkId,
    /// Which end sent it, 0 or 1.
    pub(super) from_end: usize,
    pub(super) parcels: Vec<Parcel>,
    len: u64,
}

impl Segment {
    /// Blocks in it, and their bytes.
    pub(super) fn content(&self) -> (usize, u64) {
        let lens = self.parcels.iter().map(Parcel::content_len).filter(|&len| len > 0);
        lens.fold((0, 0), |(count, sum), len| (count + 1, sum + len))
    }
}

/// What the network will have to be told at its time.
#[derive(Debug)]
pub(super) enum Transit {
    /// The host's uplink has sent its segment: [`Network::uplink_free`].
    UplinkFree(HostId),
    /// A segment reaches the receiver's downlink: [`Network::arrive`].
    Arrive(Segment),
    /// It passed the downlink: [`Network::deliver`].
    Deliver(Segment),
}

#[derive(Debug, Default)]
struct Direction {
    waiting: VecDeque<Parcel>,
    under_way: u64,
    /// Whether it stands in its uplink's turns.
    in_turn: bool,
    /// When its last segment arrives: none overtakes another.
    arrives_at: Instant,
    /// Whether the receiving end is closed.
    deaf: bool,
}

#[derive(Debug)]
struct Link {
    hosts: [HostId; 2],
    latency: Duration,
    window: u64,
    directions: [Direction; 2],
}

#[derive(Debug)]
struct HostLine {
    line: Line,
    sending: Option<Segment>,
    turns: VecDeque<(LinkId, usize)>,
    downlink_free_at: Instant,
    carried_up: u64,
    carried_down: u64,
}

/// Content bytes by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Conservation {
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) dropped: u64,
    pub(super) under_way: u64,
}

/// All lines and connections.
#[derive(Debug)]
pub(super) struct Network {
    lines: Vec<HostLine>,
    links: Vec<Link>,
    loss: f64,
    rng: Rng,
    content: Conservation,
}

impl Network {
    pub(super) fn new(lines: impl Iterator<Item = Line>, loss: f64, rng: Rng) -> Self {
        let line = |line| HostLine {
            line,
            sending: None,
            turns: VecDeque::new(),
            downlink_free_at: Instant::ZERO,
            carried_up: 0,
            carried_down: 0,
        };
        let lines = lines.map(line).collect();
        Self { lines, links: Vec::new(), loss, rng, content: Conservation::default() }
    }

    /// A connection between two hosts, `hosts[0]` the one that dialled.
    pub(super) fn connect(&mut self, hosts: [HostId; 2], latency: Duration) -> LinkId {
        let rate = hosts.map(|host| self.lines[host].line.up_rate.max(self.lines[host].line.down_rate));
        let in_round_trip = u128::from(rate[0].min(rate[1])) * latency.as_micros() * 2 / 1_000_000;
        let window = (2 * in_round_trip as u64).max(WINDOW_LEN_MIN);
        self.links.push(Link { hosts, latency, window, directions: Default::default() });
        self.links.len() - 1
    }

    /// The host at an end of a connection.
    pub(super) fn host_at(&self, link: LinkId, end: usize) -> HostId {
        self.links[link].hosts[end]
    }

    /// Hands a parcel to the sender's uplink.
    pub(super) fn send(
        &mut self,
        now: Instant,
        link: LinkId,
        end: usize,
        parcel: Parcel,
    ) -> Option<(Instant, Transit)> {
        self.links[link].directions[end].waiting.push_back(parcel);
        self.take_turn(link, end);
        self.start(now, self.links[link].hosts[end])
    }

    /// An end closes: what it has not sent is dropped, what comes to it is not heard.
    pub(super) fn close(&mut self, now: Instant, link: LinkId, end: usize) -> Option<(Instant, Transit)> {
        self.links[link].directions[end].waiting.clear();
        self.links[link].directions[1 - end].deaf = true;
        self.send(now, link, end, Parcel::Close)
    }

    fn take_turn(&mut self, link: LinkId, end: usize) {
        let Link { hosts, window, directions, .. } = &mut self.links[link];
        let direction = &mut directions[end];
        if !direction.in_turn && !direction.waiting.is_empty() && direction.under_way < *window {
            direction.in_turn = true;
            self.lines[hosts[end]].turns.push_back((link, end));
        }
    }

    /// Begins to send the next segment, if the uplink is free and something waits.
    fn start(&mut self, now: Instant, host: HostId) -> Option<(Instant, Transit)> {
        if self.lines[host].sending.is_some() {
            return None;
        }
        let (link, end) = self.lines[host].turns.pop_front()?;
        let direction = &mut self.links[link].directions[end];
        direction.in_turn = false;
        let mut segment = Segment { link, from_end: end, parcels: Vec::new(), len: 0 };
        while let Some(parcel) = direction.waiting.front()
            && (segment.parcels.is_empty() || segment.len + parcel.len() <= SEGMENT_LEN_MAX)
        {
            segment.len += parcel.len();
            self.content.sent += parcel.content_len();
            self.content.under_way += parcel.content_len();
            segment.parcels.extend(direction.waiting.pop_front());
        }
        direction.under_way += segment.len;
        self.take_turn(link, end);
        let line = &mut self.lines[host];
        line.carried_up += segment.len;
        let done_at = now + transmission(segment.len, line.line.up_rate);
        line.sending = Some(segment);
        Some((done_at, Transit::UplinkFree(host)))
    }

    /// The uplink has sent its segment, whose blocks have thereby left the sender: what it was, and
    /// what comes of it.
    pub(super) fn uplink_free(
        &mut self,
        now: Instant,
        host: HostId,
    ) -> (SentContent, Vec<(Instant, Transit)>) {
        let segment = self.lines[host].sending.take().expect("the uplink was busy until now");
        let (block_count, content_len) = segment.content();
        let sent = SentContent { link: segment.link, end: segment.from_end, block_count, content_len };
        let link = &mut self.links[segment.link];
        let lost = self.loss > 0.0 && self.rng.unit() < self.loss;
        let delay = if lost { link.latency * 4 } else { link.latency };
        let direction = &mut link.directions[segment.from_end];
        direction.arrives_at = direction.arrives_at.max(now + delay);
        let mut next = vec![(direction.arrives_at, Transit::Arrive(segment))];
        next.extend(self.start(now, host));
        (sent, next)
    }

    /// A segment queues at the receiver's downlink.
    pub(super) fn arrive(&mut self, now: Instant, segment: Segment) -> (Instant, Transit) {
        let receiver = self.links[segment.link].hosts[1 - segment.from_end];
        let line = &mut self.lines[receiver];
        line.carried_down += segment.len;
        line.downlink_free_at =
            line.downlink_free_at.max(now) + transmission(segment.len, line.line.down_rate);
        (line.downlink_free_at, Transit::Deliver(segment))
    }

    /// A segment reached the receiver: its parcels (none if that end is closed), and what its
    /// sender's uplink does with the room in the window.
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        segment: Segment,
    ) -> (Vec<Parcel>, Option<(Instant, Transit)>) {
        let (_, content_len) = segment.content();
        let (link, end) = (segment.link, segment.from_end);
        self.links[link].directions[end].under_way -= segment.len;
        self.content.under_way -= content_len;
        let deaf = self.links[link].directions[end].deaf;
        let parcels = if deaf { Vec::new() } else { segment.parcels };
        if deaf {
            self.content.dropped += content_len;
        } else {
            self.content.delivered += content_len;
        }
        self.take_turn(link, end);
        let next = self.start(now, self.links[link].hosts[end]);
        (parcels, next)
    }

    /// A delivered parcel came to nobody.
    pub(super) fn unheard(&mut self, parcel: &Parcel) {
        self.content.delivered -= parcel.content_len();
        self.content.dropped += parcel.content_len();
    }

    /// Content bytes by what became of them.
    pub(super) fn content(&self) -> Conservation {
        self.content
    }

    /// No line carried more than its rate allows since the start, but for the segment it is on.
    pub(super) fn check_rates(&self, now: Instant) {
        for (host, line) in self.lines.iter().enumerate() {
            let most = |rate: u64| {
                (u128::from(rate) * u128::from(now.as_micros()) / 1_000_000) as u64 + 2 * SEGMENT_LEN_MAX
            };
            assert!(
                line.carried_up <= most(line.line.up_rate),
                "host {host} sent more than its uplink carries"
            );
            let down = line.carried_down.saturating_sub(most(line.line.down_rate));
            let queued = line.downlink_free_at - now;
            let queued_len = u128::from(line.line.down_rate) * queued.as_micros() / 1_000_000;
            assert!(
                u128::from(down) <= queued_len + 1,
                "host {host} received more than its downlink carries"
            );
        }
    }
}

/// Blocks that left a sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentContent {
    pub(super) link: LinkId,
    pub(super) end: usize,
    pub(super) block_count: usize,
    pub(super) content_len: u64,
}

fn transmission(len: u64, rate: u64) -> Duration {
    let micros = (u128::from(len) * 1_000_000).div_ceil(u128::from(rate.max(1)));
    Duration::from_micros(micros as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::queue::Queue;

    const LATENCY: Duration = Duration::from_millis(10);

    /// What reached which host, and when.
    struct Arrival {
        at: Instant,
        host: HostId,
        parcels: Vec<Parcel>,
    }

    /// Runs the network to its end.
    fn drain(network: &mut Network, mut queue: Queue<Transit>) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        while let Some((now, transit)) = queue.pop() {
            let next = match transit {
                Transit::UplinkFree(host) => network.uplink_free(now, host).1,
                Transit::Arrive(segment) => vec![network.arrive(now, segment)],
                Transit::Deliver(segment) => {
                    let host = network.host_at(segment.link, 1 - segment.from_end);
                    let (parcels, next) = network.deliver(now, segment);
                    arrivals.push(Arrival { at: now, host, parcels });
                    next.into_iter().collect()
                }
            };
            next.into_iter().for_each(|(at, transit)| queue.push(at, transit));
            network.check_rates(now);
            let Conservation { sent, delivered, dropped, under_way } = network.content();
            assert_eq!(sent, delivered + dropped + under_way);
        }
        arrivals
    }

    fn network(lines: &[(u64, u64)], loss: f64) -> Network {
        let lines = lines.iter().map(|&(up_rate, down_rate)| Line { up_rate, down_rate });
        Network::new(lines, loss, Rng::from_number(1))
    }

    fn send(network: &mut Network, queue: &mut Queue<Transit>, link: LinkId, count: u32) {
        for piece in 0..count {
            let block = Block { piece, offset: 0, len: BLOCK_LEN };
            let next = network.send(Instant::ZERO, link, 0, Parcel::Block(block, 0));
            next.into_iter().for_each(|(at, transit)| queue.push(at, transit));
        }
    }

    #[test]
    fn connections_share_an_uplink_and_a_slow_receiver_slows_only_itself() {
        let mut network = network(&[(1_000_000, 1), (1, 2_000_000), (1, 100_000)], 0.0);
        let mut queue = Queue::new();
        for receiver in [1, 2] {
            let link = network.connect([0, receiver], LATENCY);
            send(&mut network, &mut queue, link, 100);
        }
        let arrivals = drain(&mut network, queue);
        let last = |host| arrivals.iter().rfind(|arrival| arrival.host == host).unwrap().at.as_micros();
        let (fast, slow) = (last(1), last(2));
        assert!((1_600_000..2_000_000).contains(&fast), "nearly the whole uplink: {fast}");
        assert!((16_300_000..17_000_000).contains(&slow), "its own downlink: {slow}");
    }

    #[test]
    fn order_is_kept_even_when_segments_are_lost() {
        let mut network = network(&[(1_000_000, 1), (1, 1_000_000)], 0.3);
        let mut queue = Queue::new();
        let link = network.connect([0, 1], LATENCY);
        send(&mut network, &mut queue, link, 200);
        let arrivals = drain(&mut network, queue);
        let pieces: Vec<u32> = arrivals
            .iter()
            .flat_map(|arrival| &arrival.parcels)
            .map(|parcel| match parcel {
                Parcel::Block(block, _) => block.piece,
                Parcel::Message(_) | Parcel::Close => panic!("only blocks were sent"),
            })
            .collect();
        assert_eq!(pieces, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn what_comes_to_a_closed_end_is_dropped_and_counted() {
        let mut network = network(&[(1_000_000, 1_000_000), (1_000_000, 1_000_000)], 0.0);
        let mut queue = Queue::new();
        let link = network.connect([0, 1], LATENCY);
        send(&mut network, &mut queue, link, 3);
        let next = network.close(Instant::ZERO, link, 1);
        next.into_iter().for_each(|(at, transit)| queue.push(at, transit));
        let arrivals = drain(&mut network, queue);
        assert!(
            arrivals.iter().filter(|arrival| arrival.host == 1).all(|arrival| arrival.parcels.is_empty())
        );
        let heard = arrivals.iter().find(|arrival| arrival.host == 0).unwrap();
        assert!(matches!(heard.parcels[..], [Parcel::Close]));
        assert_eq!(network.content().dropped, 3 * u64::from(BLOCK_LEN));
    }
}
