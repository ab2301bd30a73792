//! What answering may cost: queries by prefix, and bytes in all, so that we cannot be used against
//! a third.
//!
//! 10 queries a second of one /24 or /64 (in bursts of five seconds) and 16 kB of answers a second;
//! prefixes are counted in a table of fixed size (8 kB) where the longest silent makes room; the
//! places are those of a hash with a secret key, so that an attacker cannot choose prefixes that
//! wear out the place of another. Local addresses share only the bytes. Datagrams beyond a budget
//! are dropped, not answered, and no host is banned for them: their source may be forged.

use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::defence::prefix::Prefix;
use crate::proto::bandwidth::Bucket;
use crate::proto::compact;
use crate::proto::rng::Rng;
use crate::proto::time::Instant;

/// Queries a second of one prefix, in the long run; others are dropped. One is a tick.
const QUERIES_PER_SECOND: u64 = 10;
/// Queries at once of a prefix that was silent for as many ticks.
const QUERY_BURST: u32 = 50;
/// Bytes of answers a second, to whomever; others are not given. A node at rest gives some hundred.
const ANSWER_RATE: u64 = 16_000;
/// Places of the table of prefixes. Whoever was silent for the length of a burst needs none, so
/// they suffice for 200 new prefixes a second; beyond that a prefix is given a new burst, and the
/// bytes are the limit.
const SLOT_COUNT: usize = 1_024;
/// Places that a prefix may take.
const SET_LEN: usize = 8;

/// The books.
#[derive(Debug)]
pub struct Budget {
    bytes: Bucket,
    key: SipHasher13,
    /// Allocated by the first query.
    slots: Vec<Slot>,
}

/// What one prefix has left.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Which prefix: half of its hash, so that a few share a place, and a budget.
    tag: u32,
    /// The tick until which its queries are spent; from then on it has its whole burst.
    spent_until: u32,
}

impl Budget {
    /// Full; the secret is drawn from `rng`.
    pub fn new(mut rng: Rng, now: Instant) -> Self {
        let key = SipHasher13::new_with_keys(rng.bits(), rng.bits());
        Self { bytes: Bucket::new(Some(ANSWER_RATE), now), key, slots: Vec::new() }
    }

    /// Whether a query from this address may be looked at; counts it.
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

    /// Whether an answer of so many bytes may leave; counts it.
    pub fn spend(&mut self, now: Instant, len: usize) -> bool {
        self.bytes.take(len as u64, now)
    }

    /// The place of a prefix; if it has none, that of the longest silent of its set.
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

/// Ticks since the shell's start, from 1 on; 13 years fit.
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
    fn a_prefix_has_its_burst_and_then_ten_a_second_and_others_have_their_own() {
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
    fn many_prefixes_do_not_wear_out_one_another() {
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
