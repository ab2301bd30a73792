//! Bounds the cost of answers: queries of each prefix, and bytes in all, so that this node cannot
//! be used against a third party.
//!
//! 10 queries per second of one /24 or /64 (in bursts of five seconds) and 16 kB of answers per
//! second. Prefixes are counted in a table of fixed size (8 kB), in which the prefix with the
//! longest silence is replaced. Places follow from a hash with a secret key, so that an attacker
//! cannot choose prefixes that use up the budget of another. Local addresses share only the bytes.
//! Datagrams beyond a budget are dropped without an answer, and no host is banned, because sources
//! may be forged.

use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::defence::prefix::Prefix;
use crate::proto::bandwidth::Bucket;
use crate::proto::compact;
use crate::proto::rng::Rng;
use crate::proto::time::Instant;

/// Queries per second of one prefix in the long run; others are dropped. One query is a tick.
const QUERIES_PER_SECOND: u64 = 10;
/// Most queries at once of a prefix that was silent for as many ticks.
const QUERY_BURST: u32 = 50;
/// Bytes of all answers per second; further ones are not sent. An idle node sends some hundred.
const ANSWER_RATE: u64 = 16_000;
/// Places in the table of prefixes. A prefix that was silent for the length of a burst needs none,
/// so they suffice for 200 new prefixes per second; beyond that, prefixes get new bursts, and the
/// bytes are the limit.
const SLOT_COUNT: usize = 1_024;
/// Places that a prefix may occupy.
const SET_LEN: usize = 8;

/// The budgets of all prefixes and of the bytes.
#[derive(Debug)]
pub struct Budget {
    bytes: Bucket,
    key: SipHasher13,
    /// Allocated by the first query.
    slots: Vec<Slot>,
}

/// The budget of one prefix.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Half of the prefix's hash; the few prefixes that share it share a budget.
    tag: u32,
    /// The tick until which its queries are used up; from then on it has its full burst.
    spent_until: u32,
}

impl Budget {
    /// Creates full budgets; the secret is drawn from `rng`.
    pub fn new(mut rng: Rng, now: Instant) -> Self {
        let key = SipHasher13::new_with_keys(rng.bits(), rng.bits());
        Self { bytes: Bucket::new(Some(ANSWER_RATE), now), key, slots: Vec::new() }
    }

    /// Counts a query, and returns whether it may be answered.
    pub fn admit(&mut self, now: Instant, from: IpAddr) -> bool {
        if compact::is_local(from) {
            return true;
        }
        if self.slots.is_empty() {
            self.slots = vec![Slot::default(); SLOT_COUNT];
        }
        let tick = tick(now);
        let slot = self.slot(from);
        let spent_until = slot.spent_until.max(tick) + 1;
        let is_within = spent_until - tick <= QUERY_BURST;
        if is_within {
            slot.spent_until = spent_until;
        }
        is_within
    }

    /// Counts an answer of `len` bytes, and returns whether it may be sent.
    pub fn spend(&mut self, now: Instant, len: usize) -> bool {
        self.bytes.take(len as u64, now)
    }

    /// Returns the place of a prefix, or that of the prefix in its set with the longest silence.
    fn slot(&mut self, from: IpAddr) -> &mut Slot {
        let hash = self.key.hash(&Prefix::of_ip(from).to_bits().to_ne_bytes());
        let (tag, set) = ((hash >> 32) as u32, hash as usize % (SLOT_COUNT / SET_LEN));
        let slots = &mut self.slots[set * SET_LEN..][..SET_LEN];
        let at = slots.iter().position(|slot| slot.tag == tag).unwrap_or_else(|| {
            let silent = slots.iter().enumerate().min_by_key(|(_, slot)| slot.spent_until);
            let at = silent.map_or(0, |(at, _)| at);
            slots[at] = Slot { tag, spent_until: 0 };
            at
        });
        &mut slots[at]
    }
}

/// Ticks since the start of the shell, from 1; 13 years fit.
fn tick(now: Instant) -> u32 {
    let ticks = now.as_micros() * QUERIES_PER_SECOND / 1_000_000;
    u32::try_from(ticks).unwrap_or(u32::MAX - QUERY_BURST - 1)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::proto::time::Duration;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_prefix_has_a_burst_and_then_ten_queries_a_second() {
        let mut now = Instant::from_micros(77_777_777);
        let mut budget = Budget::new(Rng::from_number(1), now);
        let admitted =
            (0..500).filter(|host| budget.admit(now, ip(&format!("8.8.8.{}", host % 256)))).count();
        assert_eq!(admitted, 50, "one /24 has one budget");
        assert!(budget.admit(now, ip("8.8.9.1")) && budget.admit(now, ip("2001:db8::1")));
        let mut admitted = 0;
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            admitted += usize::from(budget.admit(now, ip("8.8.8.8")));
        }
        assert!((99..=101).contains(&admitted), "{admitted} in 10 s");
        let mut crowd = (0..500).map(|_| budget.admit(now, ip("192.168.1.1")));
        assert!(crowd.all(|admitted| admitted), "neighbours share only the bytes");
    }

    #[test]
    fn many_prefixes_do_not_use_up_each_other_s_budget() {
        let mut now = Instant::ZERO;
        let mut budget = Budget::new(Rng::from_number(1), now);
        let mut admitted = 0;
        // 100 prefixes, each at half its rate, for a minute.
        for round in 0..300 {
            now = Instant::from_micros(round * 200_000);
            for net in 0..100_u32 {
                admitted +=
                    usize::from(budget.admit(now, Ipv4Addr::from_bits(0x0808_0000 + (net << 8)).into()));
            }
        }
        assert!(admitted > 29_900, "{admitted} of 30000");
        assert_eq!(budget.slots.len(), SLOT_COUNT);
    }

    #[test]
    fn answers_have_a_rate_of_bytes() {
        let mut now = Instant::ZERO;
        let mut budget = Budget::new(Rng::from_number(1), now);
        let mut spent = 0;
        while now < Instant::from_micros(100_000_000) {
            spent += if budget.spend(now, 300) { 300 } else { 0 };
            now += Duration::from_millis(1);
        }
        assert!((1_590_000..1_620_000).contains(&spent), "{spent} in 100 s");
    }
}
