//! Whether other nodes reach this one by one family (BEP 43). A node behind a NAT that admits no
//! unsolicited datagrams says so by `ro`, so that no routing table keeps an address that does not
//! answer.
//!
//! A query from a host that was not queried within [`FORGOTTEN_AFTER`] proves that any host can
//! reach this node. If there is none within [`TRIAL`] of the first answer of a public node, this
//! node is read-only, and tries again every [`RETRY_AFTER`]. Queried hosts are remembered in a
//! Bloom filter, for longer while they send queries, because a NAT may keep their mapping open. A
//! host that sent the first query is not remembered: forged sources would fill the filter, and a
//! full one hides the proof, because it takes every host for a queried one. Local networks have no
//! NAT between their nodes: until a public node answers, this node is not read-only.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::event::ReadOnly;
use crate::proto::compact;
use crate::proto::time::{Duration, Instant};

/// Time after our last datagram to a host during which it may reach this node only because of that
/// one. NATs keep UDP mappings for some minutes (RFC 4787 requires two).
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Time to wait for the proof. Meanwhile some twenty nodes have met this one, and lookups near our
/// id, one a minute in an idle overlay, have found it through them.
const TRIAL: Duration = Duration::from_secs(300);
/// How long a proof is valid, and how long this node stays read-only before the next trial.
const RETRY_AFTER: Duration = Duration::from_secs(1_800);
/// 64-bit words of each of two filters: some 500 hosts are queried in ten minutes of heavy use.
const FILTER_WORDS: usize = 64;

/// The state of the proof.
#[derive(Clone, Copy, Debug)]
enum State {
    /// No public node has answered.
    Local,
    /// Waiting for the proof.
    Trial { until: Instant },
    /// Reached, until this time.
    Reached { until: Instant },
    /// Not reached; the next trial begins at this time.
    Unreached { until: Instant },
}

/// Decides whether this node is read-only.
#[derive(Debug)]
pub(super) struct Reach {
    mode: ReadOnly,
    state: State,
    /// Hosts queried since the second turn before, and since the last one.
    asked: [[u64; FILTER_WORDS]; 2],
    turned_at: Instant,
}

impl Reach {
    /// Creates it without knowledge.
    pub(super) fn new(mode: ReadOnly, now: Instant) -> Self {
        Self { mode, state: State::Local, asked: [[0; FILTER_WORDS]; 2], turned_at: now }
    }

    /// This node queried a host.
    pub(super) fn asked(&mut self, now: Instant, to: IpAddr) {
        if self.mode == ReadOnly::Auto && !compact::is_local(to) {
            self.turn(now);
            let (word, bit) = place(to);
            self.asked[1][word] |= bit;
        }
    }

    /// A host answered.
    pub(super) fn answered(&mut self, now: Instant, from: IpAddr) {
        if matches!(self.state, State::Local) && !compact::is_local(from) {
            self.state = State::Trial { until: now + TRIAL };
        }
    }

    /// A host sent a query.
    pub(super) fn queried(&mut self, now: Instant, from: IpAddr) {
        if self.mode != ReadOnly::Auto || compact::is_local(from) {
            return;
        }
        self.turn(now);
        let (word, bit) = place(from);
        if self.asked.iter().all(|filter| filter[word] & bit == 0) {
            self.state = State::Reached { until: now + RETRY_AFTER };
        } else {
            self.asked[1][word] |= bit;
        }
    }

    /// Whether queries carry `ro`.
    pub(super) fn is_read_only(&self, now: Instant) -> bool {
        match self.mode {
            ReadOnly::Never => false,
            ReadOnly::Always => true,
            ReadOnly::Auto => match self.state {
                State::Local => false,
                State::Trial { until } => until <= now,
                // A trial follows.
                State::Reached { until } => until + TRIAL <= now,
                // The next trial follows; if it fails too, the state is this one again.
                State::Unreached { until } => now < until || until + TRIAL <= now,
            },
        }
    }

    /// Applies the passage of time.
    fn turn(&mut self, now: Instant) {
        if now.since(self.turned_at) >= FORGOTTEN_AFTER {
            let long_ago = now.since(self.turned_at) >= 2 * FORGOTTEN_AFTER;
            self.asked[0] = if long_ago { [0; FILTER_WORDS] } else { self.asked[1] };
            self.asked[1] = [0; FILTER_WORDS];
            self.turned_at = now;
        }
        let ended_at = match self.state {
            State::Local => return,
            State::Trial { until } => until,
            State::Reached { until } | State::Unreached { until } => until + TRIAL,
        };
        if ended_at <= now {
            self.state = State::Unreached { until: now + RETRY_AFTER };
        }
    }
}

/// Returns the word and bit of a host.
fn place(ip: IpAddr) -> (usize, u64) {
    let mut hasher = SipHasher13::new();
    match ip.to_canonical() {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
    let hash = hasher.finish();
    ((hash >> 6) as usize % FILTER_WORDS, 1 << (hash % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn host(last: u8) -> IpAddr {
        IpAddr::from([8, 8, 8, last])
    }

    fn asked() -> Reach {
        let mut reach = Reach::new(ReadOnly::Auto, Instant::ZERO);
        reach.asked(Instant::ZERO, host(1));
        reach.answered(Instant::ZERO, host(1));
        reach
    }

    #[test]
    fn a_node_reached_only_by_nodes_that_it_queried_becomes_read_only_and_retries() {
        let mut reach = asked();
        let mut now = Instant::ZERO + (TRIAL - SECOND);
        reach.queried(now, host(1));
        assert!(!reach.is_read_only(now), "the trial runs");
        now += SECOND;
        assert!(reach.is_read_only(now));
        reach.asked(now, host(1));
        assert!(reach.is_read_only(now + (RETRY_AFTER - SECOND)));
        assert!(!reach.is_read_only(now + RETRY_AFTER), "the next trial");
        assert!(reach.is_read_only(now + RETRY_AFTER + TRIAL));
    }

    #[test]
    fn a_query_from_an_unqueried_host_proves_reachability_for_a_while() {
        let mut reach = asked();
        let mut now = Instant::ZERO + TRIAL * 2;
        reach.asked(now, host(1));
        assert!(reach.is_read_only(now));
        reach.queried(now, host(2));
        assert!(!reach.is_read_only(now));
        now += FORGOTTEN_AFTER;
        reach.asked(now, host(3));
        now += FORGOTTEN_AFTER;
        reach.queried(now, host(1));
        assert!(!reach.is_read_only(now + RETRY_AFTER), "one whom we asked long ago is a stranger again");
        assert!(reach.is_read_only(now + RETRY_AFTER + TRIAL));
    }

    #[test]
    fn forged_queries_do_not_hide_an_unqueried_host() {
        let mut reach = asked();
        for number in 0..100_000_u32 {
            let forged = IpAddr::from((0x0b00_0000 + number).to_be_bytes());
            reach.queried(Instant::ZERO, forged);
        }
        let mut now = Instant::ZERO + RETRY_AFTER + TRIAL;
        reach.asked(now, host(1));
        assert!(reach.is_read_only(now));
        now += SECOND;
        reach.queried(now, host(9));
        assert!(!reach.is_read_only(now));
    }

    #[test]
    fn a_queried_host_that_keeps_querying_proves_nothing() {
        let (mut reach, mut now) = (asked(), Instant::ZERO);
        for _ in 0..10 {
            now += FORGOTTEN_AFTER - SECOND;
            reach.queried(now, host(1));
            assert!(reach.is_read_only(now));
        }
    }

    #[test]
    fn no_node_is_read_only_in_a_local_network() {
        let mut reach = Reach::new(ReadOnly::Auto, Instant::ZERO);
        let local = IpAddr::from([192, 168, 1, 1]);
        reach.asked(Instant::ZERO, local);
        reach.answered(Instant::ZERO, local);
        assert!(!reach.is_read_only(Instant::ZERO + TRIAL * 100));
        assert!(Reach::new(ReadOnly::Always, Instant::ZERO).is_read_only(Instant::ZERO));
    }
}
