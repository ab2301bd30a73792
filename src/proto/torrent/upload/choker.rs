//! Whom we upload to: rounds of 10 s (BEP 3).
//!
//! While downloading, those who give us most are unchoked, and one optimistic slot goes round, so
//! that newcomers can begin and better partners are found. As a seed, slots go round among those
//! who got least, so that pieces spread. Slots follow what the upload feeds, and are never more
//! than the session allows.
//!
//! Its answers follow from its arguments, its generator and who holds a slot since when; it sends
//! nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::event::ConnId;

/// Time between rounds.
pub const ROUND: Duration = Duration::from_secs(10);
/// How long the optimistic slot stays with one peer, and a slot with one who gives us nothing.
pub const OPTIMISTIC: Duration = Duration::from_secs(30);
/// How much likelier a newcomer gets the optimistic slot: it has nothing to give yet.
const NEWCOMER_WEIGHT: usize = 3;
/// How long one counts as a newcomer.
const NEWCOMER_TIME: Duration = Duration::from_secs(60);
/// Bytes that a seed sends to one peer before it moves on, if others wait.
const SEED_QUOTA_LEN: u64 = 8 << 20;
/// How long a seed stays with one peer, if others wait.
const SEED_TENURE: Duration = Duration::from_secs(30);
/// Slots at first: enough for a home line.
const SLOTS_START: usize = 6;
/// Slots at least.
const SLOTS_MIN: usize = 2;
/// Slots at most, whatever the upload: a peer serves each neighbour a share worth having.
const SLOTS_MAX: usize = 200;
/// Percent of the rate at the last growth that must be reached before slots grow again: if more
/// slots did not send more, it is not slots that are short.
const GAIN_MIN: u64 = 110;
/// Bytes per second below which a slot is not worth having: slots beyond those at first are given
/// up.
const SLOT_RATE_MIN: u64 = 8 * 1024;

/// One connection as the choker sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The connection.
    pub conn: ConnId,
    /// It wants something of ours.
    pub interested: bool,
    /// We do not choke it.
    pub unchoked: bool,
    /// It owes us blocks and sends none.
    pub snubbed: bool,
    /// Bytes per second from it lately.
    pub download_rate: u64,
    /// Bytes per second to it lately.
    pub upload_rate: u64,
    /// Content bytes sent to it in all.
    pub uploaded: u64,
    /// When it connected.
    pub connected_at: Instant,
}

/// What the torrent can give.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// We have all that we want: spread instead of reward.
    pub seeding: bool,
    /// Unchoke slots that the session allows; None: as many as the upload feeds.
    pub unchoke_max: Option<usize>,
    /// The upload limit, bytes per second.
    pub rate_limit: Option<u64>,
    /// Blocks lately waited for the uplink: more slots would not send more.
    pub saturated: bool,
}

/// A decision: from now on choke, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Choke it.
    Choke(ConnId),
    /// Unchoke it.
    Unchoke(ConnId),
}

/// Since when a peer holds its slot, and what it had got by then.
#[derive(Clone, Copy, Debug)]
struct Tenure {
    since: Instant,
    uploaded: u64,
}

/// The choker.
#[derive(Debug)]
pub struct Choker {
    next_at: Instant,
    slots: usize,
    /// Bytes per second sent when slots last grew.
    rate_at_growth: u64,
    tenures: BTreeMap<ConnId, Tenure>,
    optimistic: Option<ConnId>,
    rng: Rng,
}

impl Choker {
    /// The first round is due at once.
    pub fn new(rng: Rng, now: Instant) -> Self {
        Self {
            next_at: now,
            slots: SLOTS_START,
            rate_at_growth: 0,
            tenures: BTreeMap::new(),
            optimistic: None,
            rng,
        }
    }

    /// When [`Choker::round`] is due.
    pub fn next_at(&self) -> Instant {
        self.next_at
    }

    /// A round: who is choked and unchoked from now on. `peers` in any order.
    pub fn round(&mut self, now: Instant, peers: &[Candidate], capacity: Capacity) -> Vec<Change> {
        self.next_at = now + ROUND;
        self.note_tenures(now, peers);
        self.fit_slots(peers, &capacity);
        let slots = self.slots.min(capacity.unchoke_max.unwrap_or(usize::MAX));
        let mut interested: Vec<Candidate> = peers.iter().filter(|peer| peer.interested).copied().collect();
        interested.sort_unstable_by_key(|peer| peer.conn);
        let chosen = if capacity.seeding {
            self.spread(now, &interested, slots)
        } else {
            self.reward(now, &interested, slots)
        };
        let chokes = peers.iter().filter(|peer| peer.unchoked && !chosen.contains(&peer.conn));
        let unchokes = peers.iter().filter(|peer| !peer.unchoked && chosen.contains(&peer.conn));
        let mut changes: Vec<Change> = chokes.map(|peer| Change::Choke(peer.conn)).collect();
        changes.extend(unchokes.map(|peer| self.unchoke(now, peer)));
        changes
    }

    /// Between rounds: someone became interested, or an unchoked one left or lost interest. Fills
    /// slots that are free; chokes at most those who want nothing.
    pub fn fill(&mut self, now: Instant, peers: &[Candidate], capacity: Capacity) -> Vec<Change> {
        self.note_tenures(now, peers);
        let slots = self.slots.min(capacity.unchoke_max.unwrap_or(usize::MAX));
        let busy = peers.iter().filter(|peer| peer.unchoked && peer.interested).count();
        let mut waiting: Vec<Candidate> =
            peers.iter().filter(|peer| peer.interested && !peer.unchoked).copied().collect();
        let free = slots.saturating_sub(busy);
        if free == 0 || waiting.is_empty() {
            return Vec::new();
        }
        waiting.sort_unstable_by_key(|peer| peer.conn);
        self.rng.shuffle(&mut waiting);
        if capacity.seeding {
            waiting.sort_by_key(|peer| peer.uploaded);
        } else {
            waiting.sort_by_key(|peer| (peer.snubbed, Reverse(peer.download_rate)));
        }
        waiting.truncate(free);
        let idle: Vec<ConnId> =
            peers.iter().filter(|peer| peer.unchoked && !peer.interested).map(|peer| peer.conn).collect();
        let surplus = (busy + idle.len() + waiting.len()).saturating_sub(slots);
        let mut changes: Vec<Change> = idle.into_iter().take(surplus).map(Change::Choke).collect();
        changes.extend(waiting.iter().map(|peer| self.unchoke(now, peer)));
        changes
    }

    fn unchoke(&mut self, now: Instant, peer: &Candidate) -> Change {
        self.tenures.insert(peer.conn, Tenure { since: now, uploaded: peer.uploaded });
        Change::Unchoke(peer.conn)
    }

    fn note_tenures(&mut self, now: Instant, peers: &[Candidate]) {
        let unchoked: BTreeMap<ConnId, u64> =
            peers.iter().filter(|peer| peer.unchoked).map(|peer| (peer.conn, peer.uploaded)).collect();
        self.tenures.retain(|conn, _| unchoked.contains_key(conn));
        for (conn, uploaded) in unchoked {
            self.tenures.entry(conn).or_insert(Tenure { since: now, uploaded });
        }
    }

    /// More slots while the uplink idles, all are in use and more of them do send more; fewer when
    /// each gets next to nothing.
    fn fit_slots(&mut self, peers: &[Candidate], capacity: &Capacity) {
        let busy = peers.iter().filter(|peer| peer.unchoked && peer.interested);
        let (count, rate) = busy.fold((0, 0), |(count, rate), peer| (count + 1, rate + peer.upload_rate));
        let each = rate / (count as u64).max(1);
        if let Some(limit) = capacity.rate_limit {
            self.slots = slots_of_rate(limit);
        } else if self.slots > SLOTS_START && each < SLOT_RATE_MIN {
            self.slots -= 1;
        } else if !capacity.saturated && count >= self.slots && rate > self.rate_at_growth * GAIN_MIN / 100 {
            self.rate_at_growth = self.rate_at_growth.max(rate);
            self.slots = (self.slots + self.slots / 4 + 1).min(SLOTS_MAX);
        }
    }

    /// As a downloader: the best reciprocators, one optimistic slot, and spare slots to anybody.
    fn reward(&mut self, now: Instant, interested: &[Candidate], slots: usize) -> BTreeSet<ConnId> {
        let mut givers: Vec<&Candidate> =
            interested.iter().filter(|peer| peer.download_rate > 0 && !peer.snubbed).collect();
        givers.sort_by_key(|peer| (Reverse(peer.download_rate), !peer.unchoked, peer.conn));
        let regular = slots.saturating_sub(1);
        let mut chosen: BTreeSet<ConnId> = givers.iter().take(regular).map(|peer| peer.conn).collect();
        let young =
            |conn: &ConnId| self.tenures.get(conn).is_some_and(|tenure| now - tenure.since < OPTIMISTIC);
        let stays = |peer: &&Candidate| peer.unchoked && young(&peer.conn) && !chosen.contains(&peer.conn);
        // Whoever holds a spare slot keeps it as long as the optimistic one would.
        let mut staying: Vec<ConnId> = interested.iter().filter(stays).map(|peer| peer.conn).collect();
        staying.sort_by_key(|conn| self.optimistic != Some(*conn));
        chosen.extend(staying.into_iter().take(slots - chosen.len().min(slots)));
        while chosen.len() < slots
            && let Some(conn) = self.draw(now, interested, &chosen)
        {
            self.optimistic = Some(conn);
            chosen.insert(conn);
        }
        chosen
    }

    /// One of those not chosen, at random, newcomers favoured; snubbed ones, and those whose time
    /// in a spare slot is over, only if there is nobody else.
    fn draw(&mut self, now: Instant, interested: &[Candidate], chosen: &BTreeSet<ConnId>) -> Option<ConnId> {
        let others = || interested.iter().filter(|peer| !chosen.contains(&peer.conn));
        let fresh = others().any(|peer| !peer.snubbed && !peer.unchoked);
        let mut tickets = Vec::new();
        for peer in others().filter(|peer| !fresh || (!peer.snubbed && !peer.unchoked)) {
            let newcomer = now - peer.connected_at < NEWCOMER_TIME && peer.uploaded == 0;
            let count = if newcomer { NEWCOMER_WEIGHT } else { 1 };
            tickets.extend((0..count).map(|_| peer.conn));
        }
        tickets.get(self.rng.below(tickets.len())).copied()
    }

    /// As a seed: who has a slot keeps it until it got its quota or its time is over; then those
    /// who got least, the faster first among equals.
    fn spread(&mut self, now: Instant, interested: &[Candidate], slots: usize) -> BTreeSet<ConnId> {
        let mut order: Vec<Candidate> = interested.to_vec();
        self.rng.shuffle(&mut order);
        order.sort_by_key(|peer| {
            let served = self.tenures.get(&peer.conn).is_none_or(|tenure| {
                now - tenure.since >= SEED_TENURE || peer.uploaded - tenure.uploaded >= SEED_QUOTA_LEN
            });
            (served, peer.unchoked, peer.uploaded, Reverse(peer.upload_rate))
        });
        order.iter().take(slots).map(|peer| peer.conn).collect()
    }
}

/// Slots that a limited upload feeds: few enough that each is worth having.
fn slots_of_rate(limit: u64) -> usize {
    let kilobytes = limit as f64 / 1000.0;
    ((kilobytes * 0.6).sqrt() as usize + 1).clamp(SLOTS_MIN, SLOTS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEECH: Capacity = Capacity { seeding: false, unchoke_max: None, rate_limit: None, saturated: true };
    const SEED: Capacity = Capacity { seeding: true, ..LEECH };

    fn peer(conn: u32, download_rate: u64) -> Candidate {
        Candidate {
            conn: ConnId(conn),
            interested: true,
            unchoked: false,
            snubbed: false,
            download_rate,
            upload_rate: 50_000,
            uploaded: 1,
            connected_at: Instant::ZERO,
        }
    }

    fn choker() -> Choker {
        Choker::new(Rng::from_number(9), Instant::ZERO)
    }

    fn apply(peers: &mut [Candidate], changes: &[Change]) {
        for &change in changes {
            let (conn, unchoked) = match change {
                Change::Choke(conn) => (conn, false),
                Change::Unchoke(conn) => (conn, true),
            };
            let peer = peers.iter_mut().find(|peer| peer.conn == conn).unwrap();
            assert_ne!(peer.unchoked, unchoked, "only changes are told");
            peer.unchoked = unchoked;
        }
    }

    fn unchoked(peers: &[Candidate]) -> Vec<u32> {
        peers.iter().filter(|peer| peer.unchoked).map(|peer| peer.conn.0).collect()
    }

    #[test]
    fn those_who_give_most_are_unchoked_and_one_more() {
        let mut peers: Vec<_> = (0..20).map(|conn| peer(conn, u64::from(conn) * 1_000)).collect();
        peers[19].snubbed = true;
        peers[18].interested = false;
        let mut choker = choker();
        let mut now = Instant::ZERO;
        let mut lucky = BTreeSet::new();
        for _ in 0..60 {
            let changes = choker.round(now, &peers, LEECH);
            apply(&mut peers, &changes);
            let chosen = unchoked(&peers);
            assert_eq!(chosen.len(), SLOTS_START);
            assert!((13..18).all(|conn| chosen.contains(&conn)), "{chosen:?}");
            lucky.extend(chosen.into_iter().filter(|conn| !(13..18).contains(conn)));
            now = choker.next_at();
        }
        assert!(lucky.len() > 8 && !lucky.contains(&19), "600 s of optimistic slots: {lucky:?}");
    }

    #[test]
    fn the_optimistic_slot_stays_a_while_and_favours_newcomers() {
        let (mut newcomers, mut now) = (0, Instant::ZERO);
        for seed in 0..300 {
            let mut choker = Choker::new(Rng::from_number(seed), now);
            now += OPTIMISTIC;
            let mut peers: Vec<_> = (0..10).map(|conn| peer(conn, 0)).collect();
            peers.iter_mut().take(5).for_each(|peer| (peer.connected_at, peer.uploaded) = (now, 0));
            now += Duration::from_secs(1);
            let one = Capacity { unchoke_max: Some(1), ..LEECH };
            let changes = choker.round(now, &peers, one);
            apply(&mut peers, &changes);
            let lucky = unchoked(&peers);
            newcomers += usize::from(lucky[0] < 5);
            assert!(choker.round(now + ROUND, &peers, one).is_empty());
            assert!(!choker.round(now + OPTIMISTIC, &peers, one).is_empty());
            now += NEWCOMER_TIME;
        }
        assert!((190..260).contains(&newcomers), "three to one: {newcomers} of 300");
    }

    #[test]
    fn a_seed_goes_round_and_everybody_gets_the_same() {
        let mut peers: Vec<_> = (0..30).map(|conn| peer(conn, 0)).collect();
        let mut choker = choker();
        for round in 0..90 {
            let changes = choker.round(Instant::ZERO + ROUND * round, &peers, SEED);
            apply(&mut peers, &changes);
            for peer in peers.iter_mut().filter(|peer| peer.unchoked) {
                peer.uploaded += 500_000;
            }
        }
        let least = peers.iter().map(|peer| peer.uploaded).min().unwrap();
        let most = peers.iter().map(|peer| peer.uploaded).max().unwrap();
        assert!(least > 0 && most <= least + 3 * 500_000, "{least} {most}");
    }

    #[test]
    fn slots_grow_while_the_uplink_idles_but_never_beyond_the_lease() {
        let mut peers: Vec<_> = (0..100).map(|conn| peer(conn, 10)).collect();
        let mut choker = choker();
        let idle = Capacity { saturated: false, ..LEECH };
        for round in 0..10 {
            let changes = choker.round(Instant::ZERO + ROUND * round, &peers, idle);
            apply(&mut peers, &changes);
        }
        assert!(unchoked(&peers).len() > 20);
        let leased = Capacity { unchoke_max: Some(3), ..idle };
        let changes = choker.round(Instant::ZERO + ROUND * 11, &peers, leased);
        apply(&mut peers, &changes);
        assert_eq!(unchoked(&peers).len(), 3);
        assert_eq!((slots_of_rate(0), slots_of_rate(100_000), slots_of_rate(u64::MAX)), (2, 8, SLOTS_MAX));
    }

    #[test]
    fn free_slots_are_filled_between_rounds() {
        let mut peers: Vec<_> = (0..8).map(|conn| peer(conn, 0)).collect();
        let mut choker = choker();
        let changes = choker.fill(Instant::ZERO, &peers, LEECH);
        apply(&mut peers, &changes);
        assert_eq!(unchoked(&peers).len(), SLOTS_START);
        assert!(choker.fill(Instant::ZERO, &peers, LEECH).is_empty());
        let bored = unchoked(&peers)[0];
        peers[bored as usize].interested = false;
        let changes = choker.fill(Instant::ZERO, &peers, LEECH);
        apply(&mut peers, &changes);
        assert_eq!(unchoked(&peers).len(), SLOTS_START);
        assert!(!peers[bored as usize].unchoked);
    }
}
