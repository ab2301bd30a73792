//! Whether others reach us by one family (BEP 43): a node behind a NAT that lets no connection in
//! tells so by `ro`, so that no routing table keeps an address that does not answer.
//!
//! Who reaches us without having heard from us within [`FORGOTTEN_AFTER`] proves that anybody can.
//! If no node has within [`TRIAL`] of the first answer of a public node, we are read-only, and try
//! again every [`RETRY_AFTER`]. Whom we have asked something is remembered by the bits of a filter,
//! longer as long as they ask us: a translator may keep the way open for whoever uses it. Who asked
//! first is not, or forged askers would fill the filter, and a full one takes strangers for
//! acquaintances and waits for the proof in vain. Local networks have no translators between their
//! nodes: as long as no public node answered, we are not read-only.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::event::ReadOnly;
use crate::proto::compact;
use crate::proto::time::{Duration, Instant};

/// How long after our last datagram to it a host may reach us only because of that one. Translators
/// keep UDP mappings for some minutes (RFC 4787 asks for two at least).
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// How long the proof is waited for. In that time some twenty nodes have met us, and lookups that
/// pass near our id, one a minute in an overlay at rest, have found us through them.
const TRIAL: Duration = Duration::from_secs(300);
/// How long a proof lasts, and how long we stay read-only before the next trial.
const RETRY_AFTER: Duration = Duration::from_secs(1_800);
/// Bits of each of two filters: some 500 hosts are asked in ten minutes of heavy use.
const FILTER_WORDS: usize = 64;

/// What is known.
#[derive(Clone, Copy, Debug)]
enum State {
    /// No public node has answered.
    Local,
    /// Waiting for the proof.
    Trial { until: Instant },
    /// It came, and lasts.
    Reached { until: Instant },
    /// It did not; the next trial begins then.
    Unreached { until: Instant },
}

/// The judge.
#[derive(Debug)]
pub(super) struct Reach {
    mode: ReadOnly,
    state: State,
    /// Whom we asked something since the second turn before, and since the last one.
    asked: [[u64; FILTER_WORDS]; 2],
    turned_at: Instant,
}

impl Reach {
    /// Nothing known.
    pub(super) fn new(mode: ReadOnly, now: Instant) -> Self {
        Self { mode, state: State::Local, asked: [[0; FILTER_WORDS]; 2], turned_at: now }
    }

    /// We asked this host something.
    pub(super) fn asked(&mut self, now: Instant, to: IpAddr) {
        if self.mode == ReadOnly::Auto && !compact::is_local(to) {
            self.turn(now);
            let (word, bit) = place(to);
            self.asked[1][word] |= bit;
        }
    }

    /// A host answered us.
    pub(super) fn answered(&mut self, now: Instant, from: IpAddr) {
        if matches!(self.state, State::Local) && !compact::is_local(from) {
            self.state = State::Trial { until: now + TRIAL };
        }
    }

    /// A host asked us something.
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

    /// Whether we say `ro`.
    pub(super) fn is_read_only(&self, now: Instant) -> bool {
        match self.mode {
            ReadOnly::Never => false,
            ReadOnly::Always => true,
            ReadOnly::Auto => match self.state {
                State::Local => false,
                State::Trial { until } => until <= now,
                // A trial follows.
                State::Reached { until } => until + TRIAL <= now,
                // Likewise; who fails it too is back here.
                State::Unreached { until } => now < until || until + TRIAL <= now,
            },
        }
    }

    /// Moves on with time.
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

/// A host's word and bit.
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
    fn whoever_only_those_reach_whom_it_asked_becomes_read_only_and_tries_again() {
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
    fn a_stranger_proves_that_we_are_reached_until_nobody_comes_any_more() {
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
    fn however_many_forge_that_they_asked_a_stranger_is_told_from_acquaintances() {
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
    fn an_acquaintance_that_goes_on_asking_is_no_proof() {
        let (mut reach, mut now) = (asked(), Instant::ZERO);
        for _ in 0..10 {
            now += FORGOTTEN_AFTER - SECOND;
            reach.queried(now, host(1));
            assert!(reach.is_read_only(now));
        }
    }

    #[test]
    fn nobody_is_read_only_where_all_nodes_are_local() {
        let mut reach = Reach::new(ReadOnly::Auto, Instant::ZERO);
        let local = IpAddr::from([192, 168, 1, 1]);
        reach.asked(Instant::ZERO, local);
        reach.answered(Instant::ZERO, local);
        assert!(!reach.is_read_only(Instant::ZERO + TRIAL * 100));
        assert!(Reach::new(ReadOnly::Always, Instant::ZERO).is_read_only(Instant::ZERO));
    }
}
